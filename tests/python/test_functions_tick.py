"""A tick that is killed between any two of its steps is made good by the next, and no task runs twice."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from environment import DATABASES, Environment, deployed
from local_modal import wait_until

DAG = """
from datetime import datetime
from pathlib import Path
from airflow.sdk import DAG, get_current_context, task

with DAG("counted", schedule=None, start_date=datetime(2026, 1, 1)):
    @task
    def first():
        run_id = get_current_context()["dag_run"].run_id
        with Path(get_current_context()["dag_run"].conf["book"]).open("a") as book:
            book.write(f"{run_id} first\\n")
        return 1

    @task
    def second(value):
        run_id = get_current_context()["dag_run"].run_id
        with Path(get_current_context()["dag_run"].conf["book"]).open("a") as book:
            book.write(f"{run_id} second\\n")

    second(first())
"""

# Runs a tick in a process of its own that dies where the fault says. A lease that it leaves behind is made to expire;
# a session ends with its process.
KILLED_TICK = """
import os, signal
import modal
from airflow_serverless import commands
from airflow_serverless.db import tables
from airflow_serverless.scheduler import run
from airflow_serverless.scheduler.context import TickContext
from airflow_serverless.executor.launcher import Launcher
from airflow_serverless.state import State

os.environ["AIRFLOW_SERVERLESS_VOLUME"] = {volume!r}
modal.Volume.commit = modal.Volume.reload = lambda self: None
Backend = type(TickContext.of_process().backend)

def die(*arguments, **keywords):
    d = modal.Dict.from_name("airflow-state-test")
    if hint := d.get("lock:scheduler"):
        d["lock:scheduler:%d" % hint["fence"]] = {{**hint, "expires_at": 0.0}}
    os.kill(os.getpid(), signal.SIGKILL)

def after(function):
    def wrapped(*arguments, **keywords):
        function(*arguments, **keywords)
        die()
    return wrapped

