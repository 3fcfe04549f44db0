"""The longest that a task runs here. Modal ends the container of a call that takes longer, without a word."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from airflow_serverless.config import LONGEST_TIMEOUT_SECONDS
from airflow_serverless.executor.processes import signal_children

LATE_SECONDS = 15.0
"""Airflow's own timeout comes first, which is `task_timeout` for a task without one."""


@dataclass
class Limit:
    """`exceeded` says in which words a task was ended, if it was."""

    seconds: float
    exceeded: str | None = None


@contextmanager
def limited(task_timeout: int, say: Callable[[str], None]) -> Iterator[Limit]:
    """End the processes below this one when they run for longer than the environment allows, and `say` so before.

    `task_timeout` is that of the environment, in seconds: a task may ask for a longer one, which it does not get.
    """
    limit = Limit(min(task_timeout + LATE_SECONDS, LONGEST_TIMEOUT_SECONDS - LATE_SECONDS))
    is_over = threading.Event()

    def watch() -> None:
        if is_over.wait(limit.seconds):
            return
        limit.exceeded = (
            f"Ended after {limit.seconds:g} s, whatever the task's execution_timeout: a task may take "
            f"{task_timeout} s in this environment. Raise executor.task_timeout in its configuration, or split the task"
        )
        say(limit.exceeded)
        signal_children(is_over)

    watcher = threading.Thread(target=watch, name="limit", daemon=True)
    watcher.start()
    try:
        yield limit
    finally:
        is_over.set()
        watcher.join()
