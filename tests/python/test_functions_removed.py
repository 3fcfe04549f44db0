"""Tasks that are deleted from their DAG file while a run is unfinished end as `removed`, and the run goes on."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from environment import DATABASES, Environment, deployed
from local_modal import wait_until

KEPT = """
import datetime, pathlib, time
from airflow.providers.standard.operators.hitl import HITLOperator
from airflow.providers.standard.sensors.date_time import DateTimeSensorAsync
from airflow.sdk import DAG, TaskGroup, task

PLACE = pathlib.Path("__PLACE__")
FAR = datetime.datetime(2100, 1, 1, tzinfo=datetime.timezone.utc)

@task
def held():
    while not (PLACE / "go").exists():
        time.sleep(0.05)
@task
def nothing(): pass
@task
def fails(): raise ValueError
@task.sensor(mode="reschedule", poke_interval=3600)
def polls(): return False

with DAG("shrinks", schedule=None):
    held() >> nothing.override(task_id="kept")()
"""
DELETED = """
    held.override(task_id="runs")() >> nothing.override(task_id="waits")()
    fails.override(task_id="retried", retries=1, retry_delay=datetime.timedelta(hours=1))()
    polls()
    DateTimeSensorAsync(task_id="defers", target_time=FAR)
    HITLOperator(task_id="asks", subject="?", options=["a"])
    nothing.override(task_id="scheduled", pool="none")()
    polls.override(task_id="mapped").partial().expand_kwargs([{}, {}])
    with TaskGroup("group"):
        nothing.override(task_id="sets_up")() >> held() >> nothing.override(task_id="cleans")().as_teardown()
"""
BEFORE = {
    "held": "running",
    "kept": None,
    "runs": "running",
    "waits": None,
    "retried": "up_for_retry",
    "polls": "up_for_reschedule",
    "defers": "deferred",
    "asks": "awaiting_input",
    "scheduled": "scheduled",
    "mapped 0": "up_for_reschedule",
    "mapped 1": "up_for_reschedule",
    "group.sets_up": "success",
    "group.held": "running",
    "group.cleans": None,
}


@pytest.fixture(scope="module", params=DATABASES)
def environment(request: pytest.FixtureRequest) -> Iterator[Environment]:
    with deployed(request.param) as environment:
        yield environment


def states(environment: Environment) -> dict[str, str | None]:
    rows = environment.query("SELECT task_id, map_index, state FROM task_instance")
    return {task if index < 0 else f"{task} {index}": state for task, index, state in rows}


def reach(environment: Environment, expected: dict[str, str | None]) -> None:
    """Waits until the tasks are in these states."""

    try:
        wait_until(lambda: states(environment) == expected, "the states", 60)
    except AssertionError:
        assert states(environment) == expected
        raise


def upload(environment: Environment, source: str, identifier: str) -> None:
    environment.upload("shrinks.py", source.replace("__PLACE__", str(environment.modal.root)))
    environment.command(identifier, kind="refresh")
    environment.call("run_tick", "test")


def test_deleted_tasks_are_removed_and_can_come_back(environment: Environment) -> None:
    pool = {"name": "none", "slots": 0, "description": ""}
    environment.command("pool", kind="put_pools", pools=[pool])
    upload(environment, KEPT + DELETED, "first")
    environment.command("trigger", kind="trigger", dag_id="shrinks", run_id="r")
    environment.call("run_tick", "test")
    reach(environment, BEFORE)

    upload(environment, KEPT, "deleted")
    removed = dict.fromkeys(BEFORE, "removed") | {"held": "running", "kept": None}
    reach(environment, removed)
    [log] = environment.volumes("logs/dag_id=shrinks/run_id=r/task_id=runs/attempt=1.log")
    wait_until(lambda: "it was deleted from its DAG" in log.read_text(), "the reason in the log")

    # What waits begins anew: what was deferred must not go on as if its trigger had fired.
    upload(environment, KEPT + DELETED, "back")
    again = {"retried": "failed", "polls": None, "mapped 0": None, "mapped 1": None, "group.sets_up": "success"}
    reach(environment, BEFORE | again)
    marker = environment.state()["due"]
    assert marker["next_due"] is not None, "a sensor is due, though its task has no state"

    upload(environment, KEPT, "gone")
    reach(environment, removed)
    (environment.modal.root / "go").touch()
    reach(environment, removed | {"held": "success", "kept": "success"})
    wait_until(lambda: environment.query("SELECT state FROM dag_run") == [("success",)], "the end of the run")
