"""Keeps what a task prints and logs in the order in which it does so.

Airflow's supervisor reads a task's log, stdout and stderr from a socket each, so that it cannot tell which of several
lines came first. Here, complete lines that Python prints go through the socket of the log. What else is written to
stdout and stderr (by other programs, in parts of a line) has sockets of its own as before, with two rules:

- The task writes to its log only when the supervisor has read all that was written to stdout and stderr.
- The supervisor reads stdout and stderr only when it has read all of the log.

Touches private parts of the pinned SDK.
"""

from __future__ import annotations

import fcntl
import io
import logging
import os
import selectors
import struct
import sys
import termios
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec

from airflow_serverless.worker import fresh

if TYPE_CHECKING:
    from socket import socket

    from _typeshed import ReadableBuffer

LONGEST_WAIT_SECONDS = 1.0
"""For the supervisor to read. Only a process that never stops writing makes a task wait this long."""
PATIENCE_SECONDS = 5.0
"""After such a wait, lines are logged without one for so long."""
POLL_SECONDS = 0.0002
LAST_WORDS_SECONDS = 2.0
"""How long a process that has ended may have something left to read. Others may still write to its stdout."""


def keep_order() -> None:
    """Change Airflow's supervisor accordingly, in this process; does nothing if that is done."""
    from airflow.sdk.execution_time import supervisor

    if supervisor._fork_main is not _fork_main:
        _Originals.fork_main = supervisor._fork_main
        _Originals.register = supervisor.WatchedSubprocess._register_pipe_readers
        _Originals.check_exit = supervisor.WatchedSubprocess._check_subprocess_exit
        supervisor._fork_main = _fork_main  # type: ignore[assignment]
        supervisor.WatchedSubprocess._register_pipe_readers = _register_pipe_readers  # type: ignore[method-assign]
        supervisor.WatchedSubprocess._check_subprocess_exit = _check_subprocess_exit  # type: ignore[method-assign]


class _Originals:
    fork_main: Callable[..., Any]
    register: Callable[..., Any]
    check_exit: Callable[..., Any]


class LogFirst(selectors.DefaultSelector):
    """Selects stdout and stderr only while there is nothing to read of the log."""

    def __init__(self, outputs: Sequence[socket], requests: socket) -> None:
        super().__init__()
        self._outputs, self._requests = frozenset(outputs), requests
        self._drained_until: float | None = None

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Select as usual, but hold back printed output while there are messages of the log to read."""
        events = super().select(timeout)
        if all(key.fileobj in self._outputs or key.fileobj is self._requests for key, _ in events):
            return events
        return [event for event in events if event[0].fileobj not in self._outputs]

    def has_last_words(self) -> bool:
        """Whether a process that has ended left something to read; False once that takes too long."""
        if self._drained_until is None:
            self._drained_until = time.monotonic() + LAST_WORDS_SECONDS
        return time.monotonic() < self._drained_until and bool(self.get_map()) and bool(self.select(0))


def _register_pipe_readers(
    self: Any, stdout: socket, stderr: socket, requests: socket, *others: Any, **more: Any
) -> None:
    self.selector.close()
    self.selector = LogFirst([stdout, stderr], requests)
    _Originals.register(self, stdout, stderr, requests, *others, **more)


def _check_subprocess_exit(self: Any, *arguments: Any, **more: Any) -> int | None:
    """Notice the end of a process, which goes to the log, after what it said before."""
    is_first_look = self._exit_code is None and isinstance(self.selector, LogFirst)
    if is_first_look and _has_ended(self.pid) and self.selector.has_last_words():
        return None
    code: int | None = _Originals.check_exit(self, *arguments, **more)
    return code


def _has_ended(pid: int) -> bool:
    with suppress(ChildProcessError):
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    return True


def _fork_main(requests: socket, stdout: socket, stderr: socket, log_fd: int, target: Callable[[], None]) -> None:
    """The beginning of a process under a supervisor. Those that run no task have logs of another form."""
    from airflow.sdk.execution_time import supervisor

    fresh.renew()
    if target is supervisor._subprocess_main and log_fd:
        channel = LogChannel(log_fd, [os.dup(stdout.fileno()), os.dup(stderr.fileno())])
        reopen = supervisor._reopen_std_io_handles

        def reopen_std_io_handles(*sockets: socket) -> None:
            reopen(*sockets)
            sys.stdout = printing_to(channel, sys.stdout, "stdout", logging.INFO)
            sys.stderr = printing_to(channel, sys.stderr, "stderr", logging.ERROR)

        supervisor._configure_logs_over_json_channel = lambda log_fd: _configure_logs(channel)
        supervisor._reopen_std_io_handles = reopen_std_io_handles
    _Originals.fork_main(requests, stdout, stderr, log_fd, target)


def _configure_logs(channel: LogChannel) -> None:
    from airflow.sdk.log import configure_logging, reset_logging

    reset_logging()
    configure_logging(json_output=True, output=channel, sending_to_supervisor=True)


class LogChannel(io.RawIOBase):
    """The socket of a process's log, into which whole lines are written; `outputs` are those that have to be read."""

    def __init__(self, descriptor: int, outputs: Sequence[int]) -> None:
        self._descriptor, self._outputs = descriptor, outputs
        self._patient_from = 0.0
        self._renew_lock()
        os.register_at_fork(after_in_child=self._renew_lock)

    def _renew_lock(self) -> None:
        # A handler of a signal may log while a line is being written.
        self._lock = threading.RLock()

    def fileno(self) -> int:
        """The descriptor of the channel."""
        return self._descriptor

    def writable(self) -> bool:
        """True."""
        return True

    def write(self, data: ReadableBuffer) -> int:
        """Write a message when all output before it was read; returns its length in bytes."""
        view = memoryview(data)
        with self._lock:
            self.wait_until_read()
            written = 0
            while written < len(view):
                written += os.write(self._descriptor, view[written:])
        return written

    def wait_until_read(self) -> None:
        """Wait until the supervisor has read what was written to stdout and stderr."""
        now = time.monotonic()
        if now < self._patient_from:
            return
        until = now + LONGEST_WAIT_SECONDS
        while any(map(_is_unread, self._outputs)):
            if time.monotonic() > until:
                self._patient_from = until + PATIENCE_SECONDS
                return
            time.sleep(POLL_SECONDS)


