"""Lines that others than a task's own process add to its log: why it was ended, or never began."""

from __future__ import annotations

import json
import os
from pathlib import Path


def add_to_log(logs: Path, log_path: str | None, message: str) -> None:
    """Add an error to the log at `log_path` in the folder of all logs; nothing if the task has none."""
    from airflow._shared.timezones import timezone

    if not log_path:
        return
    line = {"timestamp": timezone.utcnow().isoformat(), "level": "error", "event": message, "logger": "task"}
    path = logs / log_path
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab+") as log:
        # A process that was killed may have left half a line.
        begins_line = True
        if size := log.seek(0, os.SEEK_END):
            log.seek(size - 1)
            begins_line = log.read() == b"\n"
        log.write((b"" if begins_line else b"\n") + json.dumps(line).encode() + b"\n")
