"""The functions that run Airflow, apart from the gate, which must not.

A container imports this module before it runs any of them, and Airflow with it: where snapshots of memory are taken (or
containers are forked), that is paid for once and not by each container.
"""

from __future__ import annotations

import os
from typing import Any


def run_tick(reason: str) -> dict[str, Any]:
    """One tick of the scheduler, lingering while more work is imminent; returns counters."""
    from airflow_serverless.scheduler.run import run_tick

    return run_tick(reason)


def execute_task(payload: dict[str, Any]) -> dict[str, Any]:
    """Run one attempt of one task, one callback, or one installation of packages; returns {"status": …}."""
    from airflow_serverless.worker.execute_task import execute_task

    return execute_task(payload)


def run_triggers() -> dict[str, Any]:
    """Run the triggers of deferred tasks for as long as there are any; returns {"events": …}."""
    from airflow_serverless.worker.triggerer import run_triggers

    return run_triggers()


def initialize_database() -> dict[str, Any]:
    """Create or migrate the metadata database; returns {"created", "migrated", "generation"}."""
    from airflow_serverless.scheduler.initialize import initialize_database

    return initialize_database()


def _preload() -> None:
    from airflow_serverless.airflow_config import configure_airflow
    from airflow_serverless.config import Paths, Settings
    from airflow_serverless.imports import quick_imports
    from airflow_serverless.patched import check_versions

    check_versions()
    configure_airflow(Settings.from_environment(), Paths.from_environment())
    with quick_imports():
        import airflow.jobs.scheduler_job_runner
        import airflow.sdk.execution_time.supervisor
        import airflow.sdk.execution_time.task_runner  # noqa: F401
        from sqlalchemy.orm import configure_mappers

        import airflow_serverless.execution_api.client
        import airflow_serverless.scheduler.run
        import airflow_serverless.worker.execute_task
        import airflow_serverless.xcom.backend  # noqa: F401
        from airflow_serverless.dags.storage import warm_up
        from airflow_serverless.execution_api import in_process

        warm_up()
        in_process.prepare()
        # Each container would do it at its first query, for longer than a small task takes.
        configure_mappers()


# True in containers, and in what containers are forked from, which is not a container yet.
if os.environ.get("MODAL_IS_REMOTE") == "1":
    _preload()
