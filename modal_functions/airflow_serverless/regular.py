"""Reads files that users put somewhere, and never what only looks like one.

Opening a named pipe waits for a writer, and a device may have no end.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

KINDS = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFDIR: "a folder",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


class NotRegular(OSError):
    """What is at a path is not a regular file; the message says what it is."""


def read_bytes(path: str | Path) -> bytes:
    """The content of a regular file. Raises NotRegular, and OSError as `open` does. Never blocks."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        # A socket cannot be opened at all.
        _check(Path(path).stat().st_mode)
        raise
    try:
        _check(os.fstat(descriptor).st_mode)
    except NotRegular:
        os.close(descriptor)
        raise
    with os.fdopen(descriptor, "rb") as file:
        return file.read()


def read_text(path: str | Path, encoding: str = "utf-8", errors: str = "strict") -> str:
    """The text of a regular file, with the ends of lines as Python has them. Raises like `read_bytes`."""
    return read_bytes(path).decode(encoding, errors).replace("\r\n", "\n").replace("\r", "\n")


def _check(mode: int) -> None:
    if not stat.S_ISREG(mode):
        raise NotRegular(f"it is {KINDS.get(stat.S_IFMT(mode), 'something else')}, not a regular file")
