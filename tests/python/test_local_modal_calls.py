"""Function calls on Local Modal, made with the real SDK."""

from __future__ import annotations

import os
import textwrap
from typing import Any

import pytest

from local_modal import APPS, LocalModal, wait_until

FUNCTIONS = textwrap.dedent("""
    def fn(name): return modal.Function.from_name("sample", name)
    notes = modal.Dict.from_name("sample-notes", create_if_missing=True)
    def outcome(call):
        try: return ["ok", call()]
        except BaseException as error: return [type(error).__name__, str(error)]
    def wait_for(key):
        until = time.monotonic() + 30
        while key not in notes:
            assert time.monotonic() < until, f"no {key}"
            time.sleep(0.02)
        return notes[key]
""")


def run(server: LocalModal, script: str) -> Any:
    return server.sdk(FUNCTIONS + textwrap.dedent(script))


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_results_are_returned_and_containers_reused(shared_modal: LocalModal) -> None:
    results = run(
        shared_modal,
        """
    one = fn("identify")
    answer({"square": fn("square").remote(7), "map": list(fn("square").map(range(30))),
            "pids": len({one.remote() for _ in range(5)}), "module": fn("greet").remote(),
            "nested": fn("parent").remote(3), "none": fn("echo").remote(None)})
    """,
    )
    assert results == {
        "square": 49,
        "map": [n * n for n in range(30)],
        "pids": 1,
        "module": "hello from a module",
        "nested": 9 + 16,
        "none": None,
    }


def test_spawned_results_can_be_read_again(shared_modal: LocalModal) -> None:
    call_id = run(shared_modal, 'call = fn("square").spawn(5); call.get(); answer(call.object_id)')
    again = f'call = modal.FunctionCall.from_id("{call_id}"); answer([call.get(timeout=0), call.get(timeout=0)])'
    assert run(shared_modal, again) == [25, 25]


def test_large_arguments_and_results_need_no_blobs(shared_modal: LocalModal) -> None:
    script = """
    data = b"x" * (20 << 20)
    call = fn("echo").spawn(data)
    answer(call.get(timeout=60) == data)
    """
    assert run(shared_modal, script) is True


def test_poll_of_a_running_call_times_out(shared_modal: LocalModal) -> None:
    script = """
    call = fn("hold").spawn("poll", 60)
    wait_for("poll")
    first = outcome(lambda: call.get(timeout=0))
    call.cancel()
    answer([first[0], outcome(lambda: call.get(timeout=20))])
    """
    polled, cancelled = run(shared_modal, script)
    assert polled == "TimeoutError"
    assert cancelled[0] != "ok"


def test_exceptions_keep_their_type_and_message(shared_modal: LocalModal) -> None:
    script = (
        'sys.path.insert(0, os.environ["PYTHONPATH"]); answer(outcome(lambda: fn("fail_until").remote("never", 99)))'
    )
    name, message = run(shared_modal, script)
    assert (name, message) == ("CustomError", "attempt 3"), "two retries after the first attempt"


def test_retries_end_with_the_first_success(shared_modal: LocalModal) -> None:
    assert run(shared_modal, 'answer(fn("fail_until").remote("soon", 2))') == 2


def test_timeout_ends_the_container(shared_modal: LocalModal) -> None:
    script = """
    result = outcome(lambda: fn("too_slow").remote("slow"))
    answer([result, notes["slow"]])
    """
    (name, _), pid = run(shared_modal, script)
    assert name == "FunctionTimeoutError"
    assert not alive(pid)


def test_timeout_ends_child_processes(shared_modal: LocalModal) -> None:
    script = """
    result = outcome(lambda: fn("detach").remote("detached"))
    answer([result[0], notes["detached"]])
    """
    name, pid = run(shared_modal, script)
    assert name == "FunctionTimeoutError"
    assert pid not in shared_modal.containers()


