"""Compares the tasks that the database holds for running with what the Dict and Modal know of them."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from airflow_serverless.db import tables
from airflow_serverless.db.backend import DatabaseBackend
from airflow_serverless.executor.launcher import Launcher, Outcome
from airflow_serverless.executor.modal_executor import Launch, ModalExecutor
from airflow_serverless.state import (
    FAILED,
    FINAL,
    RUNNING,
    STOPPED,
    Inbox,
    State,
    StopNote,
    TaskEntry,
    heartbeat_key,
    journal_key,
    stop_key,
    task_key,
)

if TYPE_CHECKING:
    from airflow.models.taskinstance import TaskInstance
    from sqlalchemy import Connection
    from sqlalchemy.orm import Session

    from airflow_serverless.scheduler.context import TickContext

SILENCE_SECONDS = 20.0
"""A call without news for so long is asked for its state."""
UNSTARTED_SECONDS = 30.0
"""A launch whose call is unknown for so long is started again; its claim keeps it from running twice."""
ENDING_SECONDS = 180.0
"""How long a worker may take to tell the database that a task has ended; it repeats that while the server is away."""
PARALLEL_REQUESTS = 8
POLL_SECONDS = 0.1
STOP_SECONDS = 10.0
"""Longer than a worker takes to end the processes of a task whose call was cancelled."""
LATELY_SECONDS = 5.0
"""What is queued ahead waits about so long, if the next tasks take as long as the last ones."""
CLEARED = "it was cleared"
KEPT_SECONDS = 3600.0
"""How long the final state of a task stays in the Dict; a call that comes back late finds it there."""


@dataclass(frozen=True)
class Unwanted:
    """A launch that is not wanted any more, and why."""

    entry: TaskEntry
    reason: str


@dataclass
class Reconciled:
    """The result of reconciling running tasks.

    `again`: a result is on its way that could not be judged yet. `unwanted`: entries whose calls have to be stopped.
    `begun`: (DAG, run) of tasks whose workers have started, but not reported it to the database. `explained`: {path of
    a log: why its task ended, which it could not log itself}.
    """

    events: int = 0
    again: bool = False
    unwanted: dict[str, Unwanted] = field(default_factory=dict)
    expired: list[str] = field(default_factory=list)
    begun: set[tuple[str, str]] = field(default_factory=set)
    explained: dict[str, str] = field(default_factory=dict)


def apply_heartbeats(inbox: Inbox) -> None:
    """Write heartbeats into the database before Airflow looks for tasks without one."""
    import datetime

    from airflow.models.taskinstance import TaskInstance
    from airflow.utils.session import create_session
    from airflow.utils.state import TaskInstanceState
    from sqlalchemy import update

    with create_session() as session:
        for beat in inbox.heartbeats.values():
            at = datetime.datetime.fromtimestamp(beat["at"], datetime.UTC)
            session.execute(
                update(TaskInstance)
                .where(
                    TaskInstance.id == _uuid(beat["ti_id"]),
                    # A beat of an earlier launch of the same task instance would make the present one look dead.
                    TaskInstance.external_executor_id == beat["launch"],
                    TaskInstance.state == TaskInstanceState.RUNNING,
                )
                .values(last_heartbeat_at=at)
            )


def reconcile(
    inbox: Inbox, backend: DatabaseBackend, executor: ModalExecutor, launcher: Launcher, state: State
) -> Reconciled:
    """Turn what is known of each active task into executor events, launches, or nothing."""
    from airflow.models.taskinstance import TaskInstance
    from airflow.utils.session import create_session
    from airflow.utils.state import TaskInstanceState
    from sqlalchemy import select

    result = Reconciled()
    active = (TaskInstanceState.QUEUED, TaskInstanceState.RUNNING, TaskInstanceState.RESTARTING)
    silent: dict[str, TaskEntry] = {}
    wanted: set[str] = set()
    now = time.time()
    connection = backend.get_connection()
    try:
        with create_session() as session:
            for ti in session.scalars(select(TaskInstance).where(TaskInstance.state.in_(active))):
                executor.occupy([ti.key])
                key = task_key(ti.dag_id, ti.task_id, ti.run_id, ti.map_index)
                entry = inbox.tasks.get(key)
                launch = ti.external_executor_id or ""
                wanted.add(launch)
                if ti.state == TaskInstanceState.QUEUED and entry and entry["status"] == RUNNING:
                    result.begun.add((ti.dag_id, ti.run_id))
                # The launch alone tells: a task instance that was cleared while it ran has another id by now.
                if entry is None or entry["launch"] != launch:
                    if ti.state == TaskInstanceState.QUEUED:
                        _relaunch(ti, executor, session)
                    elif ti.state == TaskInstanceState.RESTARTING:
                        _report(ti, FAILED, None, executor)
                elif entry["status"] in FINAL:
                    if _has_unapplied(entry, state, connection):
                        result.again = True
                        continue
                    _report(ti, entry["status"], entry.get("error"), executor)
                    result.events += 1
                elif ti.state == TaskInstanceState.RESTARTING:
                    result.unwanted[key] = Unwanted(entry, CLEARED)
                elif _last_news(entry, inbox) < now - SILENCE_SECONDS:
                    silent[key] = entry
            for key, outcome in _ask(silent, inbox, launcher).items():
                _judge(key, silent[key], outcome, state, executor, session, connection, result)
            for key, entry in inbox.tasks.items():
                if entry["status"] not in FINAL and entry["launch"] not in wanted:
                    result.unwanted[key] = Unwanted(entry, _why_unwanted(entry, session))
    finally:
        connection.close()
    for key, entry in inbox.tasks.items():
        if entry["status"] in FINAL and (entry["completed_at"] or 0) < now - KEPT_SECONDS:
            result.expired.append(key)
    return result


def ended_lately(inbox: Inbox) -> int:
    """How many tasks have ended in the last seconds.

    That many may be queued beyond those that can run, for containers that become free before the next round. If tasks
    are long, few have ended lately: then none is queued early, while its priority could still change.
    """
    since = time.time() - LATELY_SECONDS
    return sum((entry["completed_at"] or 0) >= since for entry in inbox.tasks.values())


def standstill(inbox: Inbox, parallelism: int) -> float:
    """For how many seconds no task has begun or ended although another one could run; 0 if none could.

    What is queued meanwhile waits for nothing that is known.
    """
    if sum(entry["status"] == RUNNING for entry in inbox.tasks.values()) >= parallelism:
        return 0.0
    moves = (max(entry.get("started_at", 0.0), entry["completed_at"] or 0.0) for entry in inbox.tasks.values())
    return time.time() - max(moves, default=0.0)


def finished_keys(inbox: Inbox) -> list[str]:
    """Keys of calls, claims, heartbeats and stops of launches that ended before this tick, or that have no entry."""
    current = {(entry["ti_id"], entry["launch"]): entry["status"] for entry in inbox.tasks.values()}
    oldest = time.time() - KEPT_SECONDS
    keys = []
    for notes in (inbox.calls, inbox.claims, inbox.heartbeats, inbox.stops):
        for key, note in notes.items():
            status = current.get((note["ti_id"], note["launch"]))
            if status in FINAL or (status is None and note["at"] < oldest):
                keys.append(key)
    return keys


def _why_unwanted(entry: TaskEntry, session: Session) -> str:
    from airflow.models.taskinstance import TaskInstance
    from airflow.utils.state import State as States
    from airflow.utils.state import TaskInstanceState
    from sqlalchemy import select

    names = {name: entry[name] for name in ("dag_id", "task_id", "run_id", "map_index")}
    ti = session.scalar(select(TaskInstance).filter_by(**names))
    if ti is None:
        return "its run was deleted"
    if ti.state == TaskInstanceState.UP_FOR_RETRY:
        return "the scheduler ended this try, and will start another one"
    if ti.state == TaskInstanceState.REMOVED:
        return "it was deleted from its DAG"
    if ti.state in States.finished:
        return f"it was marked {ti.state}; its run is {ti.get_dagrun(session=session).state}"
    return CLEARED


def stop_unwanted(unwanted: dict[str, Unwanted], inbox: Inbox, context: TickContext, patience: float = 0.0) -> bool:
    """Cancel calls whose tasks were cleared, killed or replaced; True if some have ended by that.

    One that runs ends its processes first and says so itself: only then may the task run again. It is given
    `patience` seconds for that where the next one is about to be started. What ended in the meantime is left as it is.
    """
    state, launcher = context.state, context.launcher
    ended = False
    explained = {}
    for key, launch in unwanted.items():
        entry = launch.entry
        current = state.task(key)
        if current is None or current["launch"] != entry["launch"] or current["status"] in FINAL:
            continue
        if current.get("ending_at", 0.0) > time.time() - ENDING_SECONDS:
            # The database knows the end already, and this entry is about to.
            continue
        if call_id := inbox.call_id(current):
            ti_id, stop = entry["ti_id"], stop_key(entry["ti_id"], entry["launch"])
            if stop not in inbox.stops:
                note: StopNote = {"ti_id": ti_id, "launch": entry["launch"], "at": time.time(), "reason": launch.reason}
                state.update({stop: note})
            launcher.cancel(call_id)
            if not _has_ended(call_id, launcher, patience):
                continue
        if (latest := state.task(key)) is None or latest["launch"] != entry["launch"] or latest["status"] in FINAL:
            # Its worker has said so meanwhile, to the log as well.
            ended = True
            continue
        if latest["status"] == RUNNING and (log := latest.get("log_path")):
            explained[log] = f"The task was stopped: {launch.reason}"
        stopped = {"status": FAILED, "completed_at": time.time(), "error": STOPPED}
        state.update({key: {**latest, **stopped}})
        ended = True
    if explained:
        context.explain(explained)
        context.volume.commit()
    return ended


def _has_ended(call_id: str, launcher: Launcher, patience: float) -> bool:
    until = time.monotonic() + patience
    while launcher.outcome(call_id) is None:
        if time.monotonic() >= until:
            return False
        threading.Event().wait(POLL_SECONDS)
    return True


def _relaunch(ti: TaskInstance, executor: ModalExecutor, session: Session) -> None:
    """Queued in the database, but its start is not known: the tick that queued it did not get that far."""
    from airflow.executors.workloads.task import ExecuteTask

    workload = ExecuteTask.make(ti, generator=executor.jwt_generator)
    if ti.external_executor_id:
        executor.relaunch(Launch(ti.external_executor_id, workload))
    else:
        executor.queue_workload(workload, session)


def _report(ti: TaskInstance, status: str, error: str | None, executor: ModalExecutor) -> None:
    """The task's own report did not change its state, so the end of its call decides."""
    from airflow.utils.state import TaskInstanceState

    # A cleared task counts as ended well once it has stopped: only then does Airflow schedule it anew.
    succeeded = status not in (FAILED,) or ti.state == TaskInstanceState.RESTARTING
    executor.running.discard(ti.key)
    if succeeded:
        executor.success(ti.key, error)
    else:
        executor.fail(ti.key, error)


