"""The validator deals with several files at once, and leaves nothing behind however it ends."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from test_functions_validator import Validator

WORKERS = 3
# Each of the files waits for all of them to have begun.
TOGETHER = """
import pathlib, time
folder = pathlib.Path(__file__).parent
(folder / "begun-{number}").touch()
while len(list(folder.glob("begun-*"))) < {count}:
    time.sleep(0.01)
from airflow.sdk import DAG
dag = DAG("dag_{number}")
"""
# A file that waits, and has a child that waits longer. Both tell who they are.
LINGERING = """
# What a DAG file may do.
import os, pathlib, time
folder = pathlib.Path(__file__).parent
if os.fork() == 0:
    (folder / "grandchild").write_text(str(os.getpid()))
    time.sleep(600)
(folder / "child").write_text(f"{os.getpid()} {os.getppid()}")
time.sleep(600)
"""


# A file that starts a process which no parent, group or session leads to. Both tell who they are.
DETACHED = """
# What a DAG file may do.
import os, pathlib, signal, time
folder = pathlib.Path(__file__).parent
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.setsid()
        (folder / "grandchild").write_text(str(os.getpid()))
        time.sleep(600)
    os._exit(0)
while not (folder / "grandchild").exists():
    time.sleep(0.01)
{end}
"""
ENDS = {
    "well": "",
    "with an error": "raise ValueError",
    "at once": "os._exit(3)",
    "in time": "time.sleep(600)",
    "with its worker": "os.kill(os.getppid(), signal.SIGKILL); time.sleep(600)",
}


@pytest.fixture
def validator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Validator]:
    running = Validator("--workers", str(WORKERS), TMPDIR=str(tmp_path_factory.mktemp("work")))
    yield running
    if running.process.poll() is None:
        running.close()


def eventually(what: str, look: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not look():
        assert time.monotonic() < deadline, f"waited too long for {what}"
        time.sleep(0.01)


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_several_files_are_imported_at_once(validator: Validator, tmp_path: Path) -> None:
    for number in range(WORKERS):
        path = tmp_path / f"dag_{number}.py"
        path.write_text(TOGETHER.format(number=number, count=WORKERS))
        validator.send(json.dumps({"id": number, "path": str(path)}))
    answers = [validator.read() for _ in range(WORKERS)]
    assert {answer["id"]: answer["dags"][0]["dag_id"] for answer in answers} == {0: "dag_0", 1: "dag_1", 2: "dag_2"}


def test_file_that_kills_the_validator_is_reported(validator: Validator, tmp_path: Path) -> None:
    (tmp_path / "killer.py").write_text(
        "import os, signal\nos.kill(os.getppid(), signal.SIGKILL)\nwhile True: pass  # for a DAG\n"
    )
    (tmp_path / "good.py").write_text("from airflow.sdk import DAG\ndag = DAG('good')\n")
    for name in ("killer", "good", "good", "killer", "good"):
        validator.send(json.dumps({"id": name, "path": str(tmp_path / f"{name}.py")}))
    for answer in [validator.read() for _ in range(5)]:
        if answer["id"] == "good":
            assert answer["dags"][0]["dag_id"] == "good"
        else:
            assert "ends the process that imports it" in answer["import_errors"][0]["message"]


def test_long_answers_are_shortened(validator: Validator, tmp_path: Path) -> None:
    path = tmp_path / "long.py"
    path.write_text("raise ValueError('dag' * 1_000_000)")
    answer = validator.validate(path)
    assert len(json.dumps(answer)) < 100_000
    assert answer["import_errors"][0]["line"] == 1


@pytest.mark.parametrize("end", ["input", "term", "kill", "worker"])
def test_no_processes_are_left_behind(validator: Validator, tmp_path: Path, end: str) -> None:
    path = tmp_path / "lingering.py"
    path.write_text(LINGERING)
    validator.send(json.dumps({"path": str(path), "timeout_seconds": 300}))
    eventually("the import", lambda: (tmp_path / "child").exists() and (tmp_path / "grandchild").exists())
    eventually(
        "what they say", lambda: bool((tmp_path / "child").read_text() and (tmp_path / "grandchild").read_text())
    )
    child, worker = map(int, (tmp_path / "child").read_text().split())
    grandchild = int((tmp_path / "grandchild").read_text())
    try:
        match end:
            case "input":
                validator.close()
            case "term":
                validator.process.terminate()
                assert validator.process.wait(20) == 0
            case "kill":
                validator.process.kill()
                validator.process.wait(20)
            case "worker":
                os.kill(worker, signal.SIGTERM)
        if end in ("input", "term"):
            assert not any(Path(validator.work).iterdir()), "files are left"
        # A worker that is told to end takes all with it; the import begins anew in the next one.
        for pid in (child, grandchild):
            eventually(f"the end of {pid}", lambda pid=pid: not is_alive(pid))
    finally:
        if is_alive(grandchild):
            os.kill(grandchild, signal.SIGKILL)


@pytest.mark.parametrize("end", ENDS)
def test_processes_of_a_file_end_before_its_answer(validator: Validator, tmp_path: Path, end: str) -> None:
    path = tmp_path / "detached.py"
    path.write_text(DETACHED.format(end=ENDS[end]))
    answer = validator.validate(path, timeout_seconds=1)
    assert bool(answer["import_errors"]) == (end != "well")
    assert not is_alive(int((tmp_path / "grandchild").read_text()))
    # It answers for the next file as ever, and only the workers are below it.
    (tmp_path / "good.py").write_text("from airflow.sdk import DAG\ndag = DAG('good')\n")
    assert [dag["dag_id"] for dag in validator.validate(tmp_path / "good.py")["dags"]] == ["good"]
