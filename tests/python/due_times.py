"""DAGs of which something is due after a number of seconds, and how to see when it was due and when it happened."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from typing import Any

from environment import Environment

HEAD = """
import datetime, time
from pathlib import Path
from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.providers.standard.operators.hitl import HITLOperator
from airflow.providers.standard.sensors.date_time import DateTimeSensorAsync
from airflow.sdk import DAG, BaseOperator, DeadlineAlert, DeadlineReference, SyncCallback, get_current_context, task
from airflow.providers.standard.triggers.temporal import DateTimeTrigger

AFTER = datetime.timedelta(seconds=__AFTER__)
FAR = datetime.datetime(2100, 1, 1, tzinfo=datetime.timezone.utc)

class Waits(BaseOperator):
    def execute(self, context):
        self.defer(trigger=DateTimeTrigger(moment=FAR), method_name="execute", timeout=AFTER)

async def late(context):
    pass
"""


@dataclass(frozen=True)
class Kind:
    """A DAG of which something is due after `__AFTER__` seconds, and SQL that takes the id of a run.

    `base` selects the moment from which the seconds count, `done` when it happened.
    """

    source: str
    base: str
    done: str
    is_absolute: bool = False
    """Whether `base` is the due time itself, not `__AFTER__` seconds before it."""
    has_logical_date: bool = False
    """Whether the run is triggered for a logical date that is ahead by `__AFTER__` seconds."""

    def dag(self, name: str, after: int) -> str:
        return (HEAD + self.source).replace("__AFTER__", str(after)).replace("__NAME__", repr(name))

    def due(self, environment: Environment, run_id: str, after: int) -> float | None:
        """When it is due, in seconds since the epoch; None while that is not known."""
        base = _moment(environment.query(self.base, run_id))
        return base if base is None or self.is_absolute else base + after

    def happened(self, environment: Environment, run_id: str) -> float | None:
        """When it happened; None while it has not."""
        return _moment(environment.query(self.done, run_id))


_ENDED = "SELECT end_date FROM dag_run WHERE run_id = ?"
_TASK = "SELECT {} FROM task_instance WHERE run_id = ?"
KINDS = {
    "dagrun_timeout": Kind(
        """
with DAG(__NAME__, schedule=None, dagrun_timeout=AFTER):
    DateTimeSensorAsync(task_id="waits", target_time=FAR)
""",
        "SELECT start_date FROM dag_run WHERE run_id = ?",
        _ENDED,
    ),
    "deadline": Kind(
        """
alert = DeadlineAlert(reference=DeadlineReference.DAGRUN_QUEUED_AT, interval=AFTER, callback=SyncCallback(late))
with DAG(__NAME__, schedule=None, deadline=alert):
    DateTimeSensorAsync(task_id="waits", target_time=FAR)
""",
        "SELECT queued_at FROM dag_run WHERE run_id = ?",
        "SELECT last_updated_at FROM deadline JOIN dag_run ON dag_run.id = dagrun_id WHERE missed AND run_id = ?",
    ),
    "trigger timeout": Kind(
        """
with DAG(__NAME__, schedule=None):
    Waits(task_id="waits")
""",
        _TASK.format("trigger_timeout"),
        _TASK.format("end_date") + " AND state = 'failed'",
        is_absolute=True,
    ),
    "question": Kind(
        """
with DAG(__NAME__, schedule=None):
    HITLOperator(task_id="waits", subject="?", options=["a"], defaults="a", response_timeout=AFTER)
""",
        f"SELECT created_at FROM hitl_detail WHERE ti_id = ({_TASK.format('id')})",
        f"SELECT responded_at FROM hitl_detail WHERE ti_id = ({_TASK.format('id')})",
    ),
    "reschedule": Kind(
        """
with DAG(__NAME__, schedule=None):
    @task.sensor(mode="reschedule", poke_interval=__AFTER__)
    def polls():
        return (datetime.datetime.now(datetime.timezone.utc) - get_current_context()["dag_run"].start_date) > AFTER
    polls()
""",
        f"SELECT min(end_date) FROM task_reschedule WHERE ti_id = ({_TASK.format('id')})",
        _TASK.format("end_date") + " AND state = 'success'",
    ),
    "retry": Kind(
        """
with DAG(__NAME__, schedule=None):
    @task(retries=1, retry_delay=AFTER)
    def fails():
        if get_current_context()["ti"].try_number == 1:
            raise ValueError
    fails()
""",
        "SELECT end_date FROM task_instance_history WHERE run_id = ?",
        _TASK.format("start_date") + " AND state IN ('running', 'success')",
    ),
    "logical date": Kind(
        """
with DAG(__NAME__, schedule=None):
    EmptyOperator(task_id="nothing")
""",
        "SELECT logical_date FROM dag_run WHERE run_id = ?",
        _ENDED,
        is_absolute=True,
        has_logical_date=True,
    ),
}


def trigger(environment: Environment, name: str, kind: Kind, after: int) -> None:
    """Upload the DAG and start a run of it; both have this name."""
    environment.upload(f"{name}.py", kind.dag(name, after))
    environment.command(f"refresh {name}", kind="refresh")
    environment.call("run_tick", "test")
    more: dict[str, Any] = {}
    if kind.has_logical_date:
        moment = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=after)
        more["logical_date"] = moment.isoformat()
    environment.command(name, kind="trigger", dag_id=name, run_id=name, **more)
    environment.call("run_tick", "test")


def _moment(rows: list[tuple[Any, ...]]) -> float | None:
    value = rows[0][0] if rows else None
    if value is None:
        return None
    moment = datetime.datetime.fromisoformat(value) if isinstance(value, str) else value
    return (moment if moment.tzinfo else moment.replace(tzinfo=datetime.UTC)).timestamp()
