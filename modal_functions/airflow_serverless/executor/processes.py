"""Ending the processes of a task whose call ends before they do."""

from __future__ import annotations

from contextlib import suppress

GRACE_SECONDS = 5.0
"""What Airflow's own supervisor gives a task for its `on_kill`."""


def stop_children() -> None:
    """End all processes below this one: ask them first, as their operators may have work elsewhere to cancel."""
    import psutil

    children = psutil.Process().children(recursive=True)
    for child in children:
        with suppress(psutil.NoSuchProcess):
            child.terminate()
    _, alive = psutil.wait_procs(children, timeout=GRACE_SECONDS)
    for child in alive:
        with suppress(psutil.NoSuchProcess):
            child.kill()
    psutil.wait_procs(alive, timeout=GRACE_SECONDS)
