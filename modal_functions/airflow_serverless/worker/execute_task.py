"""`execute_task`: one launch of one task instance, under Airflow's own supervisor."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import modal
from modal.exception import InputCancellation

from airflow_serverless.dags.requirements import active_in_children
from airflow_serverless.state import FAILED, FINAL, RUNNING, STOPPED, SUCCESS, CallNote, TaskEntry
from airflow_serverless.task_log import add_to_log
from airflow_serverless.worker import task_packages
from airflow_serverless.worker.execute_callback import execute_callback
from airflow_serverless.worker.processes import Processes
from airflow_serverless.worker.time_limit import limited
from airflow_serverless.worker.worker import AttemptFailed, Worker

UNSUCCESSFUL = frozenset({"failed", "up_for_retry"})
LOST = "the container was lost while the task ran"


def execute_task(payload: Mapping[str, Any]) -> dict[str, Any]:
    """Run the launch that `payload` describes, unless it is obsolete or another call runs it.

    `payload`: {"key": key of its task entry, "launch", "generation": least generation of the snapshot, "workload":
    Airflow's ExecuteTask}, or what `execute_callback` or `task_packages.install` takes. Returns {"status": SUCCESS,
    FAILED or the reason why nothing was done}.
    """
    worker = Worker.of_process()
    with Processes() as processes:
        if "callback" in payload:
            return execute_callback(worker, payload, processes)
        if "requirements" in payload:
            return task_packages.install(worker, payload)
        return _run_launch(worker, payload, processes)


def _run_launch(worker: Worker, payload: Mapping[str, Any], processes: Processes) -> dict[str, Any]:
    call_id = modal.current_function_call_id()
    entry = worker.state.task(payload["key"])
    if entry is None or entry["launch"] != payload["launch"] or entry["status"] in FINAL:
        return {"status": "obsolete"}
    claim: CallNote = {"ti_id": entry["ti_id"], "launch": entry["launch"], "call_id": call_id, "at": time.time()}
    holder = worker.state.claim(claim)
    if holder is not True:
        if holder["call_id"] != call_id:
            return {"status": "claimed by another call"}
        # The same call comes a second time only if the container of the first time is gone. Its log may be here.
        worker.volume.reload()
        return _report(worker, payload, entry, LOST)
    if not worker.is_wanted(entry):
        return {"status": "obsolete"}
    entry = {**entry, "status": RUNNING, "call_id": call_id, "started_at": time.time()}
    worker.state.update({payload["key"]: entry})
    try:
        succeeded = _run(worker, payload, entry, processes)
    except AttemptFailed as failure:
        return _report(worker, payload, entry, str(failure))
    except InputCancellation:
        # Nothing of the task runs any more: now it may begin anew.
        reason = worker.state.stop_reason(entry["ti_id"], entry["launch"])
        _report(worker, payload, entry, STOPPED, f"The task was stopped: {reason or 'it is no longer wanted'}")
        raise
    except Exception as error:
        _report(worker, payload, entry, f"{type(error).__name__}: {error}")
        raise
    worker.wake("a task ended")
    return {"status": SUCCESS if succeeded else FAILED}


def _report(
    worker: Worker, payload: Mapping[str, Any], entry: TaskEntry, error: str, line: str | None = None
) -> dict[str, Any]:
    """Write the failure of a launch that tells the database nothing more; `line` is for its log, if not the error."""
    key = payload["key"]
    try:
        add_to_log(worker.paths.logs, payload["workload"].get("log_path"), line or error)
        worker.volume.commit()
    finally:
        if not _is_replaced(worker, key, entry):
            worker.state.update({key: {**entry, "status": FAILED, "completed_at": time.time(), "error": error}})
        worker.wake("a task ended")
    return {"status": FAILED, "error": error}


def _is_replaced(worker: Worker, key: str, entry: TaskEntry) -> bool:
    """Whether the task was cleared and launched anew while this launch ran: the entry is that of the new one then."""
    current = worker.state.task(key)
    return current is not None and current["launch"] != entry["launch"]


def _run(worker: Worker, payload: Mapping[str, Any], entry: TaskEntry, processes: Processes) -> bool:
    """Whether the task's process ended well; the API carries what Airflow is to know."""
    from airflow.executors.workloads.task import ExecuteTask
    from airflow.sdk.execution_time.supervisor import supervise_task

    api = worker.open_api(entry["ti_id"], entry["launch"], int(payload["generation"]))
    workload = ExecuteTask.model_validate(payload["workload"])

    def say(words: str) -> None:
        add_to_log(worker.paths.logs, workload.log_path, words)

    failed = True
    try:
        with (
            active_in_children(task_packages.of_task(worker, workload)),
            limited(worker.settings.task_timeout, processes, say) as limit,
        ):
            code = supervise_task(
                ti=workload.ti,  # type: ignore[arg-type]
                bundle_info=workload.bundle_info,
                dag_rel_path=workload.dag_rel_path,
                token=workload.token,
                log_path=workload.log_path,
                client=api.client(),
            )
        failed = code != 0 or api.final_state is None or api.final_state in UNSUCCESSFUL
    finally:
        # A call may be cancelled: its task was cleared or marked, and must not go on beside its successor. One that
        # has failed, or that Airflow has ended, must not go on beside its next try.
        if failed:
            processes.end()
        # Logs and XComs have to be on the volume before anybody is told that they are.
        worker.volume.commit()
    if _is_replaced(worker, payload["key"], entry):
        return False
    error = limit.exceeded or (f"the task's process ended with status {code}" if code != 0 else None)
    status = FAILED if failed else SUCCESS
    api.finish(payload["key"], {**entry, "status": status, "completed_at": time.time(), "error": error})
    return not failed
