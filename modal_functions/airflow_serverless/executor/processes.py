"""Ending the processes of a task whose call ends before they do."""

from __future__ import annotations

import threading
from contextlib import suppress

GRACE_SECONDS = 2.5
"""Time for `on_kill`. Airflow's own supervisor gives twice that; a container that is told to end may not have it."""


def stop_children() -> None:
    """End all processes below this one: ask them first, as their operators may have work elsewhere to cancel."""
    import psutil

    children = psutil.Process().children(recursive=True)
    try:
        for child in children:
            with suppress(psutil.NoSuchProcess):
                child.terminate()
        psutil.wait_procs(children, timeout=GRACE_SECONDS)
    finally:
        # Also when the wait is interrupted: the container may be told to end while it stops a task.
        for child in children:
            with suppress(psutil.NoSuchProcess):
                child.kill()


def signal_children(is_over: threading.Event) -> None:
    """The same beside a supervisor, who collects their exit statuses and sets `is_over` when it has."""
    import psutil

    children = psutil.Process().children(recursive=True)
    for end in (psutil.Process.terminate, psutil.Process.kill):
        for child in children:
            with suppress(psutil.NoSuchProcess):
                end(child)
        if is_over.wait(GRACE_SECONDS):
            return
