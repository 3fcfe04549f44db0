"""Apps from outside: their versions, what they print, their environments; mostly by the SDK's command line."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from local_modal import LocalModal, wait_until

APP = """
import sys, time
import modal
app = modal.App("{name}", tags={{"team": "data"}})

@app.function()
def version():
    return {version}

{more}
"""
TALKS = """
@app.function()
def talk(word, code=0):
    print(word, "to stdout")
    print(word, "to stderr", file=sys.stderr)
    if code:
        import os; sys.stdout.flush(); os._exit(code)
"""
NEW = """
@app.function()
def new():
    return "new"
"""


@pytest.fixture(scope="module")
def server() -> Iterator[LocalModal]:
    server = LocalModal()
    server.start()
    yield server
    server.close()


def write_app(server: LocalModal, name: str, version: int, more: str = "") -> Path:
    folder = server.root / f"{name}-{version}"
    folder.mkdir(exist_ok=True)
    path = folder / f"{name.replace('-', '_')}.py"
    path.write_text(APP.format(name=name, version=version, more=more))
    return path


def deploy(server: LocalModal, name: str, version: int, more: str = "", *arguments: str) -> None:
    done = server.modal("deploy", *arguments, write_app(server, name, version, more))
    assert done.returncode == 0, done.stdout + done.stderr


def call(server: LocalModal, app: str, function: str, *arguments: object) -> Any:
    return server.sdk(f"answer(modal.Function.from_name({app!r}, {function!r}).remote(*{list(arguments)!r}))")


def containers(server: LocalModal, app: str) -> set[str]:
    listed = json.loads(printed(server, "container", "list", "--json"))
    return {entry["container_id"] for entry in listed if entry["app_name"] == app}


def printed(server: LocalModal, *arguments: object, fails: bool = False) -> str:
    done = server.modal(*arguments)
    assert (done.returncode != 0) == fails, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_rollback_restores_a_version(server: LocalModal) -> None:
    deploy(server, "versions", 1, NEW, "--tag", "first")
    deploy(server, "versions", 2)
    assert call(server, "versions", "version") == 2
    history = json.loads(printed(server, "app", "history", "versions", "--json"))
    assert [entry["version"] for entry in history] == ["v2", "v1"]
    assert [entry.get("tag") for entry in history] == [None, "first"]
    printed(server, "app", "rollback", "versions")
    assert call(server, "versions", "version") == 1
    # What the second version had dropped is back.
    assert call(server, "versions", "new") == "new"
    printed(server, "app", "rollback", "versions", "v2")
    assert call(server, "versions", "version") == 2
    assert "v7" in printed(server, "app", "rollback", "versions", "v7", fails=True)
    history = json.loads(printed(server, "app", "history", "versions", "--json"))
    assert [entry["version"] for entry in history] == ["v4", "v3", "v2", "v1"]
    server.stop(signal.SIGKILL)
    server.start()
    printed(server, "app", "rollback", "versions", "v1")
    assert call(server, "versions", "version") == 1


CLASS = """
@app.cls()
class Greeter:
    name: str = modal.parameter(default="nobody")

    @modal.method()
    def greet(self, greeting):
        return f"{greeting} {self.name} of VERSION"
"""
PINNED = """
def function(name, version): return modal.Function.from_name("pinned", name, version=version).remote()
def greet(version, **parameters):
    return modal.Cls.from_name("pinned", "Greeter", version=version)(**parameters).greet.remote("hello")
found = [function("version", version) for version in (None, 1, 2, 3)]
found += [greet(1), greet(2), greet(2, name="a"), function("new", 1)]
missing = []
for name, version in [("version", 9), ("version", -1), ("new", 2), ("nothing", 1)]:
    try: function(name, version)
    except modal.exception.NotFoundError as error: missing.append(str(error))
