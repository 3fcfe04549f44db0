"""The gate: decides in milliseconds, without Airflow, whether a tick has to run, and waits for what is due soon."""

from __future__ import annotations

import math
import threading
import time
from typing import Any

from airflow_serverless.config import Settings
from airflow_serverless.executor.launcher import Launcher
from airflow_serverless.scheduler.due import is_due, look_ahead
from airflow_serverless.scheduler.triggers import is_alive
from airflow_serverless.state import State

POLL_SECONDS = 1.0
GRACE_SECONDS = 0.5
"""A tick that lingers for the same due time comes first."""
TAKE_OVER_SECONDS = 3.0
"""Within this, the call that waits has read the marker again."""

_waiting = threading.Lock()
"""Held by the one call that waits: all calls run in one container, at once."""


def scheduler_tick() -> dict[str, Any]:
    """Spawn `run_tick` if something is due, or becomes due before the next cron; returns {"spawned", "reason"}.

    Takes as long as it waits for the due time, at most `look_ahead` seconds. Does not wait if another call does.
    """
    settings = Settings.from_environment()
    state = State.of_environment(settings.dict_name)
    reason = "the wake mark is set" if state.is_awake() else _why(state, time.time())
    if reason is None:
        reason = _wait(state, time.time() + look_ahead(settings.interval_seconds))
    if reason is None:
        return {"spawned": False, "reason": None}
    state.wake(reason)
    Launcher(settings.app_name).spawn_tick(reason)
    return {"spawned": True, "reason": reason}


def _why(state: State, now: float) -> str | None:
    marker = state.due()
    if marker and marker.get("deferred") and not is_alive(state.triggerer(), now):
        return "the triggerer is gone"
    return is_due(marker, now)


def _wait(state: State, until: float) -> str | None:
    """Wait for the next due time, if it is before `until`; returns why a tick should run, or None.

    Returns None when a tick begins, which sets the due time to now. When that tick ends, it spawns a gate if needed.
    """
    awaited = _next_due(state)
    if awaited > until or not _waiting.acquire(timeout=TAKE_OVER_SECONDS):
        return None
    try:
        while awaited <= until:
            comes_at = awaited + GRACE_SECONDS
            threading.Event().wait(max(0.0, min(POLL_SECONDS, comes_at - time.time())))
            next_due, now = _next_due(state), time.time()
            if next_due != awaited and next_due <= now:
                return None
            if next_due == awaited and comes_at <= now:
                return "something is due"
            awaited = next_due
        return None
    finally:
        _waiting.release()


def _next_due(state: State) -> float:
    marker = state.due()
    return math.inf if marker is None or marker["next_due"] is None else marker["next_due"]
