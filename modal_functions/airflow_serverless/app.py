"""The Modal App of one environment: image, volume, secrets and function registration; no logic.

The functions are plain functions of this module and of `functions`. `create_app` registers them when deploying; a
container only imports the module of its function and calls it.
"""

from __future__ import annotations

import json
from importlib.metadata import version
from secrets import token_urlsafe
from typing import Any

import modal

from airflow_serverless.config import LONGEST_TIMEOUT_SECONDS, MOUNT_PATH, SETTINGS_VARIABLE, Settings
from airflow_serverless.patched import CHECKED

PINNED = (
    *CHECKED,
    "modal",
    "apache-airflow-providers-standard",
    "psycopg2-binary",
    "asyncpg",
    "uv",
)
GATES = 20
"""At once, in one container, so that no cron waits for a gate that waits."""
GATE_TIMEOUT_SECONDS = 360
"""More than the longest wait of a gate."""
GATE_IDLE_SECONDS = 2
IDLE_SECONDS = 90
TICK_TIMEOUT_SECONDS = 600
TASK_GRACE_SECONDS = 120
"""A task's own timeout must strike first: Airflow then says so in the log and honours retries."""
UI_REQUESTS = 100
"""At once, in one container."""
UI_REQUEST_SECONDS = 300
UI_START_SECONDS = 300
UI_IDLE_SECONDS = 300
"""A page that is open asks every few seconds; one that nobody has open costs no more than this."""


def scheduler_tick() -> dict[str, Any]:
    """Cron: the gate. Spawns `run_tick` if something may be due; never imports Airflow."""
    from airflow_serverless.scheduler.gate import scheduler_tick

    return scheduler_tick()


def query_metadata(sql: str, parameters: list[Any]) -> list[dict[str, Any]]:
    """Read PostgreSQL for the daemon; returns the selected rows. Never imports Airflow."""
    from airflow_serverless.db.query import query_metadata

    return query_metadata(sql, parameters)


def create_app(settings: Settings, settings_json: str | None = None) -> modal.App:
    """The app of the environment, ready to deploy."""
    # Not imported at the top: the containers of the two functions above must not import Airflow.
    from airflow_serverless import functions

    app = modal.App(settings.app_name, image=_image(), include_source=False)
    volume = modal.Volume.from_name(settings.volume_name, create_if_missing=True, version=1)
    secrets = _secrets(settings, settings_json or json.dumps({"environment": settings.environment}))
    heavy: dict[str, Any] = {
        "secrets": secrets,
        "volumes": {MOUNT_PATH: volume},
        "scaledown_window": IDLE_SECONDS,
        "enable_memory_snapshot": True,
    }
    task_timeout = min(settings.task_timeout + TASK_GRACE_SECONDS, LONGEST_TIMEOUT_SECONDS)

    gate: Any = modal.concurrent(max_inputs=GATES)(scheduler_tick)
    app.function(
        secrets=secrets,
        schedule=modal.Period(seconds=settings.interval_seconds),
        max_containers=1,
        timeout=GATE_TIMEOUT_SECONDS,
        scaledown_window=GATE_IDLE_SECONDS,
    )(gate)
    app.function(max_containers=1, timeout=TICK_TIMEOUT_SECONDS, **heavy)(functions.run_tick)
    app.function(max_containers=settings.parallelism, timeout=task_timeout, **heavy)(functions.execute_task)
    app.function(max_containers=1, timeout=LONGEST_TIMEOUT_SECONDS, **heavy)(functions.run_triggers)
    app.function(max_containers=1, timeout=TICK_TIMEOUT_SECONDS, **heavy)(functions.initialize_database)
    if settings.database_type == "postgres":
        app.function(secrets=secrets, max_containers=1, timeout=60, scaledown_window=IDLE_SECONDS)(query_metadata)
    return app


def create_ui_app(settings: Settings, settings_json: str, token: str) -> tuple[modal.App, modal.Function]:
    """The app of the environment's UI, to be run for a while, and its function. `token` is what opens the page."""
    from airflow_serverless.ui import server

    app = modal.App(settings.ui_app_name, image=_image(), include_source=False)
    session: dict[str, str | None] = {
        server.TOKEN_VARIABLE: token,
        # What the UI signs is of no use to anybody when it is gone.
        "AIRFLOW__API__SECRET_KEY": token_urlsafe(64),
        "AIRFLOW__API_AUTH__JWT_SECRET": token_urlsafe(64),
    }
    serve_ui: Any = modal.concurrent(max_inputs=UI_REQUESTS)(modal.asgi_app()(server.serve_ui))
    function: modal.Function = app.function(
        secrets=[*_secrets(settings, settings_json), modal.Secret.from_dict(session)],
        volumes={MOUNT_PATH: modal.Volume.from_name(settings.volume_name)},
        max_containers=1,
        timeout=UI_REQUEST_SECONDS,
        startup_timeout=UI_START_SECONDS,
        scaledown_window=UI_IDLE_SECONDS,
    )(serve_ui)
    return app, function


def _image() -> modal.Image:
    return (
        modal.Image.debian_slim(python_version="3.11")
        .uv_pip_install(*(f"{name}=={version(name)}" for name in PINNED))
        .add_local_python_source("airflow_serverless")
    )


def _secrets(settings: Settings, document: str) -> list[modal.Secret]:
    return [
        modal.Secret.from_name(settings.secret_name),
        modal.Secret.from_dict({SETTINGS_VARIABLE: document}),
    ]
