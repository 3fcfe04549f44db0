"""Carries out one callback, under a supervisor of Airflow's as a task has one."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import modal

from airflow_serverless.config import BUNDLE
from airflow_serverless.dags.requirements import active_in_children
from airflow_serverless.state import CALLBACK, FAILED, FINAL, RUNNING, SUCCESS, CallbackEntry, CallNote, callback_key
from airflow_serverless.worker import task_packages

if TYPE_CHECKING:
    from airflow.callbacks.callback_requests import CallbackRequest
    from airflow.executors.workloads import ExecuteCallback
    from airflow.sdk.api.client import Client

    from airflow_serverless.execution_api.task_api import TaskApi
    from airflow_serverless.worker.processes import Processes
    from airflow_serverless.worker.worker import Worker

LOGS = "callbacks"


def execute_callback(worker: Worker, payload: Mapping[str, Any], processes: Processes) -> dict[str, Any]:
    """Run the callback of an id, unless it has ended or another call has begun it.

    `payload`: {"callback": its id, "generation": least generation of the snapshot, and either "workload": Airflow's
    ExecuteCallback, or "class" and "request": a request to the DAG processor}. Returns {"status": …} like a task.
    """
    entry = worker.state.callback(payload["callback"])
    if entry is None or entry["status"] in FINAL:
        return {"status": "obsolete"}
    call_id = modal.current_function_call_id()
    claim: CallNote = {"ti_id": entry["id"], "launch": CALLBACK, "call_id": call_id, "at": time.time()}
    holder = worker.state.claim(claim)
    if holder is not True:
        if holder["call_id"] != call_id:
            return {"status": "claimed by another call"}
        return _end(worker, entry, "the container was lost while the callback ran")
    entry = {**entry, "status": RUNNING}
    worker.state.update({callback_key(entry["id"]): entry})
    try:
        api = worker.open_api(entry["id"], CALLBACK, int(payload["generation"]))
        error = _run(payload, worker, api.client())
        if error:
            processes.end()
        worker.volume.commit()
    except BaseException as failure:
        processes.end()
        if not isinstance(failure, Exception):
            raise
        _end(worker, entry, f"{type(failure).__name__}: {failure}")
        raise
    return _end(worker, entry, error, api)


def _end(worker: Worker, entry: CallbackEntry, error: str | None, api: TaskApi | None = None) -> dict[str, Any]:
    status = FAILED if error else SUCCESS
    key = callback_key(entry["id"])
    ended: CallbackEntry = {**entry, "status": status, "completed_at": time.time(), "error": error}
    if api is None:
        worker.state.update({key: ended})
    else:
        api.finish(key, ended)
    worker.wake("a callback ended")
    return {"status": status, "error": error}


def _run(payload: Mapping[str, Any], worker: Worker, client: Client) -> str | None:
    """What went wrong outside of the callback itself, whose own errors are in its log, as with Airflow."""
    from airflow.callbacks import callback_requests
    from airflow.executors.workloads import ExecuteCallback

    if "workload" in payload:
        workload = ExecuteCallback.model_validate(payload["workload"])
        with active_in_children(task_packages.of_file(worker, workload.dag_rel_path)):
            return _run_for_executor(workload, client)
    request = getattr(callback_requests, payload["class"]).from_json(payload["request"])
    with active_in_children(task_packages.of_file(worker, request.filepath)):
        return _run_for_dag_processor(payload["callback"], request, worker, client)


def _run_for_executor(workload: ExecuteCallback, client: Client) -> str | None:
    from airflow.sdk.execution_time.callback_supervisor import supervise_callback

    try:
        supervise_callback(
            id=workload.callback.id,
            callback_path=workload.callback.data.get("path", ""),
            callback_kwargs=workload.callback.data.get("kwargs", {}),
            dag_rel_path=workload.dag_rel_path,
            log_path=workload.log_path,
            bundle_info=workload.bundle_info,
            client=client,
        )
    except RuntimeError as error:
        return str(error)
    return None


def _run_for_dag_processor(name: str, request: CallbackRequest, worker: Worker, client: Client) -> str | None:
    import uuid
    from typing import cast

    import structlog
    from airflow.dag_processing.processor import DagFileProcessorProcess
    from airflow.sdk.log import logging_processors

    log = worker.paths.logs / LOGS / f"{name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as file:
        logger = structlog.wrap_logger(structlog.BytesLogger(file), processors=logging_processors(json_output=True))
        process = DagFileProcessorProcess.start(
            id=uuid.uuid4(),
            path=worker.paths.dags / request.filepath,
            bundle_path=worker.paths.dags,
            bundle_name=BUNDLE,
            dag_file_rel_path=request.filepath,
            callbacks=[request],
            client=client,
            logger=cast("structlog.typing.FilteringBoundLogger", logger.bind(callback=name)),
            logger_filehandle=file,
        )
        while not process.is_ready:
            process._service_subprocess(1.0)
        code = process._exit_code
        process.close()
    return f"the process of the callback ended with status {code}" if code else None
