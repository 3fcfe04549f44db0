"""Has the packages installed that DAG files ask for, in calls of their own: a tick does not wait for them."""

from __future__ import annotations

import time
from collections.abc import Mapping

from airflow_serverless.executor.launcher import Launcher
from airflow_serverless.state import QUEUED, Inbox, PackagesNote, State, packages_key

GIVEN_UP_SECONDS = 600.0
"""After this an installation that was not heard of, or that failed, is tried again."""


def install(missing: Mapping[str, tuple[str, ...]], inbox: Inbox, state: State, launcher: Launcher) -> None:
    """Start the installations that are not under way."""
    for name, requirements in missing.items():
        key = packages_key(name)
        known = inbox.packages.get(key)
        if known is not None and known["status"] == QUEUED and not _is_old(known):
            continue
        note: PackagesNote = {"name": name, "status": QUEUED, "at": time.time(), "error": None}
        state.update({key: note})
        launcher.spawn_task({"requirements": list(requirements)})


def expired(inbox: Inbox) -> list[str]:
    """Keys of notes that say nothing any more."""
    return [key for key, note in inbox.packages.items() if _is_old(note)]


def _is_old(note: PackagesNote) -> bool:
    return note["at"] < time.time() - GIVEN_UP_SECONDS
