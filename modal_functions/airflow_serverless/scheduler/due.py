"""When the scheduler has to look again: the marker for the gate, taken from the database at the end of a tick."""

from __future__ import annotations

import datetime
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from airflow_serverless.state import DueMarker

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement

FULL_TICK_SECONDS = 300.0
"""A tick runs at least this often, for what has no due time (timeouts of runs, files changed by other means)."""
MOST_RETRIES = 200


def compute(generation: int, deferred: bool) -> DueMarker:
    """The marker as of now; times are seconds since the epoch."""
    now = time.time()
    times = [moment.timestamp() for moment in _moments() if moment is not None]
    return {
        "next_due": min(times) if times else None,
        "active": _is_active(),
        "deferred": deferred,
        "generation": generation,
        "full_tick_at": now + FULL_TICK_SECONDS,
    }


def is_due(marker: DueMarker | None, now: float) -> str | None:
    """Why a tick should run, or None. Used by the gate: imports nothing heavy."""
    if marker is None:
        return "no tick has run yet"
    if marker["next_due"] is not None and marker["next_due"] <= now:
        return "something is due"
    if marker["full_tick_at"] <= now:
        return "a full tick is due"
    if marker["active"]:
        return "tasks are active"
    return None


def _is_active() -> bool:
    from airflow.models.taskinstance import TaskInstance
    from airflow.utils.session import create_session
    from airflow.utils.state import TaskInstanceState
    from sqlalchemy import select

    states = (TaskInstanceState.QUEUED, TaskInstanceState.RUNNING, TaskInstanceState.RESTARTING)
    with create_session() as session:
        return session.scalar(select(TaskInstance.id).where(TaskInstance.state.in_(states)).limit(1)) is not None


def _moments() -> Iterator[datetime.datetime | None]:
    from airflow.models.dag import DagModel
    from airflow.models.dagrun import DagRun
    from airflow.models.deadline import Deadline
    from airflow.models.taskinstance import TaskInstance
    from airflow.models.taskreschedule import TaskReschedule
    from airflow.utils.session import create_session
    from airflow.utils.state import DagRunState, TaskInstanceState
    from sqlalchemy import func, select

    live = _live()
    with create_session() as session:
        has_room = DagModel.exceeds_max_non_backfill.is_(False)
        yield session.scalar(select(func.min(DagModel.next_dagrun_create_after)).where(has_room, *live))
        yield session.scalar(
            select(func.min(DagRun.run_after))
            .join(DagModel, DagModel.dag_id == DagRun.dag_id)
            .where(DagRun.state == DagRunState.QUEUED, DagRun.run_after > func.now(), *live)
        )
        yield session.scalar(
            select(func.max(TaskReschedule.reschedule_date).label("at"))
            .join(TaskInstance, TaskInstance.id == TaskReschedule.ti_id)
            .join(DagModel, DagModel.dag_id == TaskInstance.dag_id)
            .where(TaskInstance.state == TaskInstanceState.UP_FOR_RESCHEDULE, *live)
            .group_by(TaskInstance.id)
            .order_by("at")
            .limit(1)
        )
        waiting = (TaskInstanceState.DEFERRED, TaskInstanceState.AWAITING_INPUT)
        yield session.scalar(select(func.min(TaskInstance.trigger_timeout)).where(TaskInstance.state.in_(waiting)))
        yield session.scalar(select(func.min(Deadline.deadline_time)).where(~Deadline.missed))
    yield from _retry_times()


def _live() -> tuple[ColumnElement[bool], ...]:
    """Which rows of `dag` the scheduler looks at. Of others nothing is due, however long ago its time was."""
    from airflow.models.dag import DagModel

    return DagModel.is_paused.is_(False), DagModel.is_stale.is_(False)


def _retry_times() -> Iterator[datetime.datetime]:
    from airflow.models.dag import DagModel
    from airflow.models.dagbag import DBDagBag
    from airflow.models.taskinstance import TaskInstance
    from airflow.utils.session import create_session
    from airflow.utils.state import TaskInstanceState
    from sqlalchemy import select

    bag = DBDagBag()
    with create_session() as session:
        waiting = (
            select(TaskInstance)
            .join(DagModel, DagModel.dag_id == TaskInstance.dag_id)
            .where(TaskInstance.state == TaskInstanceState.UP_FOR_RETRY, *_live())
        )
        for ti in session.scalars(waiting.limit(MOST_RETRIES)):
            dag = bag.get_dag_for_run(dag_run=ti.dag_run, session=session)
            if dag is not None and dag.has_task(ti.task_id):
                ti.task = dag.get_task(ti.task_id)
                yield ti.next_retry_datetime()
