"""The gate: decides in milliseconds, without Airflow, whether a tick has to run."""

from __future__ import annotations

import time
from typing import Any

from airflow_serverless.config import Settings
from airflow_serverless.executor.launcher import Launcher
from airflow_serverless.scheduler.due import is_due
from airflow_serverless.scheduler.triggers import is_alive
from airflow_serverless.state import State


def scheduler_tick() -> dict[str, Any]:
    """Spawn `run_tick` if something may be due; returns {"spawned", "reason"}."""
    settings = Settings.from_environment()
    state = State.of_environment(settings.dict_name)
    reason = "the wake mark is set" if state.is_awake() else _why(state)
    if reason is None:
        return {"spawned": False, "reason": None}
    state.wake(reason)
    Launcher(settings.app_name).spawn_tick(reason)
    return {"spawned": True, "reason": reason}


def _why(state: State) -> str | None:
    marker, now = state.due(), time.time()
    if marker and marker.get("deferred") and not is_alive(state.triggerer(), now):
        return "the triggerer is gone"
    return is_due(marker, now)
