"""`modal run` and what is beside it on the command line: arguments, output, exit codes, interruptions."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from local_modal import LocalModal, wait_until

APP = """
import os, sys, time
import modal

app = modal.App("runs")
notes = modal.Dict.from_name("runs-notes", create_if_missing=True)

@app.function()
def shout(word: str, times: int = 1, loud: bool = False) -> str:
    print("inside", word * times, loud)
    print("also inside", file=sys.stderr)
    return word * times

@app.function()
def broken():
    raise KeyError("remote trouble")

@app.function()
def fatal():
    os._exit(3)

@app.function()
def long(marker: str):
    print("a long one begins")
    notes[marker] = os.getpid()
    time.sleep(120)

@app.cls()
class Greeter:
    @modal.method()
    def greet(self, whom: str):
        print("hello", whom)

@app.local_entrypoint()
def main(what: str = "all"):
    print("locally", what)
    if what == "trouble":
        raise RuntimeError("local trouble")
    if what == "exit":
        sys.exit(7)
    print("result", shout.remote("a"))
"""


TALKATIVE = """
import uuid
import modal

app = modal.App("talkative")

@app.function()
@modal.concurrent(max_inputs=4)
def talk():
    print("talks")
    talks = modal.Dict.from_name("talks", create_if_missing=True)
    name = uuid.uuid4().hex
    while True:
        talks[name] = True
"""
TALKS = 'answer(modal.Dict.from_name("talks", create_if_missing=True).len())'

QUIET = """
import time
import modal

app = modal.App("quiet")

if not modal.is_local():
    time.sleep(SECONDS)

@app.function(enable_memory_snapshot=SNAPSHOT)
def idle():
    pass

@app.cls()
class Slow:
    @modal.enter()
    def begin(self):
        time.sleep(SECONDS)

    @modal.method()
    def idle(self):
        pass

@app.local_entrypoint()
def main(delay: float):
    slow = Slow()
    for _ in range(4):
        idle.spawn()
        slow.idle.spawn()
    time.sleep(delay)