answer([found, missing])
"""


def test_pinned_handles_keep_their_version(server: LocalModal) -> None:
    for version, more in enumerate([NEW + CLASS, CLASS, ""], start=1):
        deploy(server, "pinned", version, more.replace("VERSION", str(version)))
    found, missing = server.sdk(PINNED)
    expected = [3, 1, 2, 3, "hello nobody of 1", "hello nobody of 2", "hello a of 2", "new"]
    assert found == expected
    for message, named in zip(missing, ["pinned v9", "pinned v-1", "new of v2", "nothing of v1"], strict=True):
        assert named in message
    deploy(server, "pinned", 4)
    server.stop(signal.SIGKILL)
    server.start()
    assert server.sdk(PINNED)[0] == [4, *expected[1:]]
    printed(server, "app", "stop", "pinned", "--yes")
    assert server.sdk(f"answer(failure(lambda: exec({PINNED!r}, globals())))") == "NotFoundError"


def test_rollover_replaces_containers(server: LocalModal) -> None:
    deploy(server, "rolled", 1)
    call(server, "rolled", "version")
    before = containers(server, "rolled")
    assert before
    printed(server, "app", "rollover", "rolled", "--strategy", "recreate")
    wait_until(lambda: not before & containers(server, "rolled"), "the old containers to end")
    assert call(server, "rolled", "version") == 1


def test_logs_are_kept_and_filtered(server: LocalModal) -> None:
    deploy(server, "talker", 1, TALKS)
    for word in ("one", "two", "three"):
        call(server, "talker", "talk", word)
    everything = printed(server, "app", "logs", "talker")
    assert [everything.count(f"{word} to stdout") for word in ("one", "two", "three")] == [1, 1, 1]
    only_errors = printed(server, "app", "logs", "talker", "--source", "stderr")
    assert "two to stderr" in only_errors and "stdout" not in only_errors
    found = printed(server, "app", "logs", "talker", "--search", "two")
    assert "two to stdout" in found and "one" not in found
    last = printed(server, "app", "logs", "talker", "--tail", "2", "--source", "stdout")
    assert "one" not in last and "three to stdout" in last
    since = printed(server, "app", "logs", "talker", "--since", "1h", "--show-function-call-id")
    assert "fc-" in since and "one to stdout" in since
    assert printed(server, "app", "logs", "talker", "--since", "3h", "--until", "2h").strip() == ""


def test_logs_are_followed(server: LocalModal) -> None:
    deploy(server, "followed", 1, TALKS)
    command = [sys.executable, "-m", "modal", "app", "logs", "-f", "followed"]
    log = server.root / "followed.log"
    with log.open("w") as output:
        follower = subprocess.Popen(command, env=server.environment(), stdout=output, stderr=output)
    try:
        call(server, "followed", "talk", "early")
        wait_until(lambda: "early to stdout" in log.read_text(), "the first line")
        call(server, "followed", "talk", "late")
        wait_until(lambda: "late to stderr" in log.read_text(), "the next lines")
        printed(server, "app", "stop", "--yes", "followed")
        assert follower.wait(30) == 0, log.read_text()
    finally:
        follower.kill()
    assert log.read_text().count("early to stdout") == 1


def test_exit_code_is_in_the_error_and_output_in_the_log(server: LocalModal) -> None:
    write_app(server, "dying", 1, TALKS)
    script = """
    import dying
    with dying.app.run():
        try: dying.talk.remote("dead", 3)
        except Exception as error: answer([str(error), dying.app.app_id])
    """
    message, app_id = server.sdk(script, PYTHONPATH=str(server.root / "dying-1"))
    assert "exited with code 3" in message
    assert printed(server, "app", "logs", app_id).count("dead to stdout") == 3


def test_app_state_functions_and_tags_are_listed(server: LocalModal) -> None:
    deploy(server, "described", 1)
    apps = {entry["description"]: entry for entry in json.loads(printed(server, "app", "list", "--json"))}
    assert apps["described"]["state"] == "deployed"
    described = json.loads(printed(server, "app", "info", "described", "--json"))
    assert set(described["functions"]) == {"version"}
    tags = """
    app = modal.App.lookup("described")
    before = app.get_tags()
    app.set_tags({"team": "platform"})
    answer([before, app.get_tags()])
    """
    assert server.sdk(tags) == [{"team": "data"}, {"team": "platform"}]
    assert "local" in printed(server, "token", "info")


def test_client_hello_succeeds_and_images_are_found_by_id(server: LocalModal) -> None:
    script = """
    client = modal.Client.from_env()
    client.hello()
    app = modal.App.lookup("images-by-id", create_if_missing=True)
    image = modal.Image.debian_slim().env({"A": "b"}).build(app)
    again = modal.Image.from_id(image.object_id)
    run = modal.App("uses-an-image")
    @run.function(image=again, serialized=True)
    def read(): return os.environ["A"]
    with run.run(): found = read.remote()
    missing = failure(lambda: modal.Image.from_id("im-none").build(app))
    answer([found, again.object_id == image.object_id, missing])
    """
    assert server.sdk(script) == ["b", True, "NotFoundError"]


def test_environments_are_isolated(server: LocalModal) -> None:
    path = write_app(server, "placed", 1)
    refused = printed(server, "deploy", "--env", "staging", path, fails=True)
    assert "staging" in refused
    printed(server, "environment", "create", "staging")
    assert "exists" in printed(server, "environment", "create", "staging", fails=True)
    printed(server, "deploy", "--env", "staging", path)
    inside = 'answer(modal.Function.from_name("placed", "version", environment_name={!r}).remote())'
    assert server.sdk(inside.format("staging")) == 1
    outside = server.modal("app", "list", "--json", "--env", "main")
    assert "placed" not in outside.stdout
    server.sdk('modal.Dict.from_name("apart", environment_name="staging", create_if_missing=True).put("k", 1)')
    printed(server, "environment", "update", "staging", "--set-name", "stage")
    assert server.sdk(inside.format("stage")) == 1
    assert server.sdk('answer(modal.Dict.from_name("apart", environment_name="stage").get("k"))') == 1
    names = [entry["name"] for entry in json.loads(printed(server, "environment", "list", "--json"))]
    assert sorted(names) == ["main", "stage"]
    printed(server, "environment", "delete", "stage", "--yes")
    assert "stage" not in printed(server, "environment", "list")
    assert "default" in printed(server, "environment", "delete", "main", "--yes", fails=True)
