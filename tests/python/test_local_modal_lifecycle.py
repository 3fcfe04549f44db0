"""Deployments, schedules and restarts of Local Modal, with the real SDK."""

from __future__ import annotations

import signal
import stat
import subprocess
import time
from pathlib import Path

import pytest

from local_modal import APPS, LocalModal, wait_until
from records import change_record

APP = """
import os, time
import modal
app = modal.App("life")
notes = modal.Dict.from_name("notes", create_if_missing=True)

@app.function()
def version():
    return {version}

@app.function()
def work(name, seconds):
    began = notes.get(f"began-{{name}}", 0) + 1
    notes.put(f"began-{{name}}", began)
    # Long enough to be interrupted, and only the first time.
    time.sleep(seconds if began == 1 else 0)
    return name

{more}
"""
TICKING = """
@app.function(schedule=modal.Period(seconds={seconds}))
def tick():
    notes.put(f"tick-{{time.time_ns()}}", {mark!r})
"""
NOTES = 'notes = modal.Dict.from_name("notes", create_if_missing=True)\n'


def deploy(server: LocalModal, version: object, more: str = "") -> subprocess.CompletedProcess[str]:
    path = server.root / "life.py"
    path.write_text(APP.format(version=version, more=more))
    return server.deploy(path)


def deploy_well(server: LocalModal, version: object, more: str = "") -> None:
    done = deploy(server, version, more)
    assert done.returncode == 0, done.stdout + done.stderr


def version(server: LocalModal) -> object:
    return server.sdk('answer(modal.Function.from_name("life", "version").remote())')


def function_id(server: LocalModal) -> str:
    return server.sdk('answer(modal.Function.from_name("life", "version").hydrate().object_id)')


def ticks(server: LocalModal, mark: str) -> int:
    return server.sdk(NOTES + f"answer(sum(v == {mark!r} for v in notes.values()))")


def test_redeployment_keeps_ids_and_failed_one_changes_nothing(local_modal: LocalModal) -> None:
    deploy_well(local_modal, 1)
    first = function_id(local_modal)
    assert version(local_modal) == 1
    deploy_well(local_modal, 2)
    assert version(local_modal) == 2
    assert function_id(local_modal) == first
    # This one fails after some of its functions were created.
    bad = "@app.function(schedule=modal.Cron('61 * * * *'))\ndef never(): pass\n"
    failed = deploy(local_modal, 3, bad)
    assert failed.returncode != 0
    assert "61 * * * *" in failed.stdout + failed.stderr
    assert version(local_modal) == 2
    deploy_well(local_modal, 4)
    assert version(local_modal) == 4


def test_import_errors_reach_the_caller(local_modal: LocalModal) -> None:
    deploy_well(local_modal, 1, "if modal.is_local() is False:\n    import not_there\n")
    script = """
    started = time.monotonic()
    try: modal.Function.from_name("life", "version").remote()
    except BaseException as error: answer([type(error).__name__, str(error), time.monotonic() - started])
    """
    name, message, seconds = local_modal.sdk(script)
    assert (name, message) == ("ModuleNotFoundError", "No module named 'not_there'")
    assert seconds < 20


def test_stopped_app_ends_calls_containers_and_schedules(local_modal: LocalModal) -> None:
    deploy_well(local_modal, 1, TICKING.format(seconds=1, mark="x"))
    wait_until(lambda: ticks(local_modal, "x"), "a tick")
    script = NOTES + 'answer(modal.Function.from_name("life", "work").spawn("w", 60).object_id)'
    call_id = local_modal.sdk(script)
    wait_until(lambda: local_modal.sdk(NOTES + 'answer("began-w" in notes)'), "the work to begin")
    stopped = local_modal.modal("app", "stop", "-y", "life")
    assert stopped.returncode == 0, stopped.stdout + stopped.stderr
    script = f"""
    try: modal.FunctionCall.from_id("{call_id}").get(timeout=10)
    except BaseException as error: answer(type(error).__name__)
    """
    assert local_modal.sdk(script) == "RemoteError"
    wait_until(lambda: not local_modal.containers(), "the containers to end")
    count = ticks(local_modal, "x")
    time.sleep(2.5)
    assert ticks(local_modal, "x") == count
    with pytest.raises(AssertionError, match="does not exist"):
        version(local_modal)


def test_schedules_are_replaced_and_resume_after_a_restart(local_modal: LocalModal) -> None:
    deploy_well(local_modal, 1, TICKING.format(seconds=1, mark="old"))
    wait_until(lambda: ticks(local_modal, "old") >= 2, "two ticks")
    deploy_well(local_modal, 1, TICKING.format(seconds=1, mark="new"))
    wait_until(lambda: ticks(local_modal, "new") >= 2, "ticks of the new version")
    local_modal.stop()
    local_modal.start()
    old, new = ticks(local_modal, "old"), ticks(local_modal, "new")
    wait_until(lambda: ticks(local_modal, "new") >= new + 2, "ticks after the restart")
    assert ticks(local_modal, "old") == old
    deploy_well(local_modal, 1)
    wait_until(lambda: ticks(local_modal, "new") == ticks(local_modal, "new"), "quiet")
    new = ticks(local_modal, "new")
    time.sleep(2.5)
    assert ticks(local_modal, "new") <= new + 1, "only one that was already on its way"


