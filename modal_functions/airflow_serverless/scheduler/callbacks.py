"""Callbacks that do not run in the process of a task: those of DAG runs, of deadlines, and of tasks that were lost.

Airflow keeps each as a row until somebody has carried it out. Here that is a call of the function that runs tasks, once
or not at all: the row goes when the call has ended, and what a tick did not get to start the next one starts.
"""

from __future__ import annotations

import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from airflow_serverless.db import tables
from airflow_serverless.db.backend import DatabaseBackend
from airflow_serverless.executor.launcher import Launcher
from airflow_serverless.quarantine import CALLBACK_ROW, Quarantine
from airflow_serverless.scheduler.reconcile import SILENCE_SECONDS, UNSTARTED_SECONDS
from airflow_serverless.state import (
    CALLBACK,
    FAILED,
    FINAL,
    QUEUED,
    SUCCESS,
    CallbackEntry,
    CallNote,
    Inbox,
    State,
    call_key,
    callback_key,
    claim_key,
)

if TYPE_CHECKING:
    from airflow.models.callback import Callback
    from sqlalchemy.orm import Session

MOST_AT_ONCE = 16


@dataclass
class Settled:
    """`keys` of Dict entries to remove once this is committed; `again`: an end is known whose journal is not."""

    keys: list[str] = field(default_factory=list)
    again: bool = False


@dataclass(frozen=True)
class CallbackLaunch:
    """A callback to be started; `payload` is what its call needs to know, beside its id and the generation."""

    entry: CallbackEntry
    payload: dict[str, Any]


def settle(inbox: Inbox, backend: DatabaseBackend, launcher: Launcher) -> Settled:
    """Write the ends of callbacks into the database."""
    from airflow.utils.session import create_session

    settled = Settled()
    connection = backend.get_connection()
    try:
        with create_session() as session:
            for entry in inbox.callbacks.values():
                end = _end(entry, inbox, launcher)
                if end is None:
                    continue
                if tables.get_offset(connection, entry["id"], CALLBACK)[0] < end.get("journals", 0):
                    settled.again = True
                    continue
                _close(end, session)
                notes = (claim_key(entry["id"], CALLBACK), call_key(entry["id"], CALLBACK))
                settled.keys += [callback_key(entry["id"]), *notes]
    finally:
        connection.close()
    return settled


def _end(entry: CallbackEntry, inbox: Inbox, launcher: Launcher) -> CallbackEntry | None:
    """The entry with its final state, or None while it has none. A call that ended without a result has failed."""
    if entry["status"] in FINAL:
        return entry
    if entry["queued_at"] > time.time() - SILENCE_SECONDS:
        return None
    call_id = inbox.call_of(entry["id"], CALLBACK)
    outcome = launcher.outcome(call_id) if call_id else None
    if outcome is None:
        return None
    return {**entry, "status": FAILED, "error": outcome.error or "its call ended without a result"}


def _close(entry: CallbackEntry, session: Session) -> None:
    from airflow.models.callback import Callback
    from airflow.utils.state import CallbackState

    callback = session.get(Callback, uuid.UUID(entry["id"]))
    if callback is None:
        return
    if entry["kind"] == "dag":
        session.delete(callback)
        return
    callback.state = CallbackState.SUCCESS if entry["status"] == SUCCESS else CallbackState.FAILED
    callback.output = entry.get("error")


def pending(inbox: Inbox, quarantine: Quarantine) -> list[CallbackLaunch]:
    """What the database has and the Dict does not know of, or knows of for long without a call."""
    from airflow.models.callback import Callback, CallbackType
    from airflow.utils.session import create_session
    from airflow.utils.state import CallbackState
    from sqlalchemy import and_, or_, select

    oldest = time.time() - UNSTARTED_SECONDS
    known = {
        entry["id"]
        for entry in inbox.callbacks.values()
        if entry["queued_at"] > oldest or inbox.call_of(entry["id"], CALLBACK) or entry["status"] in FINAL
    }
    waiting = or_(
        Callback.type == CallbackType.DAG_PROCESSOR,
        and_(Callback.type == CallbackType.EXECUTOR, Callback.state == CallbackState.QUEUED),
    )
    with create_session() as session:
        rows = session.scalars(select(Callback).where(waiting).order_by(Callback.priority_weight.desc()))
        launches = []
        for row in rows:
            if str(row.id) in known or quarantine.is_held(CALLBACK_ROW, str(row.id)):
                continue
            with quarantine.guard(CALLBACK_ROW, str(row.id)):
                launches.append(_launch(row, session))
        return [launch for launch in launches if launch is not None]


def _launch(callback: Callback, session: Session) -> CallbackLaunch | None:
    from airflow.executors.workloads import ExecuteCallback
    from airflow.models.callback import DagProcessorCallback
    from airflow.models.dagrun import DagRun
    from airflow.utils.state import CallbackState

    entry: CallbackEntry = {
        "id": str(callback.id),
        "kind": "dag" if isinstance(callback, DagProcessorCallback) else "executor",
        "status": QUEUED,
        "queued_at": time.time(),
        "completed_at": None,
    }
    if isinstance(callback, DagProcessorCallback):
        return CallbackLaunch(entry, {"class": callback.data["req_class"], "request": callback.data["req_data"]})
    run = session.get(DagRun, callback.data["dag_run_id"])
    if run is None:
        callback.state, callback.output = CallbackState.FAILED, "its DAG run was deleted"
        return None
    workload = ExecuteCallback.make(callback=callback, dag_run=run)
    return CallbackLaunch(entry, {"workload": workload.model_dump(mode="json")})


def start(launches: list[CallbackLaunch], generation: int, state: State, launcher: Launcher) -> None:
    """Enter callbacks into the Dict, start them, and note their calls. Their rows have to be committed."""
    if not launches:
        return
    state.update({callback_key(launch.entry["id"]): launch.entry for launch in launches})

    def spawn(launch: CallbackLaunch) -> tuple[str, CallNote]:
        callback_id = launch.entry["id"]
        payload = {"callback": callback_id, "generation": generation, **launch.payload}
        call_id = launcher.spawn_task(payload)
        note: CallNote = {"ti_id": callback_id, "launch": CALLBACK, "call_id": call_id, "at": time.time()}
        return call_key(callback_id, CALLBACK), note

    with ThreadPoolExecutor(min(MOST_AT_ONCE, len(launches))) as pool:
        state.update(dict(pool.map(spawn, launches)))