def _has_unapplied(entry: TaskEntry, state: State, connection: Connection) -> bool:
    """Whether a launch that has ended left a journal record that is not in the database yet.

    Only a launch that ended by itself says how many records it wrote. For others, look for the next one in the Dict.
    """
    offset, _ = tables.get_offset(connection, entry["ti_id"], entry["launch"])
    if "journals" in entry:
        return offset < entry["journals"]
    return state.has_journal(journal_key(entry["ti_id"], entry["launch"], offset))


def _last_news(entry: TaskEntry, inbox: Inbox) -> float:
    beat = inbox.heartbeats.get(heartbeat_key(entry["ti_id"]))
    beaten_at = beat["at"] if beat and beat["launch"] == entry["launch"] else 0.0
    return max(entry["queued_at"], entry.get("started_at", 0.0), beaten_at)


def _ask(silent: dict[str, TaskEntry], inbox: Inbox, launcher: Launcher) -> dict[str, Outcome | str | None]:
    """{key: how the call ended, None if it has not, or "unknown" if no call is known}."""

    def ask(entry: TaskEntry) -> Outcome | str | None:
        call_id = inbox.call_id(entry)
        return launcher.outcome(call_id) if call_id else "unknown"

    with ThreadPoolExecutor(PARALLEL_REQUESTS) as pool:
        return dict(zip(silent, pool.map(ask, silent.values()), strict=True))


def _judge(
    key: str,
    entry: TaskEntry,
    outcome: Outcome | str | None,
    state: State,
    executor: ModalExecutor,
    session: Session,
    connection: Connection,
    result: Reconciled,
) -> None:
    from airflow.models.taskinstance import TaskInstance

    if outcome is None:
        return
    ti = session.get(TaskInstance, _uuid(entry["ti_id"]))
    if ti is None:
        return
    if isinstance(outcome, str):
        if entry["queued_at"] < time.time() - UNSTARTED_SECONDS:
            _relaunch(ti, executor, session)
        return
    current = state.task(key)
    if current is None or current["status"] in FINAL or _has_unapplied(current, state, connection):
        # It ended between the look at the Dict and the question: the next look will find its journal too.
        result.again = True
        return
    error = outcome.error or "its call ended without a result"
    if log := entry.get("log_path"):
        result.explained[log] = f"The task's call ended without a result: {error}"
    _report(ti, FAILED, error, executor)
    lost = {**current, "status": FAILED, "completed_at": time.time(), "error": error}
    state.update({key: lost})
    result.events += 1


def _uuid(text: str) -> object:
    import uuid

    return uuid.UUID(text)
