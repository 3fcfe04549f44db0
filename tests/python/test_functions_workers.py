"""A worker that is killed between any two of its steps loses no task, and no two attempts of one overlap."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from environment import DATABASES, FUNCTIONS, Environment, deployed
from local_modal import wait_until

# Each attempt writes when it begins and when it ends. One that is killed with its container never gets to its end.
DAG = """
from datetime import datetime, timedelta
from pathlib import Path
from time import sleep
from airflow.sdk import DAG, get_current_context, task

with DAG("counted", schedule=None, start_date=datetime(2026, 1, 1)):
    @task(retries=1, retry_delay=timedelta(0))
    def count():
        context = get_current_context()
        book = Path(context["dag_run"].conf["book"])
        for word in ("begins", "ends"):
            with book.open("a") as file:
                file.write(f"{context['ti'].try_number} {word}\\n")
            sleep(context["dag_run"].conf["seconds"] if word == "begins" else 0)

    count()
"""

# Added to the worker: what a fault names is replaced by what kills the container there, the first time.
FAULTS = """

import os as _os
import signal as _signal
from airflow_serverless.worker.direct_api import DirectApi as _DirectApi
from airflow_serverless.worker.journal_writer import JournalWriter as _JournalWriter
from airflow_serverless.state import State as _State

_execute = execute_task
_fault = _marks = None


def execute_task(payload):
    global _fault, _marks
    _fault, _marks = payload.get("workload", {}).get("ti", {}).get("run_id"), MARKS
    return _execute(payload)


def _die(fault):
    if _fault == fault:
        try:
            _os.close(_os.open(f"{_marks}/{fault}", _os.O_CREAT | _os.O_EXCL))
        except FileExistsError:
            return
        _os.kill(_os.getpid(), _signal.SIGKILL)


def _before(owner, name, fault, applies=lambda *arguments: True):
    original = vars(owner)[name]

    def replaced(*arguments, **keywords):
        if applies(*arguments):
            _die(fault)
        return original.__get__(arguments[0])(*arguments[1:], **keywords)

    setattr(owner, name, replaced)


_before(_State, "claim", "unclaimed")
_before(Worker, "is_wanted", "claimed")
_before(Worker, "open_api", "entered")
_before(modal.Volume, "commit", "run")
_before(Worker, "wake", "finished")
for _api in (_DirectApi, _JournalWriter):
    _before(_api, "handle_request", "running", lambda api, request: request.method == "PUT")
    _before(_api, "handle_request", "reporting", lambda api, request: request.url.path.endswith("/state"))
    _before(_api, "finish", "committed")
"""

LOST = ("1 begins", "2 begins", "2 ends")
TWICE = ("1 begins", "1 ends", "2 begins", "2 ends")
# What is lost is tried again; what nobody can have begun, and what is reported in full, is not.
EXPECTED = {
    "unclaimed": [("1 begins", "1 ends")],
    "claimed": [("2 begins", "2 ends")],
    "entered": [("2 begins", "2 ends")],
    "running": [("2 begins", "2 ends"), LOST],
    "reporting": [TWICE],
    "run": [TWICE],
    "committed": [TWICE],
    "finished": [("1 begins", "1 ends")],
}


@pytest.fixture(scope="module", params=DATABASES)
def environment(request: pytest.FixtureRequest) -> Iterator[Environment]:
    with tempfile.TemporaryDirectory(prefix="faults-") as name:
        marks, functions = Path(name, "marks"), Path(name, "functions")
        marks.mkdir()
        shutil.copytree(FUNCTIONS, functions)
        with (functions / "airflow_serverless" / "worker" / "execute_task.py").open("a") as worker:
            worker.write(FAULTS.replace("MARKS", repr(str(marks))))
        with deployed(request.param, functions=functions) as environment:
            environment.upload("counted.py", DAG)
            yield environment


@pytest.mark.parametrize("fault", EXPECTED)
def test_task_of_a_killed_worker_is_recovered(environment: Environment, fault: str) -> None:
    book = environment.modal.root / f"{fault}.book"
    conf = {"book": str(book), "seconds": 0.2}
    environment.command(fault, kind="trigger", dag_id="counted", run_id=fault, conf=conf)

    def finished() -> bool:
        environment.call("run_tick", "test")
        return environment.query("SELECT state FROM dag_run WHERE run_id = ?", fault) == [("success",)]

    wait_until(finished, f"the run whose worker died when {fault}", limit=150)
    written = tuple(book.read_text().splitlines())
    assert written in EXPECTED[fault]
    tries = environment.query("SELECT try_number, state FROM task_instance WHERE run_id = ?", fault)
    assert tries == [(int(written[-1][0]), "success")]
