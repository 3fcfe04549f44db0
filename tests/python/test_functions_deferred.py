"""Deferred tasks and callbacks: what runs beside the tasks, and only while there is something to run."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from environment import DATABASES, Environment, deployed
from local_modal import wait_until

# Triggers and callbacks of deadlines are found by the names of their modules.
HELPER = """
import asyncio, pathlib
from airflow.sdk import Variable
from airflow.sdk.timezone import utcnow
from airflow.triggers.base import BaseTrigger, TriggerEvent

BOOK = pathlib.Path("__BOOK__")

def late(context, text):
    with (BOOK / "late").open("a") as file:
        file.write(text + " " + context["dag_run"]["dag_run_id"] + "\\n")

async def late_async(context, text):
    late(context, text)

class Broken(BaseTrigger):
    def serialize(self):
        return (__name__ + ".Broken", {})
    async def run(self):
        raise RuntimeError("the trigger is broken")
        yield

class Asks(BaseTrigger):
    def serialize(self):
        return (__name__ + ".Asks", {})
    async def run(self):
        value = await asyncio.to_thread(Variable.get, "greeting", default="none")
        yield TriggerEvent({"value": value, "at": utcnow()})
"""
DAGS = """
import datetime, pathlib
from helper import Asks, Broken, late, late_async
from airflow.providers.standard.operators.bash import BashOperator
from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.providers.standard.operators.trigger_dagrun import TriggerDagRunOperator
from airflow.providers.standard.sensors.date_time import DateTimeSensorAsync
from airflow.sdk import DAG, AsyncCallback, BaseOperator, DeadlineAlert, DeadlineReference, SyncCallback, task

BOOK = pathlib.Path("__BOOK__")

def note(name):
    def write(context):
        with (BOOK / name).open("a") as file:
            file.write(context["dag_run"].run_id + "\\n")
        print("the callback", name, "has run")
    return write

class Defers(BaseOperator):
    def __init__(self, trigger, **more):
        super().__init__(**more)
        self.trigger = trigger
    def execute(self, context):
        self.defer(trigger=self.trigger, method_name="resume", timeout=datetime.timedelta(minutes=5))
    def resume(self, context, event=None):
        assert event["at"].tzinfo
        return event["value"]

def dag(name, **more):
    return DAG(name, schedule=None, start_date=datetime.datetime(2026, 1, 1), **more)

with dag("waits"):
    moment = DateTimeSensorAsync(
        task_id="moment", target_time="{{ (dag_run.start_date + macros.timedelta(seconds=3)) }}")
    moment >> EmptyOperator(task_id="after")
    Defers(task_id="asks", trigger=Asks())

with dag("outlasts"):
    DateTimeSensorAsync(task_id="moment", target_time="{{ (dag_run.start_date + macros.timedelta(seconds=20)) }}")

with dag("breaks"):
    Defers(task_id="broken", trigger=Broken())

with dag("slow"):
    BashOperator(task_id="sleeps", bash_command="sleep 4") >> BashOperator(task_id="then", bash_command="true")

for name, deferrable in ("awaits", True), ("polls", False):
    with dag(name):
        TriggerDagRunOperator(
            task_id="other", trigger_dag_id="slow", wait_for_completion=True, deferrable=deferrable, poke_interval=1)

with dag("succeeds", on_success_callback=note("success"), on_failure_callback=note("wrong")):
    EmptyOperator(task_id="nothing")

with dag("fails", on_success_callback=note("wrong"), on_failure_callback=[note("failure"), note("failure")]):
    @task(on_failure_callback=note("task"))
    def bad():
        raise RuntimeError("bad")
    bad()

def alert(kind, callback):
    return DeadlineAlert(
        reference=DeadlineReference.DAGRUN_QUEUED_AT,
        interval=datetime.timedelta(seconds=1),
        callback=kind(callback, {"text": kind.__name__}))

with dag("is_late", deadline=[alert(SyncCallback, late), alert(AsyncCallback, late_async)]):
    DateTimeSensorAsync(task_id="moment", target_time="{{ (dag_run.start_date + macros.timedelta(seconds=6)) }}")
