"""When the scheduler has to look again: the marker for the gate, taken from the database at the end of a tick."""

from __future__ import annotations

import datetime
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from airflow_serverless.state import DueMarker

if TYPE_CHECKING:
    from airflow.models.dagbag import DBDagBag
    from sqlalchemy import ColumnElement

    from airflow_serverless.quarantine import Quarantine
    from airflow_serverless.scheduler.tick import Tick

FULL_TICK_SECONDS = 300.0
"""A tick runs at least this often, for what has no due time (files changed by other means)."""
LONGEST_WAIT_SECONDS = 300.0
"""Of a gate. With a longer interval, what is due later than this waits for the next cron."""
CRON_LATE_SECONDS = 5.0
MOST_RETRIES = 200


def compute(
    generation: int, deferred: bool, quarantine: Quarantine, tick: Tick, next_parse_at: float | None
) -> DueMarker:
    """The marker as of now; times are seconds since the epoch.

    `tick`: the one that ends. `next_parse_at`: when the next file that reads the clock is due, for which no
    gate waits: it would never end.
    """
    full_tick_at = time.time() + FULL_TICK_SECONDS
    times = [moment.timestamp() for moment in _moments(quarantine, tick) if moment is not None]
    if (retry_at := quarantine.next_retry()) is not None:
        times.append(retry_at)
    return {
        "next_due": min(times, default=None),
        "active": _is_active(),
        "deferred": deferred,
        "generation": generation,
        "full_tick_at": full_tick_at if next_parse_at is None else min(full_tick_at, next_parse_at),
    }


def look_ahead(interval_seconds: int) -> float:
    """How many seconds ahead a gate waits for a due time: until the next cron, unless that comes late."""
    return min(interval_seconds + CRON_LATE_SECONDS, LONGEST_WAIT_SECONDS)


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


def _moments(quarantine: Quarantine, tick: Tick) -> Iterator[datetime.datetime | None]:
    from airflow._shared.timezones import timezone
    from airflow.models.dag import DagModel
    from airflow.models.dagrun import DagRun
    from airflow.models.deadline import Deadline
    from airflow.models.taskinstance import TaskInstance
    from airflow.models.taskreschedule import TaskReschedule
    from airflow.utils.session import create_session
    from airflow.utils.state import DagRunState, TaskInstanceState
    from sqlalchemy import false, func, select

    live, unfinished = _live(), (DagRunState.QUEUED, DagRunState.RUNNING)
    with create_session() as session:
        has_room = DagModel.exceeds_max_non_backfill.is_(False)
        yield session.scalar(select(func.min(DagModel.next_dagrun_create_after)).where(has_room, *live))
        # Airflow compares `run_after` with the clock of the database, which has no fractions in SQLite: the last pass
        # did not see the queued runs of its second, as assets and tasks cause them.
        last_seen = datetime.datetime.fromtimestamp(int(tick.last_pass_at), datetime.UTC)
        is_unseen = (DagRun.state == DagRunState.QUEUED) & (DagRun.run_after > last_seen)
        for moment, is_missed in ((DagRun.run_after, is_unseen), (DagRun.logical_date, false())):
            found = session.scalar(
                select(func.min(moment))
                .join(DagModel, DagModel.dag_id == DagRun.dag_id)
                .where(DagRun.state.in_(unfinished), (moment > timezone.utcnow()) | is_missed, *live)
            )
            yield found and _full_second(found)
        # A task that was deleted from its DAG and has come back has no state, but waits nevertheless.
        is_back = TaskInstance.state.is_(None) & (TaskReschedule.reschedule_date > timezone.utcnow())
        yield session.scalar(
            select(func.max(TaskReschedule.reschedule_date).label("at"))
            .join(TaskInstance, TaskInstance.id == TaskReschedule.ti_id)
            .join(DagModel, DagModel.dag_id == TaskInstance.dag_id)
            .where((TaskInstance.state == TaskInstanceState.UP_FOR_RESCHEDULE) | is_back, *live)
            .group_by(TaskInstance.id)
            .order_by("at")
            .limit(1)
        )
        waiting = (TaskInstanceState.DEFERRED, TaskInstanceState.AWAITING_INPUT)
        yield session.scalar(select(func.min(TaskInstance.trigger_timeout)).where(TaskInstance.state.in_(waiting)))
        yield session.scalar(select(func.min(Deadline.deadline_time)).where(~Deadline.missed))
    yield from _run_timeouts(quarantine, tick.dag_bag)
    yield from _retry_times(quarantine, tick.dag_bag)


def _full_second(moment: datetime.datetime) -> datetime.datetime:
    """The first full second that is not before the moment."""
    return moment if moment.microsecond == 0 else moment.replace(microsecond=0) + datetime.timedelta(seconds=1)


def _live() -> tuple[ColumnElement[bool], ...]:
    """Which rows of `dag` the scheduler looks at. Of others nothing is due, however long ago its time was."""
    from airflow.models.dag import DagModel

    return DagModel.is_paused.is_(False), DagModel.is_stale.is_(False)


def _run_timeouts(quarantine: Quarantine, bag: DBDagBag) -> Iterator[datetime.datetime | None]:
    """When the oldest running run of each DAG that limits their time exceeds it."""
    from airflow.models.dag import DagModel
    from airflow.models.dagrun import DagRun
    from airflow.utils.session import create_session
    from airflow.utils.state import DagRunState
    from sqlalchemy import select

    from airflow_serverless.quarantine import RUN, run_name

    seen = set[str]()
    with create_session() as session:
        running = (
            select(DagRun)
            .join(DagModel, DagModel.dag_id == DagRun.dag_id)
            .where(DagRun.state == DagRunState.RUNNING, DagRun.start_date.is_not(None), *_live())
            .order_by(DagRun.start_date)
        )
        for run in session.scalars(running):
            name = run_name(run.dag_id, run.run_id)
            if run.dag_id in seen or quarantine.is_held(RUN, name):
                continue
            seen.add(run.dag_id)
            dag = None
            with quarantine.guard(RUN, name):
                dag = bag.get_dag_for_run(dag_run=run, session=session)
            if run.start_date and dag is not None and dag.dagrun_timeout:
                yield run.start_date + dag.dagrun_timeout


def _retry_times(quarantine: Quarantine, bag: DBDagBag) -> Iterator[datetime.datetime | None]:
    from airflow.models.dag import DagModel
    from airflow.models.taskinstance import TaskInstance
    from airflow.utils.session import create_session
    from airflow.utils.state import TaskInstanceState
    from sqlalchemy import select

    from airflow_serverless.quarantine import RUN, run_name

    with create_session() as session:
        waiting = (
            select(TaskInstance)
            .join(DagModel, DagModel.dag_id == TaskInstance.dag_id)
            .where(TaskInstance.state == TaskInstanceState.UP_FOR_RETRY, *_live())
        )
        for ti in session.scalars(waiting.order_by(TaskInstance.end_date).limit(MOST_RETRIES)):
            name = run_name(ti.dag_id, ti.run_id)
            if quarantine.is_held(RUN, name):
                continue
            moment = None
            with quarantine.guard(RUN, name):
                dag = bag.get_dag_for_run(dag_run=ti.dag_run, session=session)
                if dag is not None and dag.has_task(ti.task_id):
                    ti.task = dag.get_task(ti.task_id)
                    moment = ti.next_retry_datetime()
            yield moment
