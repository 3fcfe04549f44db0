"""Records what a DAG file reads while it is imported, including itself. It is parsed again when any of that changes."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

from airflow_serverless import regular


class Kind(StrEnum):
    """What kind of thing a DAG file read."""

    FILE = "file"
    LISTING = "listing"
    CLOCK = "clock"
    VARIABLE = "variable"
    VARIABLE_KEYS = "variable keys"
    CONNECTION = "connection"
    ENVIRONMENT = "environment"
    SOFTWARE = "software"


Read = tuple[str, str]
"""(kind, name): the path of a file or of a listed folder in the DAG folder, the key of a Variable, the prefix of the
Variables that were listed, the id of a Connection, the name of an environment variable, else ""."""
CLOCK_WORDS = re.compile(rb"\b(?:now|utcnow|today|tomorrow|yesterday|time|time_ns|localtime|gmtime|ctime|strftime)\b")
CLOCK_FUNCTIONS = frozenset({"now", "utcnow", "today", "tomorrow", "yesterday"})
"""Python functions that return the current time, as in pendulum and `airflow.sdk.timezone`."""
CLOCK_BUILTINS = frozenset(
    f"<built-in method {name}>"
    for name in ("now", "utcnow", "today", "time.time", "time.time_ns", "time.localtime", "time.gmtime", "time.ctime")
) | {"<built-in method time.strftime>"}


@contextmanager
def recorded(root: Path) -> Iterator[set[Read]]:
    """Record what code in the DAG folder `root` reads of the folder, and whether it reads the clock.

    For a forked child: Python never forgets an audit hook. The set is complete at the end of the block.
    """
    found: set[Read] = set()
    recorder = _Recorder(root, found)
    sys.addaudithook(recorder.handle_event)
    try:
        yield found
    finally:
        recorder.stop()


class _Recorder:
    """Records each opened file and listed folder."""

    def __init__(self, root: Path, found: set[Read]) -> None:
        self._roots = tuple({f"{root}{os.sep}", f"{os.path.realpath(root)}{os.sep}"})
        self._found = found
        self._is_busy = False
        self._profiler: Any = None

    def handle_event(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self._is_busy or event not in ("open", "os.listdir", "os.scandir"):
            return
        self._is_busy = True
        try:
            path = _path(arguments[0])
            if path is None or (relative := self._relative(path)) is None:
                return
            if event == "open":
                self._found.add((Kind.FILE, relative))
                if path.endswith(".py"):
                    self._watch_clock(path)
            # Python itself lists the folders in which it looks for modules.
            elif not _is_import(sys._getframe(1)):
                self._found.add((Kind.LISTING, relative))
        finally:
            self._is_busy = False

    def stop(self) -> None:
        self._is_busy = True
        if self._profiler is None:
            return
        self._profiler.disable()
        for entry in self._profiler.getstats():
            if self._is_own(entry.code) and any(self._reads_clock(call.code) for call in entry.calls or ()):
                self._found.add((Kind.CLOCK, ""))

    def _relative(self, path: str) -> str | None:
        """The path in the DAG folder, "" for the folder itself; None for what is elsewhere."""
        for root in self._roots:
            if path.startswith(root):
                relative = path.removeprefix(root)
                return None if "__pycache__" in relative else relative
            if path == root.rstrip(os.sep):
                return ""
        return None

    def _watch_clock(self, path: str) -> None:
        """Start the profiler if the source that is about to be imported may read the clock."""
        if self._profiler is not None:
            return
        try:
            source = regular.read_bytes(path)
        except OSError:
            return
        if CLOCK_WORDS.search(source):
            import _lsprof

            self._profiler = _lsprof.Profiler()
            self._profiler.enable(True, True)

    def _is_own(self, code: CodeType | str) -> bool:
        return not isinstance(code, str) and code.co_filename.startswith(self._roots)

    def _reads_clock(self, code: CodeType | str) -> bool:
        if isinstance(code, str):
            return code in CLOCK_BUILTINS
        return code.co_name in CLOCK_FUNCTIONS and not self._is_own(code)


def _path(argument: Any) -> str | None:
    """An absolute path; None for what is open already."""
    if isinstance(argument, bytes):
        argument = os.fsdecode(argument)
    # Do not resolve symlinks: the DAG folder may be one.
    return os.path.abspath(argument) if isinstance(argument, str | os.PathLike) else None  # noqa: PTH100


def _is_import(frame: FrameType | None) -> bool:
    while frame is not None and frame.f_code.co_filename == __file__:
        frame = frame.f_back
    return frame is not None and frame.f_code.co_filename.startswith("<frozen importlib")
