"""The processes of a task: all that it has started, also what has left its process group, session and parents."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, ClassVar, Self

if TYPE_CHECKING:
    import psutil

GRACE_SECONDS = 2.5
"""Time for `on_kill`. Airflow's own supervisor gives twice that; a container that is told to end may not have it."""
KILL_SECONDS = 10.0
"""Killed processes end at once, unless they wait for a device."""
POLL_SECONDS = 0.05
PR_SET_CHILD_SUBREAPER = 36


class Processes:
    """The processes that were started below this one since the block began.

    Those that outlive their parents become children of this process, so that none is lost from sight.

    On stock Airflow, background processes of a task that ends by itself go on. Here they do so until their container
    ends, or begins another task: as they may have files of the Volume open, it could not be reloaded for that one.
    """

    _left: ClassVar[frozenset[psutil.Process]] = frozenset()

    def __init__(self) -> None:
        self._others: frozenset[psutil.Process] = frozenset()

    def __enter__(self) -> Self:
        _adopt_orphans()
        self._others = frozenset(_descendants()) - Processes._left
        self.end()
        return self

    def __exit__(self, *_: object) -> None:
        Processes._left = frozenset(self._running(collect=True))

    def end(self) -> None:
        """End them all: ask them first, as their operators may have work elsewhere to cancel."""
        try:
            if self._send(signal.SIGTERM):
                self._wait(GRACE_SECONDS)
        finally:
            # Also when the wait is interrupted: the container may be told to end while it stops a task.
            until = time.monotonic() + KILL_SECONDS
            while self._send(signal.SIGKILL) and time.monotonic() < until:
                self._wait(POLL_SECONDS)

    def end_beside_supervisor(self, is_over: threading.Event) -> None:
        """The same beside a supervisor, who collects its child's exit status and sets `is_over` when it has."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            self._send(number, collect=False)
            if is_over.wait(GRACE_SECONDS):
                return

    def _send(self, number: signal.Signals, collect: bool = True) -> bool:
        """Whether there was any."""
        import psutil

        running = self._running(collect)
        for process in running:
            with suppress(psutil.Error):
                process.send_signal(number)
        return bool(running)

    def _wait(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while self._running(collect=True) and time.monotonic() < until:
            threading.Event().wait(POLL_SECONDS)

    def _running(self, collect: bool) -> list[psutil.Process]:
        """Those that have not ended. `collect` the exit statuses of the others, for which nobody else waits."""
        import psutil

        running = []
        for process in _descendants():
            if process in self._others:
                continue
            with suppress(psutil.Error):
                if process.status() != psutil.STATUS_ZOMBIE:
                    running.append(process)
                elif collect:
                    with suppress(ChildProcessError):
                        os.waitpid(process.pid, os.WNOHANG)
        return running


def _descendants() -> list[psutil.Process]:
    import psutil

    return psutil.Process().children(recursive=True)


def _adopt_orphans() -> None:
    if sys.platform == "linux":
        # The system may not know it; then processes whose parents have ended are not found.
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
