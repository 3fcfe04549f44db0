"""`execute_task`: one launch of one task instance, under Airflow's own supervisor."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import modal

from airflow_serverless.config import Paths, Settings, configure_airflow
from airflow_serverless.executor.launcher import Launcher
from airflow_serverless.state import FAILED, FINAL, RUNNING, SUCCESS, CallNote, State, TaskEntry

UNSUCCESSFUL = frozenset({"failed", "up_for_retry"})
SNAPSHOT_ATTEMPTS = 10
SNAPSHOT_WAIT_SECONDS = 1.0


class AttemptFailed(Exception):
    """The attempt ended without a result of its own; the scheduler decides about a retry."""


@dataclass(frozen=True)
class Worker:
    """What a warm container keeps between tasks."""

    settings: Settings
    paths: Paths
    state: State
    volume: modal.Volume
    launcher: Launcher


@cache
def _worker() -> Worker:
    settings = Settings.from_environment()
    paths = Paths.from_environment()
    configure_airflow(settings, paths)
    return Worker(
        settings,
        paths,
        State.of_environment(settings.dict_name),
        modal.Volume.from_name(settings.volume_name),
        Launcher(settings.app_name),
    )


def execute_task(payload: Mapping[str, Any]) -> dict[str, Any]:
    """Run the launch that `payload` describes, unless it is obsolete or another call runs it.

    `payload`: {"key": key of its task entry, "launch", "generation": least generation of the snapshot, "workload":
    Airflow's ExecuteTask}. Returns {"status": SUCCESS, FAILED or the reason why nothing was done}.
    """
    worker = _worker()
    call_id = modal.current_function_call_id()
    entry = worker.state.task(payload["key"])
    if entry is None or entry["launch"] != payload["launch"] or entry["status"] in FINAL:
        return {"status": "obsolete"}
    claim: CallNote = {"ti_id": entry["ti_id"], "launch": entry["launch"], "call_id": call_id, "at": time.time()}
    holder = worker.state.claim(claim)
    if holder is not True:
        if holder["call_id"] != call_id:
            return {"status": "claimed by another call"}
        # The same call comes a second time only if the container of the first time is gone.
        return _report(worker, payload["key"], entry, FAILED, "the container was lost while the task ran")
    entry = {**entry, "status": RUNNING, "call_id": call_id, "started_at": time.time()}
    worker.state.update({payload["key"]: entry})
    try:
        succeeded = _run(worker, payload, entry)
    except AttemptFailed as failure:
        return _report(worker, payload["key"], entry, FAILED, str(failure))
    except Exception as error:
        _report(worker, payload["key"], entry, FAILED, f"{type(error).__name__}: {error}")
        raise
    _wake(worker)
    return {"status": SUCCESS if succeeded else FAILED}


def _report(worker: Worker, key: str, entry: TaskEntry, status: str, error: str) -> dict[str, Any]:
    """Write the final state of a launch that leaves no journal."""
    worker.state.update({key: {**entry, "status": status, "completed_at": time.time(), "error": error}})
    _wake(worker)
    return {"status": status, "error": error}


def _wake(worker: Worker) -> None:
    if worker.state.wake("a task ended"):
        worker.launcher.spawn_tick("a task ended")


def _run(worker: Worker, payload: Mapping[str, Any], entry: TaskEntry) -> bool:
    """Whether the task's process ended well; the journal carries what Airflow is to know."""
    from airflow.executors.workloads.task import ExecuteTask
    from airflow.sdk.execution_time.supervisor import supervise_task

    from airflow_serverless.executor import execution_api
    from airflow_serverless.executor.journal import JournalWriter

    if worker.settings.database_type == "sqlite":
        _fetch_snapshot(worker, int(payload["generation"]))
    execution_api.hasten_supervisor_exit()
    journal = JournalWriter(execution_api.transport(), worker.state, entry["ti_id"], entry["launch"])
    workload = ExecuteTask.model_validate(payload["workload"])
    try:
        code = supervise_task(
            ti=workload.ti,  # type: ignore[arg-type]
            bundle_info=workload.bundle_info,
            dag_rel_path=workload.dag_rel_path,
            token=workload.token,
            log_path=workload.log_path,
            client=execution_api.client(journal),
        )
    finally:
        # Logs and XComs have to be on the volume before anybody is told that they are.
        worker.volume.commit()
    failed = code != 0 or journal.final_state in UNSUCCESSFUL
    error = f"the task's process ended with status {code}" if code != 0 else None
    status = FAILED if failed else SUCCESS
    journal.finish({**entry, "status": status, "completed_at": time.time(), "error": error})
    return not failed


def _fetch_snapshot(worker: Worker, generation: int) -> None:
    """Make a private copy of a snapshot that knows the task; an older one would refuse to let it start."""
    from airflow_serverless.db.sqlite_backend import copy_snapshot, snapshot_version

    found = 0
    for attempt in range(SNAPSHOT_ATTEMPTS):
        if attempt:
            threading.Event().wait(SNAPSHOT_WAIT_SECONDS)
        worker.volume.reload()
        try:
            found, _ = snapshot_version(worker.paths.published_database)
        except sqlite3.OperationalError:
            continue
        if found >= generation:
            copy_snapshot(worker.paths.published_database, worker.paths.local_database)
            return
    raise AttemptFailed(f"the volume shows generation {found} of the database, not {generation}")
