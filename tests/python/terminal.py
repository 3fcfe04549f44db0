"""A terminal for tests: a command on a pseudo-terminal of some size, and what such a terminal shows of its output."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import struct
import subprocess
import termios
import threading
from collections.abc import Callable

import pyte

from daemon import Daemon
from local_modal import REPOSITORY, wait_until

CLI = REPOSITORY / "target/debug/airflow-serverless"
LIMIT = 240.0
ANSWER_LIMIT = 30.0


class Terminal:
    """A command line that runs on a terminal of its own."""

    def __init__(self, daemon: Daemon, *arguments: str, rows: int = 24, columns: int = 80, **variables: str) -> None:
        self.rows, self.columns = rows, columns
        self.master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        environment = {**daemon.environment, "TERM": "xterm-256color", **variables}
        self.process = subprocess.Popen(
            [CLI, *arguments], env=environment, stdin=slave, stdout=slave, stderr=slave, start_new_session=True
        )
        os.close(slave)
        self.written = b""
        self.code: int | None = None
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self) -> None:
        # With the last process that has it open, a terminal ends in an error.
        with contextlib.suppress(OSError):
            while written := os.read(self.master, 1 << 16):
                self.written += written

    @property
    def said(self) -> str:
        """All that was written, with its control sequences; what was typed is echoed among it."""
        return self.written.decode(errors="ignore")

    @property
    def shown(self) -> list[str]:
        """The lines that the terminal shows, below those that have left it at the top."""
        return shown(self.said, self.rows, self.columns)

    @property
    def text(self) -> str:
        """The same without the ends of lines, for what is longer than a line."""
        return "".join(line.ljust(self.columns) for line in self.shown)

    def wait_until(self, holds: Callable[[], bool], what: str, limit: float = LIMIT) -> None:
        """Waits for something to be shown; it has to come before the command ends."""
        try:
            wait_until(lambda: holds() or not self.reader.is_alive(), what, limit)
            assert holds(), f"no {what} in {self.said}"
        except AssertionError:
            self.process.kill()
            raise

    def answer(self, question: str, typed: str) -> None:
        """Types an answer once the question is asked."""
        self.wait_until(lambda: question in self.said, question, ANSWER_LIMIT)
        os.write(self.master, typed.encode())

    def end(self) -> int:
        """Waits until the command has ended by itself; its exit code."""
        try:
            self.code = self.process.wait(LIMIT)
            return self.code
        finally:
            self.process.kill()
            self.process.wait()
            self.reader.join()
            os.close(self.master)


def piped(daemon: Daemon, *arguments: str, typed: str = "", **variables: str) -> subprocess.CompletedProcess[str]:
    """A command without a terminal."""
    environment = {**daemon.environment, "TERM": "xterm-256color", **variables}
    return subprocess.run(
        [CLI, *arguments], env=environment, input=typed, capture_output=True, text=True, timeout=LIMIT, check=False
    )


def shown(said: str, rows: int, columns: int) -> list[str]:
    """What a terminal of that size shows, and has shown: what leaves it at the top stays as it is."""
    screen = pyte.HistoryScreen(columns, rows, history=100_000)
    pyte.Stream(screen).feed(said)
    above = ("".join(line[column].data for column in range(columns)) for line in screen.history.top)
    texts = [line.rstrip() for line in (*above, *screen.display)]
    while texts and not texts[-1]:
        texts.pop()
    return texts
