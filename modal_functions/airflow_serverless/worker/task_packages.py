"""The packages that a DAG file asks for, where its tasks run."""

from __future__ import annotations

import time
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_serverless.dags import requirements
from airflow_serverless.dags.requirements import Environments, RequirementsError
from airflow_serverless.state import FAILED, SUCCESS, PackagesNote, packages_key
from airflow_serverless.worker.worker import AttemptFailed, Worker

if TYPE_CHECKING:
    from airflow.executors.workloads.task import ExecuteTask


def of_file(worker: Worker, path: str | PathLike[str]) -> Path | None:
    """Where the packages of a file in the DAG folder are, installed now if need be; None if it asks for none.

    Raises RequirementsError.
    """
    file = worker.paths.dags / path
    asked = requirements.declared(file, worker.paths.dags) if file.is_file() else ()
    return Environments(worker.paths.packages).provide(asked) if asked else None


def of_task(worker: Worker, workload: ExecuteTask) -> Path | None:
    """The same for a task. Raises AttemptFailed with the resolver's words."""
    try:
        return of_file(worker, workload.dag_rel_path)
    except RequirementsError as error:
        raise AttemptFailed(f"The requirements of {workload.dag_rel_path} cannot be installed: {error}") from error


def install(worker: Worker, payload: Mapping[str, Any]) -> dict[str, Any]:
    """Install `payload["requirements"]` for the scheduler, which parses no file before; returns {"status", "error"}."""
    asked = tuple(payload["requirements"])
    name = Environments.name(asked)
    note: PackagesNote = {"name": name, "status": SUCCESS, "at": time.time(), "error": None, "attempts": 0}
    worker.volume.reload()
    try:
        Environments(worker.paths.packages).provide(asked)
        worker.volume.commit()
    except RequirementsError as error:
        note = {**note, "status": FAILED, "error": str(error), "attempts": payload.get("attempts", 0) + 1}
    worker.state.update({packages_key(name): {**note, "at": time.time()}})
    worker.wake("packages were installed")
    return {"status": note["status"], "error": note["error"]}
