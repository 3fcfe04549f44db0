"""The Modal App of one environment: image, volume, secrets and function registration; no logic.

The functions are plain functions of this module. `create_app` registers them when deploying; a container only
imports the module and calls the function, so nothing here depends on the settings at import time.
"""

from __future__ import annotations

import json
from importlib.metadata import version
from typing import Any

import modal

from airflow_serverless.config import MOUNT_PATH, SETTINGS_VARIABLE, Settings

PINNED = (
    "modal",
    "apache-airflow-core",
    "apache-airflow-task-sdk",
    "apache-airflow-providers-standard",
    "psycopg2-binary",
    "asyncpg",
    "uv",
)
GATE_IDLE_SECONDS = 2
IDLE_SECONDS = 90
TICK_TIMEOUT_SECONDS = 600
TASK_GRACE_SECONDS = 120
"""A task's own timeout must strike first: Airflow then says so in the log and honours retries."""
LONGEST_TIMEOUT_SECONDS = 24 * 3600


def scheduler_tick() -> dict[str, Any]:
    """Cron: the gate. Spawns `run_tick` if something may be due; never imports Airflow."""
    from airflow_serverless.scheduler.gate import scheduler_tick

    return scheduler_tick()


def run_tick(reason: str) -> dict[str, Any]:
    """One tick of the scheduler, lingering while more work is imminent; returns counters."""
    from airflow_serverless.scheduler.run import run_tick

    return run_tick(reason)


def execute_task(payload: dict[str, Any]) -> dict[str, Any]:
    """Run one attempt of one task, or one callback; returns {"status": …}."""
    from airflow_serverless.executor.worker import execute_task

    return execute_task(payload)


def run_triggers() -> dict[str, Any]:
    """Run the triggers of deferred tasks for as long as there are any; returns {"events": …}."""
    from airflow_serverless.executor.triggerer import run_triggers

    return run_triggers()


def initialize_database() -> dict[str, Any]:
    """Create or migrate the metadata database; returns {"created", "revision", "generation"}."""
    from airflow_serverless.db.initialize import initialize_database

    return initialize_database()


def create_app(settings: Settings, settings_json: str | None = None) -> modal.App:
    """The app of the environment, ready to deploy."""
    image = (
        modal.Image.debian_slim(python_version="3.11")
        .uv_pip_install(*(f"{name}=={version(name)}" for name in PINNED))
        .add_local_python_source("airflow_serverless")
    )
    app = modal.App(settings.app_name, image=image, include_source=False)
    volume = modal.Volume.from_name(settings.volume_name, create_if_missing=True, version=1)
    document = settings_json or json.dumps({"environment": settings.environment})
    secrets = [
        modal.Secret.from_name(settings.secret_name),
        modal.Secret.from_dict({SETTINGS_VARIABLE: document}),
    ]
    heavy: dict[str, Any] = {
        "secrets": secrets,
        "volumes": {MOUNT_PATH: volume},
        "scaledown_window": IDLE_SECONDS,
    }
    task_timeout = min(settings.task_timeout + TASK_GRACE_SECONDS, LONGEST_TIMEOUT_SECONDS)

    app.function(
        secrets=secrets,
        schedule=modal.Period(seconds=settings.interval_seconds),
        max_containers=1,
        timeout=60,
        scaledown_window=GATE_IDLE_SECONDS,
    )(scheduler_tick)
    app.function(max_containers=1, timeout=TICK_TIMEOUT_SECONDS, **heavy)(run_tick)
    app.function(max_containers=settings.parallelism, timeout=task_timeout, **heavy)(execute_task)
    app.function(max_containers=1, timeout=LONGEST_TIMEOUT_SECONDS, **heavy)(run_triggers)
    app.function(max_containers=1, timeout=TICK_TIMEOUT_SECONDS, **heavy)(initialize_database)
    return app
