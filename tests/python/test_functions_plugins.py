"""Airflow's plugins: custom timetables, macros, listeners; followed as they change, harmless when they are broken."""

from __future__ import annotations

import datetime
import time
from collections.abc import Iterator
from typing import Any

import pytest

from environment import DATABASES, Environment, deployed
from local_modal import wait_until

# Runs at listed moments, each for the time since the one before.
PLUGIN = """
import datetime, os
from airflow.listeners import hookimpl
from airflow.plugins_manager import AirflowPlugin
from airflow.timetables.base import DagRunInfo, DataInterval, Timetable
from pendulum import instance
from words import VERSION

START = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
MOMENTS = [START + datetime.timedelta(hours=hours) for hours in (1, 3, 6)]
MOMENTS += [datetime.datetime({next}, tzinfo=datetime.UTC)]

class Listed(Timetable):
    description = "at listed moments"

    @property
    def summary(self):
        return f"listed {{VERSION}}"

    def infer_manual_data_interval(self, *, run_after):
        return DataInterval.exact(run_after)

    def next_dagrun_info(self, *, last_automated_data_interval, restriction):
        last = last_automated_data_interval.end if last_automated_data_interval else restriction.earliest
        moment = next((moment for moment in MOMENTS if moment > last), None)
        return moment and DagRunInfo.interval(start=instance(last), end=instance(moment))

def version():
    return f"version {{VERSION}}"

def note(text):
    with open(os.environ["NOTES"], "a") as notes:
        notes.write(f"{{VERSION}} {{text}}\\n")

class Listener:
    @hookimpl
    def on_task_instance_success(self, previous_state, task_instance):
        note(f"{{task_instance.dag_id}} {{task_instance.run_id}} {{task_instance.task_id}}")

    @hookimpl
    def on_asset_changed(self, asset):
        note(asset.name)

    @hookimpl
    def on_dag_run_success(self, dag_run, msg):
        note(f"{{dag_run.dag_id}} {{dag_run.run_id}}")

class ListedPlugin(AirflowPlugin):
    name = "listed"
    timetables = [Listed]
    macros = [version]
    listeners = [Listener()]
"""
DAG = """
import datetime
from airflow.sdk import DAG, Asset, task
from listed import Listed

start = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
with DAG("listed", schedule=Listed(), start_date=start, catchup=True):
    @task(outlets=[Asset("changed-asset")])
    def told(said):
        return said
    told("{{ macros.listed.version() }} {{ data_interval_start.hour }}-{{ data_interval_end.hour }}")
"""
HELD = """
later = datetime.datetime(2096, 12, 1, tzinfo=datetime.UTC)
with DAG("held", schedule=Listed(), start_date=later):
    @task
    def first(gate):
        import os, time
        while not os.path.exists(gate):
            time.sleep(0.1)
    @task
    def second(): pass
    first("{{ dag_run.conf['gate'] }}") >> second()
with DAG("failing", schedule=Listed(), start_date=later):
    @task(retries=1, retry_delay=3600)
    def fails(): raise ValueError
    fails()
"""
TRIGGER = """
import asyncio, os
from airflow.triggers.base import BaseTrigger, TriggerEvent

class Gate(BaseTrigger):
    def __init__(self, gate):
        super().__init__()
        self.gate = gate

    def serialize(self):
        return "gates.Gate", {{"gate": self.gate}}

    async def run(self):
        while not os.path.exists(self.gate):
            await asyncio.sleep(0.1)
        yield TriggerEvent("{version}")
"""
WAITING = """
from airflow.sdk import DAG, BaseOperator
from gates import Gate

class Wait(BaseOperator):
    template_fields = ("gate",)

    def __init__(self, gate, **kwargs):
        super().__init__(**kwargs)
        self.gate = gate

    def execute(self, context):
        self.defer(trigger=Gate(self.gate), method_name="resume")

    def resume(self, context, event):
        return event

with DAG("waiting", schedule=None):
    Wait(task_id="wait", gate="{{ dag_run.conf['gate'] }}")
"""
PLAIN = """
from airflow.sdk import DAG, task
with DAG("plain", schedule=None):
    @task
    def nothing(): pass
    nothing()
"""
NEXT = datetime.datetime(2096, 7, 1, 12, tzinfo=datetime.UTC)


