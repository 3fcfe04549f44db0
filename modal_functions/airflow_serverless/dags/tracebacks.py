"""What a traceback says to whoever wrote the file: the exception, and the places in the user's own files."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

HEAD = "Traceback (most recent call last):\n"
GROUP = "Exception Group Traceback"
MOST_FRAMES = 20
"""Of the user's own, the last ones."""


class Told(NamedTuple):
    """`exception`: its class and its whole text; `frames`: the lines of each frame in the files of the user."""

    exception: str
    frames: list[str]


def read(text: str, root: Path) -> Told:
    """What the last traceback in `text` tells; files below `root` are the user's. Text without one is all exception."""
    text = text.strip("\n")
    if GROUP in text:
        # It is a tree, of which no part says enough.
        return Told(text, [])
    lines = text.rpartition(HEAD)[2].split("\n")
    frames: list[list[str]] = []
    while lines and _is_frame(lines[0]):
        frames.append([lines.pop(0)])
        while lines and lines[0].startswith(("    ", "  [Previous line")):
            frames[-1].append(lines.pop(0))
    own = ["\n".join(frame) for frame in frames if _is_below(frame[0], root)]
    return Told("\n".join(lines).strip() or "unknown error", own[-MOST_FRAMES:])


def from_own_code(text: str, root: Path) -> str:
    """The traceback without the frames of Airflow's importer, which come before the user's first."""
    if GROUP in text or not text.startswith(HEAD):
        return text
    lines = text.removeprefix(HEAD).split("\n")
    first = next((number for number, line in enumerate(lines) if _is_frame(line) and _is_below(line, root)), None)
    others = [line for line in lines[:first] if not line.startswith("  ")]
    return text if first is None or others else HEAD + "\n".join(lines[first:])


def _is_frame(line: str) -> bool:
    # That of a SyntaxError is a frame as well: the line that cannot be read.
    return re.match(r'  File ".*", line \d+', line) is not None


def _is_below(frame: str, root: Path) -> bool:
    return frame.startswith(f'  File "{root}/')