def test_queued_and_running_calls_are_canceled(
    shared_modal: LocalModal,
) -> None:
    script = """
    running, waiting = fn("hold").spawn("held", 60), None
    wait_for("held")
    waiting = fn("hold").spawn("never begins", 60)
    waiting.cancel()
    first = outcome(lambda: waiting.get(timeout=5))
    running.cancel()
    second = outcome(lambda: running.get(timeout=10))
    third = fn("hold").remote("after", 0)
    answer([first, second, "never begins" in notes, third == notes["held"]])
    """
    waiting, running, began, same_container = run(shared_modal, script)
    assert waiting == running == ["RemoteError", "the call was cancelled"]
    assert not began
    assert same_container, "cancelling an input does not cost the container"


def test_call_that_ignores_cancellation_ends_with_its_container(shared_modal: LocalModal) -> None:
    script = """
    call = fn("stubborn").spawn("stubborn")
    pid = wait_for("stubborn")
    call.cancel(terminate_containers=True)
    answer([outcome(lambda: call.get(timeout=30)), pid])
    """
    result, pid = run(shared_modal, script)
    assert result == ["RemoteError", "the call was cancelled"]
    assert not alive(pid)


def test_inputs_of_a_dead_container_run_again(shared_modal: LocalModal) -> None:
    assert run(shared_modal, 'answer(fn("die").remote("often", 3))') == 3
    logs = shared_modal.modal("app", "logs", "sample").stdout
    for seconds in (1, 2, 4):
        assert f"the container exited with code 0 while it ran this input; it runs again in {seconds} s" in logs


def test_ephemeral_app_fails_inputs_after_three_dead_containers(shared_modal: LocalModal) -> None:
    script = """
    import sample_app
    with sample_app.app.run():
        answer([outcome(lambda: sample_app.die.remote("always", 99)), notes["always"]])
    """
    (name, message), times = run(shared_modal, script)
    assert name == "InternalFailure"
    assert "exited with code 0" in message and "3 times in a row" in message
    assert times == 3


def test_concurrent_inputs_share_a_container(shared_modal: LocalModal) -> None:
    assert run(shared_modal, 'answer(sorted(fn("together").map(range(20))))') == list(range(20))


def test_classes_keep_their_state(shared_modal: LocalModal) -> None:
    script = 'counter = modal.Cls.from_name("sample", "Counter")(); answer([counter.add.remote(n) for n in (1, 2, 3)])'
    assert run(shared_modal, script) == [1, 3, 6]


def test_container_environment_is_isolated(shared_modal: LocalModal) -> None:
    found = run(shared_modal, 'answer(fn("surroundings").remote())')
    assert found["SAMPLE_SECRET"] == "hush"
    assert found["files"] == "from-container"
    assert found["HOME"] != str(shared_modal.root / "home")
    assert not [name for name in found if "TOKEN" in name]
    listed = shared_modal.sdk('answer([e.path for e in modal.Volume.from_name("sample-volume").listdir("/")])')
    assert listed == ["from-container"]


def test_idle_containers_end_after_the_scaledown_window(shared_modal: LocalModal) -> None:
    pid = run(shared_modal, 'answer(fn("brief").remote())')
    assert alive(pid)
    wait_until(lambda: not alive(pid), "the idle container to end", limit=20)


def test_unknown_functions_and_rpcs_are_named_in_errors(shared_modal: LocalModal) -> None:
    name, message = run(shared_modal, 'answer(outcome(lambda: fn("nothing").remote()))')
    assert name == "NotFoundError"
    assert "sample/nothing" in message
    name, message = run(shared_modal, "answer(outcome(lambda: list(modal.Sandbox.list())))")
    assert name == "UnimplementedError"
    assert "Local Modal does not implement AuthTokenGet" in message


@pytest.mark.parametrize("interpreter", ["/nonexistent/python", "/bin/false"])
def test_containers_that_do_not_start_fail_their_calls(local_modal: LocalModal, interpreter: str) -> None:
    assert local_modal.deploy(APPS / "sample_app.py").returncode == 0
    local_modal.stop()
    local_modal.python = interpreter
    local_modal.start()
    name, message = run(local_modal, 'answer(outcome(lambda: fn("square").remote(1)))')
    assert name == "RemoteError"
    assert ("could not be started" in message) or ("exited with code 1" in message)