@pytest.fixture(scope="module", params=DATABASES)
def environment(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Environment]:
    notes = tmp_path_factory.mktemp("notes") / "notes"
    with deployed(request.param, "--volumes", "strict", NOTES=str(notes)) as environment:
        environment.notes = notes  # type: ignore[attr-defined]
        environment.upload("plugins/words.py", "VERSION = 1\n")
        environment.upload("plugins/listed.py", PLUGIN.format(next="2096, 7, 1, 12"))
        environment.upload("plugins/.airflowignore", "words.py\n")
        environment.upload("listed_dag.py", DAG + HELD)
        environment.upload("plain.py", PLAIN)
        refresh(environment)
        yield environment


def refresh(environment: Environment) -> dict[str, Any]:
    """What a look at the folder tells: {"dags", "import_errors"}."""
    identifier = f"refresh {time.monotonic_ns()}"
    environment.command(identifier, kind="refresh")
    key = f"reply:{identifier}"

    def replied() -> Any:
        environment.call("run_tick", "test")
        return environment.state().get(key)

    reply = wait_until(replied, "the reply of the scheduler", 60)
    assert reply["ok"], reply
    return reply["result"]


def errors(environment: Environment) -> dict[str, str]:
    return {error["filename"]: error["stack_trace"] for error in refresh(environment)["import_errors"]}


def run(environment: Environment, dag_id: str, run_id: str, date: str | None = None) -> str:
    """The state with which a run ends that is triggered now, for the present or another date."""
    date = date or datetime.datetime.now(datetime.UTC).isoformat()
    environment.command(run_id, kind="trigger", dag_id=dag_id, run_id=run_id, logical_date=date)
    environment.call("run_tick", "test")
    return wait_until(lambda: ended(environment, run_id), f"the end of {run_id}", 60)


def ended(environment: Environment, run_id: str) -> str | None:
    states = environment.query("SELECT state FROM dag_run WHERE run_id = ?", run_id)
    return states[0][0] if states and states[0][0] in ("success", "failed") else None


def notes(environment: Environment) -> list[str]:
    return environment.notes.read_text().splitlines()  # type: ignore[attr-defined]


def returned_text(environment: Environment, run_id: str) -> str:
    [path] = environment.volumes(f"xcom/listed/{run_id}/told/return_value")
    return path.read_text()


def remove(environment: Environment, path: str) -> None:
    environment.modal.sdk(f'modal.Volume.from_name("airflow-dags-test").remove_file("/dags/{path}")')


def test_custom_timetable_schedules_runs(environment: Environment) -> None:
    query = "SELECT run_id, data_interval_start, data_interval_end, state FROM dag_run ORDER BY run_after"

    def three() -> list[tuple[Any, ...]]:
        found = environment.query(query)
        return found if [state for *_, state in found] == ["success"] * 3 else []

    rows = wait_until(three, "three runs that succeeded", 90)
    hours = [(int(str(start)[11:13]), int(str(end)[11:13])) for _, start, end, _ in rows]
    assert hours == [(0, 1), (1, 3), (3, 6)]
    for (run_id, *_), (start, end) in zip(rows, hours, strict=True):
        assert returned_text(environment, run_id) == f'"version 1 {start}-{end}"'
        assert notes(environment).count(f"1 listed {run_id} told") == 1
        assert notes(environment).count(f"1 listed {run_id}") == 1
    assert notes(environment).count("1 changed-asset") == 3, "whom an asset concerns was not told once for each change"
    assert wait_until(lambda: due(environment) == NEXT.timestamp(), "the moment for which the gate wakes", 30)
    assert environment.query("SELECT timetable_summary FROM dag WHERE dag_id = 'listed'") == [("listed 1",)]
    assert errors(environment) == {}


def due(environment: Environment) -> float:
    return environment.state()["due"]["next_due"]


