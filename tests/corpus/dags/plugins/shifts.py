"""A plugin of everything that matters to runs and tasks: a timetable, a macro, a weight, a link, and a listener."""

import os
from pathlib import Path
from typing import ClassVar

from airflow.listeners import hookimpl
from airflow.plugins_manager import AirflowPlugin
from airflow.sdk import BaseOperatorLink
from airflow.task.priority_strategy import PriorityWeightStrategy
from airflow.timetables.base import DagRunInfo, DataInterval, Timetable
from pendulum import DateTime

FIRST_HOURS = (6, 14, 22)


class Shifts(Timetable):
    """Runs at the end of each shift of eight hours, on so many days from the DAG's first."""

    description = "at the end of each shift"

    def __init__(self, days: int) -> None:
        self.days = days

    @property
    def summary(self) -> str:
        return f"shifts on {self.days} days"

    def serialize(self) -> dict:
        return {"days": self.days}

    @classmethod
    def deserialize(cls, data: dict) -> Timetable:
        return cls(data["days"])

    def infer_manual_data_interval(self, *, run_after: DateTime) -> DataInterval:
        begun = [hour for hour in FIRST_HOURS if hour <= run_after.hour]
        start = run_after.start_of("day").add(hours=begun[-1] if begun else -2)
        return DataInterval(start, start.add(hours=8))

    def next_dagrun_info(self, *, last_automated_data_interval, restriction) -> DagRunInfo | None:
        if last_automated_data_interval is None:
            start = restriction.earliest.start_of("day").add(hours=FIRST_HOURS[0])
        else:
            start = last_automated_data_interval.end
        if start >= restriction.earliest.start_of("day").add(days=self.days):
            return None
        return DagRunInfo.interval(start, start.add(hours=8))

    def generate_run_id(self, *, run_type, run_after, data_interval, **extra) -> str:
        return f"{run_type}_shift_{data_interval.start:%d_%H}"


class Heavier(PriorityWeightStrategy):
    def get_weight(self, ti) -> int:
        return 7


class Link(BaseOperatorLink):
    name = "shifts"

    def get_link(self, operator, *, ti_key) -> str:
        return f"https://shifts.example/{ti_key.dag_id}/{ti_key.task_id}"


def shift(start) -> str:
    """Which shift begins then."""
    return {6: "early", 14: "late", 22: "night"}[start.hour]


class Listener:
    """Notes for DAGs of its own what it is told."""

    def _note(self, dag_id: str, run_id: str, text: str) -> None:
        if dag_id.startswith("plugin_"):
            folder = Path(os.environ["CORPUS_NOTES"], dag_id, run_id)
            folder.mkdir(parents=True, exist_ok=True)
            while (folder / text).exists():
                text += " again"
            (folder / text).touch()

    @hookimpl
    def on_task_instance_running(self, previous_state, task_instance):
        self._note(task_instance.dag_id, task_instance.run_id, f"running {task_instance.task_id}")

    @hookimpl
    def on_task_instance_success(self, previous_state, task_instance):
        self._note(task_instance.dag_id, task_instance.run_id, f"success {task_instance.task_id}")

    @hookimpl
    def on_task_instance_failed(self, previous_state, task_instance, error):
        self._note(task_instance.dag_id, task_instance.run_id, f"failed {task_instance.task_id} {error}")

    @hookimpl
    def on_task_instance_skipped(self, previous_state, task_instance):
        self._note(task_instance.dag_id, task_instance.run_id, f"skipped {task_instance.task_id}")

    @hookimpl
    def on_dag_run_running(self, dag_run, msg):
        self._note(dag_run.dag_id, dag_run.run_id, "run running")

    @hookimpl
    def on_dag_run_success(self, dag_run, msg):
        self._note(dag_run.dag_id, dag_run.run_id, "run success")

    @hookimpl
    def on_dag_run_failed(self, dag_run, msg):
        self._note(dag_run.dag_id, dag_run.run_id, "run failed")

    @hookimpl
    def on_asset_changed(self, asset):
        if asset.name == "plugin_told":
            self._note("plugin_triggered", "assets", "changed")


class ShiftsPlugin(AirflowPlugin):
    name = "shifts"
    timetables: ClassVar = [Shifts]
    macros: ClassVar = [shift]
    priority_weight_strategies: ClassVar = [Heavier]
    global_operator_extra_links: ClassVar = [Link()]
    listeners: ClassVar = [Listener()]
