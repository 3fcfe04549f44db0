"""Faults on demand, what survives them, and the status that tells what runs."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from local_modal import APPS, LocalModal, binary

PRELUDE = """
count = modal.Function.from_name("faults", "count")
notes = modal.Dict.from_name("faults-notes", create_if_missing=True)
"""


@pytest.fixture(scope="module")
def server() -> Iterator[LocalModal]:
    server = LocalModal()
    server.start()
    deployed = server.deploy(APPS / "faults_app.py")
    assert deployed.returncode == 0, deployed.stdout + deployed.stderr
    yield server
    server.close()


@pytest.fixture(autouse=True)
def _no_faults_left(server: LocalModal) -> Iterator[None]:
    yield
    assert json.loads(admin(server, "faults")) == [], "a fault that was to happen did not"


def admin(server: LocalModal, *arguments: str, given: str | None = None, fails: bool = False) -> str:
    command = [binary(), arguments[0], "--data-dir", server.data, *arguments[1:]]
    done = subprocess.run(command, input=given, capture_output=True, text=True, timeout=20, check=False)
    assert (done.returncode != 0) == fails, done.stdout + done.stderr
    return done.stdout + done.stderr


def set_faults(server: LocalModal, *faults: dict[str, Any]) -> None:
    admin(server, "faults", "-", given=json.dumps(faults))


def run(server: LocalModal, script: str) -> Any:
    return server.sdk(PRELUDE + script)


def test_transient_failure_is_retried(server: LocalModal) -> None:
    set_faults(server, {"rpc": "DictGet", "action": "fail", "code": 14, "message": "not now", "times": 2})
    assert run(server, 'answer(notes.get("nothing", "default"))') == "default"


def test_permanent_failure_is_reported(server: LocalModal) -> None:
    set_faults(server, {"rpc": "DictGet", "action": "fail", "code": 9, "message": "no way"})
    script = 'try: notes.get("x")\nexcept Exception as error: answer([type(error).__name__, str(error)])'
    name, message = run(server, script)
    assert "no way" in message, name


def test_injected_delay_slows_the_request(server: LocalModal) -> None:
    set_faults(server, {"rpc": "DictLen", "action": "delay", "seconds": 1.5})
    assert run(server, "t = time.monotonic(); notes.len(); answer(time.monotonic() - t)") >= 1.5


@pytest.mark.parametrize("when", ["before", "after"])
def test_disconnect_does_not_repeat_a_call(server: LocalModal, when: str) -> None:
    set_faults(server, {"rpc": "FunctionMap", "action": "disconnect", "when": when})
    assert run(server, f'answer(count.remote("cut {when}"))') == 1
    assert run(server, f'answer(notes["cut {when}"])') == 1


def test_lost_reply_does_not_lose_a_result(server: LocalModal) -> None:
    set_faults(server, {"rpc": "FunctionPutOutputs", "action": "disconnect", "when": "after"})
    # The second one waits until the container has got over the loss.
    assert run(server, 'answer([count.remote("lost"), count.remote("next"), notes["lost"]])') == [1, 1, 1]


def test_input_runs_again_if_its_container_dies_before_the_result(server: LocalModal) -> None:
    set_faults(server, {"rpc": "FunctionPutOutputs", "action": "kill", "when": "before"})
    assert run(server, 'answer(count.remote("killed before"))') == 2


def test_result_survives_its_container(server: LocalModal) -> None:
    set_faults(server, {"rpc": "FunctionPutOutputs", "action": "kill", "when": "after"})
    assert run(server, 'answer([count.remote("killed after"), notes["killed after"]])') == [1, 1]


def test_preempted_input_runs_in_another_container(server: LocalModal) -> None:
    # The input is delivered, and while it runs its container's next heartbeat has it preempted.
    set_faults(server, {"rpc": "DictUpdate", "action": "preempt"})
    assert run(server, 'answer(count.remote("preempted", 1.0))') == 2


def test_unauthenticated_request_takes_no_fault_and_is_not_counted() -> None:
    with LocalModal() as server:
        server.start("--listen", "127.0.0.1:0")
        set_faults(server, {"rpc": "DictGetOrCreate", "action": "fail", "code": 9, "message": "for the client"})
        look_up = """
        try: modal.Dict.from_name("none").hydrate()
        except Exception as error: answer([type(error).__name__, str(error)])
        """
        name, _ = server.sdk(look_up, MODAL_TOKEN_SECRET="as-wrong")
        assert name == "AuthError"
        assert not {"ClientHello", "DictGetOrCreate"} & set(server.status()["rpcs"])
        _, message = server.sdk(look_up)
        assert message == "for the client"
        assert server.status()["rpcs"]["DictGetOrCreate"] == 1


def test_fault_skips_the_first_request(server: LocalModal) -> None:
    set_faults(server, {"rpc": "DictContains", "action": "fail", "code": 9, "message": "the second", "skip": 1})
    script = """
for _ in range(2):
    try: outcome = "x" in notes
    except Exception as error: outcome = str(error)
answer(outcome)
"""
    assert "the second" in run(server, script)


def test_invalid_faults_are_refused(server: LocalModal) -> None:
    assert "explode" in admin(server, "faults", "-", given='[{"rpc": "A", "action": "explode"}]', fails=True)
    assert "refused" in admin(server, "faults", "-", given="nonsense", fails=True)


def test_status_shows_running_apps_and_containers(server: LocalModal) -> None:
    script = """
call = count.spawn("status", 20.0)
waiting = count.spawn("status")
while notes.get("status") is None: time.sleep(0.05)
answer([call.object_id, waiting.object_id])
"""
    calls = run(server, script)
    status = json.loads(admin(server, "status", "--json"))
    (app,) = [app for app in status["apps"] if app["name"] == "faults"]
    function = next(function for function in app["functions"] if function["name"] == "count")
    assert (app["state"], app["version"]) == ("deployed", 1)
    assert (function["running"], function["queued"], function["containers"]) == (1, 1, 1)
    (container,) = [container for container in status["containers"] if container["function"] == "count"]
    assert (container["state"], container["inputs"]) == ("running", 1)
    text = admin(server, "status")
    assert "faults" in text and "deployed v1" in text and container["task_id"] in text
    exports = admin(server, "env")
    assert f"export MODAL_SERVER_URL={server.url}" in exports
    for call in calls:
        server.sdk(f'modal.FunctionCall.from_id("{call}").cancel(terminate_containers=True)')


def test_status_without_a_server_fails_with_a_hint(server: LocalModal) -> None:
    command = [binary(), "status", "--data-dir", server.root / "nowhere"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 1 and "modal-local serve" in done.stderr
