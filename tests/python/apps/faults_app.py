"""An app that counts what it does."""

from __future__ import annotations

import os
import time

import modal

app = modal.App("faults")
notes = modal.Dict.from_name("faults-notes", create_if_missing=True)


@app.function(max_containers=1)
def count(name: str, seconds: float = 0.0) -> int:
    """How often this was called with `name`, and so how often an input was run."""
    times = notes.get(name, 0) + 1
    notes[name] = times
    time.sleep(seconds)
    return times


@app.function()
def pid() -> int:
    return os.getpid()
