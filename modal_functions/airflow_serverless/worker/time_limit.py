"""The longest that a task runs here. Modal ends the container of a call that takes longer, silently."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_serverless.config import LONGEST_TIMEOUT_SECONDS
from airflow_serverless.worker.processes import Processes

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator, Context

LATE_SECONDS = 15.0
"""A timeout in the task's process comes first, which is `task_timeout` for a task without one."""
TIMEOUTS = {
    "Timeout,": "Timed out after {:g} s, the task's execution_timeout",
    "Task timeout,": "Timed out after {:g} s, executor.task_timeout of this environment",
}
"""{how the message of a timeout of Airflow begins: what the log of the task says}."""


@dataclass
class Limit:
    """`exceeded` says in which words a task was ended, if it was."""

    seconds: float
    exceeded: str | None = None


@contextmanager
def limited(task_timeout: int, processes: Processes, say: Callable[[str], None]) -> Iterator[Limit]:
    """End the processes of a task when they run for longer than the environment allows, and `say` so before.

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
        processes.end_beside_supervisor(is_over)

    watcher = threading.Thread(target=watch, name="limit", daemon=True)
    watcher.start()
    try:
        yield limit
    finally:
        is_over.set()
        watcher.join()


def limit_executions(task_timeout: int) -> None:
    """Let a task without an execution_timeout time out when its process has run for `task_timeout` seconds.

    This cannot be Airflow's default_task_execution_timeout: operators take their execution_timeout for the time to wait
    for an answer or a trigger, which needs no process.
    """
    from airflow.sdk.exceptions import AirflowTaskTimeout
    from airflow.sdk.execution_time import task_runner
    from airflow.sdk.execution_time.timeout import TimeoutPosix

    original = task_runner._run_execute_callable
    if getattr(original, "is_limited", False):
        return

    def run(context: Context, execute: Callable[..., Any], task: BaseOperator) -> Any:
        if task.execution_timeout is not None:
            return original(context, execute, task)
        try:
            with TimeoutPosix(task_timeout, "Task timeout"):
                return original(context, execute, task)
        except AirflowTaskTimeout:
            task.on_kill()
            raise

    run.is_limited = True  # type: ignore[attr-defined]
    task_runner._run_execute_callable = run


def log_timeouts() -> None:
    """Let a task that is ended by a timeout in its process log after how many seconds: Airflow logs a process id."""
    from airflow.sdk.execution_time.timeout import TimeoutPosix

    original = TimeoutPosix.handle_timeout
    if getattr(original, "logs_seconds", False):
        return

    def handle_timeout(self: TimeoutPosix, *arguments: Any) -> None:
        # The import of a DAG file has such a timeout, too.
        for start, words in TIMEOUTS.items():
            if self.error_message.startswith(start):
                self.log.error(words.format(self.seconds))
        original(self, *arguments)

    handle_timeout.logs_seconds = True  # type: ignore[attr-defined]
    TimeoutPosix.handle_timeout = handle_timeout  # type: ignore[method-assign]