def _is_unread(descriptor: int) -> bool:
    try:
        return struct.unpack("i", fcntl.ioctl(descriptor, termios.TIOCOUTQ, b"\0" * 4))[0] > 0
    except OSError:
        return False


def printing_to(channel: LogChannel, stream: Any, name: str, level: int) -> io.TextIOWrapper:
    """A stream in the place of `stream`, one of Airflow's, that prints complete lines into the log."""
    return io.TextIOWrapper(io.BufferedWriter(PrintedLines(channel, stream, name, level)), line_buffering=True)


class PrintedLines(io.RawIOBase):
    """What is under `sys.stdout` or `sys.stderr`."""

    def __init__(self, channel: LogChannel, stream: Any, name: str, level: int) -> None:
        self._channel = channel
        # Kept, as its end would close the descriptor.
        self._stream = stream
        self._descriptor = stream.fileno()
        self._file = self._identity()
        self._logger, self._level = f"task.{name}", logging.getLevelName(level).lower()
        self._is_shown = logging.getLogger().isEnabledFor(level)
        self._is_inside_line = False

    def _identity(self) -> tuple[int, int]:
        status = os.fstat(self._descriptor)
        return status.st_dev, status.st_ino

    def fileno(self) -> int:
        """The descriptor of the stream."""
        return int(self._descriptor)

    def writable(self) -> bool:
        """True."""
        return True

    def write(self, data: ReadableBuffer) -> int:
        """Log whole lines as messages, and write the rest as it is; returns the number of bytes written."""
        content = bytes(data)
        # The task may have put a file of its own in the place of the socket.
        if self._is_inside_line or not content.endswith(b"\n") or self._identity() != self._file:
            if not self._is_inside_line:
                self._channel.wait_until_read()
            written = os.write(self._descriptor, content)
            self._is_inside_line = not content[:written].endswith(b"\n")
            return written
        if self._is_shown:
            self._channel.write(b"".join(map(self._record, content.split(b"\n")[:-1])))
        return len(content)

    def _record(self, line: bytes) -> bytes:
        event = line.rstrip().decode(errors="replace")
        record = {"timestamp": datetime.now(UTC), "level": self._level, "event": event, "logger": self._logger}
        return msgspec.json.encode(record) + b"\n"