{fault}
raise SystemExit(f"the fault did not strike: {{run.run_tick('test')}}")
"""

ATTEMPTS = 5
FAULTS = {
    "loaded": "Backend.load = after(Backend.load)",
    "commanding": "tables.set_reply = die",
    "commanded": "commands.apply = after(commands.apply)",
    "scheduled": "Backend.publish = die",
    "published": "Backend.publish = after(Backend.publish)",
    "announced": "run._announce = after(run._announce)",
    "half launched": "Launcher.spawn_task = die",
    "launched": "run._launch = after(run._launch)",
    "cleaned": "State.remove = die",
    "marked": "State.set_due = after(State.set_due)",
}


@pytest.fixture(scope="module", params=DATABASES)
def environment(request: pytest.FixtureRequest) -> Iterator[Environment]:
    with deployed(request.param) as environment:
        environment.upload("counted.py", DAG)
        yield environment


def kill_tick(environment: Environment, fault: str, prepare: Callable[[int], None]) -> int:
    """Kill a tick that does what `prepare(attempt)` asks for; returns the attempt.

    A tick of an earlier run may still hold the lock, woken by a task at its very end. Then it does the work, whole.
    """
    [dags] = environment.volumes("dags")
    script = textwrap.dedent(KILLED_TICK).format(fault=FAULTS[fault], volume=str(dags.parent))
    for attempt in range(ATTEMPTS):
        wait_until(lambda: environment.call("run_tick", "test") == {"idle": True}, "the scheduler to be idle", 90)
        prepare(attempt)
        done = environment.process("-c", script)
        if "{'busy': True}" not in done.stderr:
            assert done.returncode == -9, f"{done.stderr[-3000:]}\n{environment.state()}"
            return attempt
    raise AssertionError("another tick was always quicker")


@pytest.mark.parametrize("fault", FAULTS)
def test_next_tick_recovers_from_a_killed_tick(environment: Environment, fault: str) -> None:
    name = fault.replace(" ", "-")
    book = environment.modal.root / f"{name}.book"

    def trigger(attempt: int) -> None:
        run_id, conf = f"{name}-{attempt}", {"book": f"{book}-{attempt}"}
        environment.command(run_id, kind="trigger", dag_id="counted", run_id=run_id, conf=conf)

    attempt = kill_tick(environment, fault, trigger)
    run_id = f"{name}-{attempt}"

    def finished() -> bool:
        environment.call("run_tick", "test")
        states = environment.query("SELECT state FROM dag_run WHERE run_id = ?", run_id)
        return states == [("success",)]

    # What the cron does, without waiting for it.
    assert environment.call("scheduler_tick")["spawned"]
    wait_until(finished, f"the run after a tick that died when {fault}", limit=90)
    assert Path(f"{book}-{attempt}").read_text().splitlines() == [f"{run_id} first", f"{run_id} second"]
    tries = environment.query("SELECT task_id, try_number, state FROM task_instance WHERE run_id = ?", run_id)
    assert sorted(tries) == [("first", 1, "success"), ("second", 1, "success")]
    reply = environment.state()[f"reply:{run_id}"]
    assert reply["ok"], reply
    left = ("command:", "journal:")
    wait_until(
        lambda: not [key for key in environment.state() if key.startswith(left)], "the end of what was dealt with"
    )


def test_uploaded_file_is_found_after_its_tick_was_killed(environment: Environment) -> None:
    """Only the wake mark, which that tick has removed, announced the upload."""

    def upload(attempt: int) -> None:
        environment.upload(f"announced_{attempt}.py", DAG.replace("counted", f"announced_{attempt}"))
        environment.modal.sdk('modal.Dict.from_name("airflow-state-test").put("wake", {"reason": "test", "at": 0.0})')

    attempt = kill_tick(environment, "scheduled", upload)
    assert environment.call("scheduler_tick")["spawned"]
    found = "SELECT 1 FROM dag WHERE dag_id = ?"
    wait_until(lambda: environment.query(found, f"announced_{attempt}"), "the DAG of the file", 60)


BACKLOG = """
from datetime import datetime, timedelta
from pathlib import Path
from airflow.sdk import DAG, task

with DAG("backlog", schedule="@daily", start_date=datetime(2026, 1, 1), end_date=datetime(2026, 1, 3), catchup=True,
         max_active_runs=1):
    @task.sensor(poke_interval=0.1, mode="poke")
    def held():
        return Path({gate!r}).exists()
    held()

with DAG("retried", schedule=None):
    @task(retries=9, retry_delay=timedelta(seconds=1))
    def fails():
        raise ValueError
    fails()
"""


def test_blocked_due_work_does_not_keep_the_scheduler_busy(environment: Environment) -> None:
    gate = environment.modal.root / "gate"
    environment.upload("backlog.py", BACKLOG.format(gate=str(gate)))

    def look(identifier: str, **command: str) -> Any:
        environment.command(identifier, **command)
        return environment.call("run_tick", "test")

    look("new files", kind="refresh")
    running = "SELECT 1 FROM task_instance WHERE dag_id = 'backlog' AND state = 'running'"
    wait_until(lambda: look("again", kind="refresh") and environment.query(running), "the first run", 60)
    assert look("once more", kind="refresh")["rounds"] <= 3, (
        "the next run was waited for, though one is all there may be"
    )

    look("retry", kind="trigger", dag_id="retried", run_id="retried")
    waiting = "SELECT 1 FROM task_instance WHERE dag_id = 'retried' AND state = 'up_for_retry'"
    wait_until(lambda: environment.query(waiting), "a failure", 60)
    look("pause", kind="pause", dag_id="retried")
    wait_until(lambda: environment.state()["due"]["next_due"] is None, "the scheduler's rest", 30)
    gate.touch()
    done = "SELECT 1 FROM dag_run WHERE dag_id = 'backlog' AND state = 'success'"
    wait_until(lambda: len(environment.query(done)) == 3, "the runs that waited", 60)