"""


@pytest.fixture(scope="module")
def server() -> Iterator[LocalModal]:
    server = LocalModal()
    server.start()
    (server.root / "runs.py").write_text(APP)
    yield server
    server.close()


def run(server: LocalModal, *arguments: object, code: int = 0) -> subprocess.CompletedProcess[str]:
    done = server.modal("run", *arguments)
    assert done.returncode == code, done.stdout + done.stderr
    return done


def begin(server: LocalModal, *arguments: object) -> tuple[subprocess.Popen[bytes], Path]:
    """Starts a command of the SDK, with its output in a file."""
    log = server.root / f"{arguments[-1]}.log"
    command = [sys.executable, "-m", "modal", *map(str, arguments)]
    with log.open("w") as output:
        return subprocess.Popen(command, env=server.environment(), stdout=output, stderr=output), log


def states(server: LocalModal) -> set[str]:
    """The states of the runs; those that ended a while ago are not listed."""
    listed = json.loads(server.modal("app", "list", "--json").stdout)
    return {app["state"] for app in listed if app["description"] == "runs"}


def test_entry_points_and_functions_take_arguments(server: LocalModal, tmp_path: Path) -> None:
    app = server.root / "runs.py"
    done = run(server, "-w", tmp_path / "result", f"{app}::shout", "--word", "ab", "--times", "2", "--loud")
    assert "inside abab True" in done.stdout
    assert "also inside" in done.stdout + done.stderr
    assert (tmp_path / "result").read_text() == "abab"
    done = run(server, app, "--what", "more")
    assert "locally more" in done.stdout and "result a" in done.stdout
    assert "hello you" in run(server, f"{app}::Greeter.greet", "--whom", "you").stdout
    assert run(server, "-q", f"{app}::app.shout", "--word", "q").stdout == ""
    wrong = run(server, f"{app}::shout", "--word", "ab", "--times", "many", code=2)
    assert "many" in wrong.stderr
    wait_until(lambda: states(server) <= {"stopped"}, "the apps to be over")
    wait_until(lambda: not server.containers(), "their containers to end")


def test_modules_run_and_deploy_in_an_environment(server: LocalModal, tmp_path: Path) -> None:
    package = tmp_path / "packed"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "helper.py").write_text("WORD = 'from the package'\n")
    (package / "start.py").write_text(
        "import modal\nfrom packed.helper import WORD\napp = modal.App('packed')\n"
        "@app.function()\ndef tell(): print(WORD, modal.config.config.get('environment'))\n"
    )
    assert server.modal("environment", "create", "aside").returncode == 0
    done = server.modal("run", "-m", "-e", "aside", "packed.start", PYTHONPATH=str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert "from the package aside" in done.stdout
    done = server.modal(
        "deploy", "-m", "--name", "other-name", "--env", "aside", "packed.start", PYTHONPATH=str(tmp_path)
    )
    assert done.returncode == 0, done.stderr
    named = 'modal.Function.from_name("other-name", "tell", environment_name={!r}).remote()'
    assert server.sdk(f"answer([{named.format('aside')}, failure(lambda: {named.format('main')})])") == [
        None,
        "NotFoundError",
    ]
    stopped = server.modal("app", "stop", "--yes", "--env", "aside", "other-name")
    assert stopped.returncode == 0, stopped.stderr


@pytest.mark.parametrize(
    ("what", "code", "said"),
    [
        (["::broken"], 1, ["KeyError", "remote trouble", 'raise KeyError("remote trouble")']),
        (["::fatal"], 1, ["exited with code 3"]),
        (["::main", "--what", "trouble"], 1, ["RuntimeError", "local trouble"]),
        (["::main", "--what", "exit"], 7, []),
        (["::nothing"], 1, ["nothing"]),
    ],
)
def test_failed_run_reports_the_error_and_exit_code(
    server: LocalModal, what: list[str], code: int, said: list[str]
) -> None:
    done = run(server, f"{server.root / 'runs.py'}{what[0]}", *what[1:], code=code)
    for words in said:
        assert words in done.stdout + done.stderr
    wait_until(lambda: states(server) <= {"stopped"}, "the app to be over")


@pytest.mark.parametrize("how", ["interrupted", "stopped from outside", "container stopped"])
def test_interrupted_or_stopped_run_ends_its_containers(server: LocalModal, how: str) -> None:
    marker = how.replace(" ", "-")
    client, log = begin(server, "run", f"{server.root / 'runs.py'}::long", "--marker", marker)
    try:
        reading = f'answer(modal.Dict.from_name("runs-notes", create_if_missing=True).get("{marker}"))'
        pid = wait_until(lambda: server.sdk(reading), "the function to run")
        (container,) = json.loads(server.modal("container", "list", "--json").stdout)
        assert container["app_name"] == "runs"
        wait_until(lambda: "a long one begins" in log.read_text(), "its output")
        container_logs = server.modal("container", "logs", container["container_id"])
        assert "a long one begins" in container_logs.stdout, container_logs.stderr
        if how == "interrupted":
            client.send_signal(signal.SIGINT)
        elif how == "stopped from outside":
            stopped = server.modal("app", "stop", "--yes", container["app_id"])
            assert stopped.returncode == 0, stopped.stderr
        else:
            # Its input is run again elsewhere, as on Modal.
            stopped = server.modal("container", "stop", "--yes", container["container_id"])
            assert stopped.returncode == 0, stopped.stderr
            wait_until(lambda: server.sdk(reading) != pid, "another container")
            client.send_signal(signal.SIGINT)
        # The SDK says nothing by its exit code of an interruption.
        assert (client.wait(30) != 0) == (how == "stopped from outside"), log.read_text()
    finally:
        client.kill()
    wait_until(lambda: states(server) <= {"stopped"}, "the app to be over")
    wait_until(lambda: not server.containers(), "its containers to end")


@pytest.mark.parametrize("snapshot", [False, True])
def test_containers_stopped_during_startup_print_no_traceback(server: LocalModal, snapshot: bool) -> None:
    app = server.root / f"quiet_{snapshot}.py"
    app.write_text(QUIET.replace("SECONDS", "1.0").replace("SNAPSHOT", str(snapshot)))
    # Each ends the containers at another point of their start: Python, the SDK, a fork, the module, `enter`.
    for delay in (0.0, 0.2, 0.4, 0.7, 1.2, 1.8):
        done = run(server, app, "--delay", delay)
        assert "Traceback" not in done.stdout + done.stderr, delay
    wait_until(lambda: not server.containers(), "the containers to end")
    logs = [path.read_text() for path in (server.data / "logs").rglob("*") if path.is_file()]
    assert not [text for text in logs if "quiet" in text and "Traceback" in text]


@pytest.mark.parametrize("stopped", ["container", "server"])
def test_stopped_threaded_inputs_print_no_traceback(stopped: str) -> None:
    with LocalModal() as server:
        server.start()
        app = server.root / "talkative.py"
        app.write_text(TALKATIVE)
        assert server.deploy(app).returncode == 0
        server.sdk('[modal.Function.from_name("talkative", "talk").spawn() for _ in range(4)]; answer(None)')
        wait_until(lambda: server.sdk(TALKS) == 4, "the inputs to run")
        if stopped == "container":
            (container,) = json.loads(server.modal("container", "list", "--json").stdout)
            assert server.modal("container", "stop", "--yes", container["container_id"]).returncode == 0
            wait_until(lambda: server.sdk(TALKS) == 8, "the inputs to run again")
        server.stop()
        logs = [path.read_text() for path in (server.data / "logs").rglob("*") if path.is_file()]
    printed = "".join(text for text in logs if "talks" in text)
    assert printed and "Traceback" not in printed and "rror" not in printed, printed


def test_build_output_is_shown_once(server: LocalModal) -> None:
    app = server.root / "builds.py"
    app.write_text(
        "import modal\ndef step(): print('printed by a step')\n"
        "image = modal.Image.debian_slim().run_function(step)\napp = modal.App('builds')\n"
        "@app.function(image=image)\ndef built(): print('printed by a function')\n"
    )
    done = run(server, f"{app}::built")
    assert [done.stdout.count(f"printed by a {what}") for what in ("step", "function")] == [1, 1]


def test_unimplemented_commands_are_named(server: LocalModal) -> None:
    for arguments in (["shell"], ["nfs", "list"], ["endpoint", "list"]):
        done = server.modal(*arguments)
        assert done.returncode != 0, arguments
        assert "Local Modal does not implement" in done.stdout + done.stderr, (arguments, done.stdout, done.stderr)