def test_missed_schedule_fires_once_after_a_restart(local_modal: LocalModal) -> None:
    deploy_well(local_modal, 1, TICKING.format(seconds=3600, mark="m"))
    assert ticks(local_modal, "m") == 0
    local_modal.stop()
    # As if it had been down for some hours.
    change_record(local_modal.data, "schedule", next_at=time.time() - 3 * 3600)
    local_modal.start()
    wait_until(lambda: ticks(local_modal, "m"), "the missed tick")
    assert ticks(local_modal, "m") == 1


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_calls_and_objects_survive_a_restart(local_modal: LocalModal, how: signal.Signals) -> None:
    deploy_well(local_modal, 7)
    script = (
        NOTES
        + """
    import io
    work = modal.Function.from_name("life", "work")
    done, running = work.spawn("done", 0), work.spawn("running", 120)
    done.get(timeout=30)
    queued = [work.spawn(f"queued{n}", 0) for n in range(20)]
    notes["kept"] = {"a": 1}
    v = modal.Volume.from_name("kept", create_if_missing=True)
    with v.batch_upload() as batch: batch.put_file(io.BytesIO(b"kept"), "/a/b")
    while "began-running" not in notes: time.sleep(0.02)
    answer([call.object_id for call in (done, running, *queued)])
    """.replace("\n    ", "\n")
    )
    calls = local_modal.sdk(script)
    before = local_modal.containers()
    assert before
    local_modal.stop(how)
    if how is signal.SIGTERM:
        assert not local_modal.containers()
    local_modal.start()
    assert not set(before) & set(local_modal.containers()), "containers of the first server are gone"
    script = (
        NOTES
        + f"""
    calls = [modal.FunctionCall.from_id(id) for id in {calls!r}]
    answer({{"results": [call.get(timeout=30) for call in calls], "kept": notes["kept"],
            "began": notes["began-running"],
            "file": b"".join(modal.Volume.from_name("kept").read_file("a/b")).decode()}})
    """.replace("\n    ", "\n")
    )
    assert local_modal.sdk(script) == {
        "results": ["done", "running", *(f"queued{n}" for n in range(20))],
        "kept": {"a": 1},
        "began": 2,
        "file": "kept",
    }
    assert version(local_modal) == 7


def test_child_processes_of_a_killed_server_end_at_restart(local_modal: LocalModal) -> None:
    assert local_modal.deploy(APPS / "sample_app.py").returncode == 0
    script = """
    notes = modal.Dict.from_name("sample-notes", create_if_missing=True)
    modal.Function.from_name("sample", "leave_child").spawn("family")
    until = time.monotonic() + 30
    while "family" not in notes and time.monotonic() < until: time.sleep(0.05)
    answer(notes["family"])
    """
    family = local_modal.sdk(script)
    local_modal.stop(signal.SIGKILL)
    assert set(family) <= set(local_modal.containers())
    local_modal.start()
    assert not set(family) & set(local_modal.containers())


def test_output_of_a_run_is_shown(local_modal: LocalModal) -> None:
    path = local_modal.root / "printing.py"
    path.write_text(
        "import modal\napp = modal.App('printing')\n"
        "@app.function()\ndef say(): print('said inside')\n"
        "@app.local_entrypoint()\ndef main(): say.remote()\n"
    )
    done = local_modal.modal("run", path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "said inside" in done.stdout


def test_second_server_on_the_same_data_is_refused(local_modal: LocalModal) -> None:
    second = local_modal.popen("--listen", "127.0.0.1:0")
    assert second.wait(20) != 0
    assert "another server uses the data folder" in local_modal.log.read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--listen", "0.0.0.0:0"], "is not a loopback address"),
        (["--unix", "/tmp/" + "x" * 110], "at most 107 fit"),
    ],
)
def test_invalid_addresses_are_refused(local_modal: LocalModal, arguments: list[str], message: str) -> None:
    local_modal.stop()
    refused = local_modal.popen(*arguments)
    assert refused.wait(20) != 0
    assert message in local_modal.log.read_text()


def test_socket_and_data_are_private(local_modal: LocalModal) -> None:
    socket = Path(local_modal.url.removeprefix("unix://"))
    assert stat.S_IMODE(socket.stat().st_mode) == 0o600
    assert stat.S_IMODE(local_modal.data.stat().st_mode) == 0o700
    local_modal.stop()
    assert not socket.exists()


def test_port_requires_the_stored_token(local_modal: LocalModal) -> None:
    local_modal.stop()
    local_modal.start("--listen", "127.0.0.1:0")
    assert local_modal.url.startswith("http://127.0.0.1:")
    deploy_well(local_modal, 5)
    assert version(local_modal) == 5
    # A port is open to every user of the machine, so it takes the secret that only this one can read.
    refused = local_modal.modal("app", "list", MODAL_TOKEN_SECRET="as-other")
    assert refused.returncode != 0 and "modal-local env" in refused.stdout + refused.stderr
    assert stat.S_IMODE((local_modal.data / "token").stat().st_mode) == 0o600


def test_containers_end_after_an_ephemeral_run(local_modal: LocalModal) -> None:
    script = """
    app = modal.App("passing")
    @app.function(serialized=True)
    def double(x): return 2 * x
    with app.run():
        result = double.remote(21)
    answer(result)
    """
    assert local_modal.sdk(script) == 42
    wait_until(lambda: not local_modal.containers(), "the containers to end")
