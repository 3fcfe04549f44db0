"""Has the packages installed that DAG files ask for, in calls of their own: a tick does not wait for them."""

from __future__ import annotations

import time
from collections.abc import Mapping

from airflow_serverless.executor.launcher import Launcher
from airflow_serverless.state import FAILED, QUEUED, Inbox, PackagesNote, State, packages_key

GIVEN_UP_SECONDS = 600.0
"""After this an installation that was not heard of is tried again."""
FIRST_RETRY_SECONDS = 60.0
LONGEST_RETRY_SECONDS = 6 * 3600.0
"""Between two attempts; what lies between doubles."""


def install(missing: Mapping[str, tuple[str, ...]], inbox: Inbox, state: State, launcher: Launcher) -> None:
    """Start the installations that are not under way."""
    for name, requirements in missing.items():
        key = packages_key(name)
        known = inbox.packages.get(key)
        if known is not None and known["status"] == QUEUED and not _is_old(known):
            continue
        attempts = known.get("attempts", 0) if known is not None else 0
        note: PackagesNote = {"name": name, "status": QUEUED, "at": time.time(), "error": None, "attempts": attempts}
        state.update({key: note})
        launcher.spawn_task({"requirements": list(requirements), "attempts": attempts})


def retry_at(note: PackagesNote) -> float:
    """When an installation that has failed is tried again, in seconds since the epoch."""
    doubled = FIRST_RETRY_SECONDS * 2 ** min(max(note.get("attempts", 1), 1) - 1, 30)
    return note["at"] + min(doubled, LONGEST_RETRY_SECONDS)


def expired(inbox: Inbox) -> list[str]:
    """Keys of notes that say nothing any more."""
    return [key for key, note in inbox.packages.items() if _is_old(note)]


def _is_old(note: PackagesNote) -> bool:
    said_at = retry_at(note) if note["status"] == FAILED else note["at"]
    return said_at < time.time() - GIVEN_UP_SECONDS