def test_changed_plugin_applies_to_later_runs(environment: Environment) -> None:
    # A module that the plugin imports, and no plugin itself.
    environment.upload("plugins/words.py", "VERSION = 2\n")
    environment.upload("plugins/listed.py", PLUGIN.format(next="2097, 1, 1"))
    assert run(environment, "listed", "changed", "2026-03-03T09:00:00Z") == "success"
    assert returned_text(environment, "changed") == '"version 2 9-9"'
    told = [note for note in notes(environment) if "changed" in note and "changed-asset" not in note]
    assert sorted(told) == ["2 listed changed", "2 listed changed told"]
    assert environment.query("SELECT timetable_summary FROM dag WHERE dag_id = 'listed'") == [("listed 2",)]
    moment = datetime.datetime(2097, 1, 1, tzinfo=datetime.UTC).timestamp()
    assert wait_until(
        lambda: due(environment) == moment, "the moment for which the gate wakes, once no round is under way", 30
    )


def test_trigger_uses_the_plugin_code_at_its_start(environment: Environment) -> None:
    """The process of the triggers, which has the old code, runs another one all the while."""
    first, second = environment.modal.root / "first", environment.modal.root / "second"
    second.touch()
    environment.upload("plugins/gates.py", TRIGGER.format(version="old"))
    environment.upload("waiting.py", WAITING)
    environment.command("w1", kind="trigger", dag_id="waiting", run_id="w1", conf={"gate": str(first)})
    environment.call("run_tick", "test")
    wait_until(lambda: (environment.state().get("triggerer") or {}).get("call_id"), "the triggerer", 60)
    environment.upload("plugins/gates.py", TRIGGER.format(version="new"))
    environment.command("w2", kind="trigger", dag_id="waiting", run_id="w2", conf={"gate": str(second)})
    environment.call("run_tick", "test")
    assert wait_until(lambda: ended(environment, "w2"), "the end of the second", 60) == "success"
    first.touch()
    assert wait_until(lambda: ended(environment, "w1"), "the end of the first", 60) == "success"
    results = [
        environment.volumes(f"xcom/waiting/{run_id}/wait/return_value")[0].read_text() for run_id in ("w2", "w1")
    ]
    assert results == ['"new"', '"new"']


def test_broken_plugin_is_an_import_error(environment: Environment) -> None:
    environment.upload("plugins/broken.py", "def f():\n    return 1 / 0\nf()\n")
    found = errors(environment)
    assert found.keys() == {"plugins/broken.py"}
    assert "line 2, in f" in found["plugins/broken.py"] and "ZeroDivisionError" in found["plugins/broken.py"]
    assert run(environment, "listed", "beside_a_broken_one") == "success"


def test_plugin_that_exits_does_not_stop_the_scheduler(environment: Environment) -> None:
    environment.upload("plugins/broken.py", "import sys\nsys.exit(3)\n")
    found = errors(environment)
    assert "sys.exit(3)" in found["plugins/broken.py"]
    assert "is not registered" in found["listed_dag.py"]
    environment.upload("plugins/broken.py", "import os\nos._exit(3)\n")
    assert "ended the interpreter" in errors(environment)["plugins"]
    remove(environment, "plugins/broken.py")
    assert errors(environment) == {}


def test_deleted_plugin_breaks_only_its_dags(environment: Environment) -> None:
    gate = environment.modal.root / "gate"
    for dag_id in ("held", "failing"):
        environment.command(dag_id, kind="trigger", dag_id=dag_id, run_id=dag_id, conf={"gate": str(gate)})
    environment.call("run_tick", "test")
    waiting = "SELECT state FROM task_instance WHERE task_id IN ('first', 'fails') ORDER BY task_id"
    states = [("up_for_retry",), ("running",)]
    wait_until(lambda: environment.query(waiting) == states, "the task that waits and the one that failed", 60)
    remove(environment, "plugins/listed.py")
    found = errors(environment)
    assert found.keys() == {"listed_dag.py"} and "No module named 'listed'" in found["listed_dag.py"]
    gate.touch()
    assert run(environment, "plain", "beside_one_that_is_gone") == "success"
    environment.upload("plugins/listed.py", PLUGIN.format(next="2097, 1, 1"))
    assert errors(environment) == {}
    assert wait_until(lambda: ended(environment, "held"), "the end of the run that waited", 60) == "success"
