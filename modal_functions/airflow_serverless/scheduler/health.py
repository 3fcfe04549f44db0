"""Tells those who look from outside what the scheduler could not do: the entry `health` in the Dict.

Rounds that succeed write it when it changes, ticks that fail always. A tick that is killed writes nothing, and its due
time stays in the past.
"""

from __future__ import annotations

import errno
import time
import traceback

from airflow_serverless.db.backend import DatabaseDamaged, DatabaseError, DatabaseNewer, LockLost, NotInitialized
from airflow_serverless.quarantine import Quarantine
from airflow_serverless.state import Failure, Health, HealthReason, State

MOST_SHOWN = 20
MOST_TEXT = 4_000
"""Characters of a traceback that are kept: the last ones."""
PHRASES: tuple[tuple[str, HealthReason], ...] = (
    ("malformed", "database_damaged"),
    ("not a database", "database_damaged"),
    ("readonly database", "database_read_only"),
    ("read-only transaction", "database_read_only"),
    ("is full", "disk_full"),
    ("no space left", "disk_full"),
    ("is locked", "database_locked"),
    ("lock timeout", "database_locked"),
)
"""What SQLite and PostgreSQL say in errors that come through SQLAlchemy."""
ERRORS: dict[int | None, HealthReason] = {
    errno.EROFS: "database_read_only",
    errno.EACCES: "database_read_only",
    errno.EPERM: "database_read_only",
    errno.ENOSPC: "disk_full",
    errno.EDQUOT: "disk_full",
}


def report(state: State, known: Health | None, quarantine: Quarantine) -> None:
    """Write how a round ended that has done its work, if that is news. `known`: the entry when it began."""
    found = sorted((one.kind, one.name, one.traceback.strip().rpartition("\n")[2]) for one in quarantine.records())
    shown = [{"kind": kind, "name": name, "error": error} for kind, name, error in found[:MOST_SHOWN]]
    health: Health = {"at": time.time(), "failure": None, "quarantined": shown, "quarantined_count": len(found)}
    if known is None or {**health, "at": None} != {**known, "at": None}:
        state.set_health(health)


def report_failure(state: State, error: BaseException) -> None:
    """Write why a tick failed. That another process has taken over is not a failure."""
    if isinstance(error, LockLost) or not isinstance(error, Exception):
        return
    reason, message = explain(error)
    known = state.health()
    health: Health = known or {"at": 0.0, "failure": None, "quarantined": [], "quarantined_count": 0}
    text = "".join(traceback.format_exception(error))[-MOST_TEXT:]
    failure: Failure = {"reason": reason, "message": message, "traceback": text}
    state.set_health({**health, "at": time.time(), "failure": failure})


def explain(error: Exception) -> tuple[HealthReason, str]:
    """Why a tick failed: for programs, and for people."""
    from sqlalchemy.exc import DBAPIError

    if isinstance(error, DatabaseDamaged):
        return "database_damaged", str(error)
    if isinstance(error, DatabaseNewer):
        return "database_newer", str(error)
    if isinstance(error, NotInitialized):
        return "database_missing", str(error)
    cause = error.orig if isinstance(error, DBAPIError) else error
    message = f"{type(error).__name__}: {cause}"
    if isinstance(cause, OSError) and cause.errno in ERRORS:
        return ERRORS[cause.errno], message
    if isinstance(error, DBAPIError):
        words = str(cause).lower()
        for phrase, reason in PHRASES:
            if phrase in words:
                return reason, message
    is_of_database = isinstance(error, DBAPIError | DatabaseError)
    return "database_unavailable" if is_of_database else "tick_failed", message