"""


@pytest.fixture(scope="module", params=DATABASES)
def environment(request: pytest.FixtureRequest) -> Iterator[Environment]:
    with deployed(request.param) as environment:
        book = environment.modal.root / "book"
        book.mkdir()
        for name, source in ("helper.py", HELPER), ("deferred.py", DAGS):
            environment.upload(name, source.replace("__BOOK__", str(book)))
        yield environment


def trigger(environment: Environment, *dag_ids: str) -> None:
    for dag_id in dag_ids:
        environment.command(dag_id, kind="trigger", dag_id=dag_id, run_id=dag_id)
    environment.call("run_tick", "test")


def end(environment: Environment, run_id: str) -> str:
    def ended() -> str | None:
        states = environment.query("SELECT state FROM dag_run WHERE run_id = ?", run_id)
        return states[0][0] if states and states[0][0] in ("success", "failed") else None

    state: str = wait_until(ended, f"the end of {run_id}", 90)
    return state


def lines(environment: Environment, name: str) -> list[str]:
    path = environment.modal.root / "book" / name
    return sorted(path.read_text().splitlines()) if path.exists() else []


def test_deferred_tasks_resume(environment: Environment) -> None:
    trigger(environment, "waits", "breaks", "awaits", "polls")
    assert end(environment, "waits") == "success"
    assert end(environment, "breaks") == "failed"
    # Both ask what has become of a run that ends after they began to ask.
    assert end(environment, "awaits") == "success"
    assert end(environment, "polls") == "success"
    [asked] = environment.volumes("xcom/waits/waits/asks/return_value")
    assert asked.read_text() == '"none"'
    [log] = environment.volumes("logs/dag_id=breaks/run_id=breaks/task_id=broken/attempt=1.log")
    assert "the trigger is broken" in log.read_text()
    assert environment.volumes("logs/dag_id=waits/run_id=waits/task_id=moment/attempt=1.log.trigger.*.log")
    tries = environment.query("SELECT task_id, try_number FROM task_instance WHERE run_id IN ('waits', 'breaks')")
    assert all(number == 1 for _, number in tries), tries
    # Nothing is deferred any more: the triggerer goes, and leaves nothing behind.
    wait_until(lambda: "triggerer" not in environment.state(), "the end of the triggerer")
    wait_until(lambda: not [key for key in environment.state() if key.startswith("event:")], "the end of its events")
    assert environment.query("SELECT count(*) FROM trigger") == [(0,)]


def test_lost_triggerer_is_replaced(environment: Environment) -> None:
    trigger(environment, "outlasts")
    note = wait_until(lambda: (n := environment.state().get("triggerer")) and n["call_id"] and n, "a triggerer", 60)
    environment.modal.sdk(f"""
    modal.FunctionCall.from_id({note["call_id"]!r}).cancel(terminate_containers=True)
    # As if it had not been heard of for long.
    modal.Dict.from_name("airflow-state-test")["triggerer"] = {note | {"at": 0.0}!r}
    """)
    assert environment.call("scheduler_tick") == {"spawned": True, "reason": "the triggerer is gone"}
    assert end(environment, "outlasts") == "success"
    assert environment.query("SELECT try_number FROM task_instance WHERE run_id = 'outlasts'") == [(1,)]


def test_callbacks_of_runs_are_executed_once(environment: Environment) -> None:
    trigger(environment, "fails", "succeeds")
    assert end(environment, "fails") == "failed"
    wait_until(lambda: len(lines(environment, "failure")) == 2, "the failure callbacks", 60)
    assert lines(environment, "task") == ["fails"]
    runs = environment.query("SELECT run_id FROM dag_run WHERE dag_id = 'succeeds' ORDER BY run_id")
    wait_until(lambda: lines(environment, "success") == [run_id for (run_id,) in runs], "the success callbacks", 60)
    wait_until(lambda: environment.query("SELECT count(*) FROM callback") == [(0,)], "the end of the requests", 60)
    assert not lines(environment, "wrong")
    logs = [path.read_text() for path in environment.volumes("logs/callbacks/*.log")]
    assert any("the callback failure has run" in text for text in logs), logs
    # What is in the Dict goes once the database without it is published.
    wait_until(lambda: not [key for key in environment.state() if "callback" in key], "the end of their entries")


def test_deadline_callbacks_are_executed(environment: Environment) -> None:
    trigger(environment, "is_late")
    assert end(environment, "is_late") == "success"
    wait_until(lambda: len(lines(environment, "late")) == 2, "the callbacks of the deadlines", 60)
    assert lines(environment, "late") == ["AsyncCallback is_late", "SyncCallback is_late"]
    states = "SELECT DISTINCT state FROM callback"
    wait_until(lambda: environment.query(states) == [("success",)], "their success")
