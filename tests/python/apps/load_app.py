"""An app for tests that ask a lot of a server."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import modal

app = modal.App("load")
notes = modal.Dict.from_name("load-notes", create_if_missing=True)
volume = modal.Volume.from_name("load-volume", create_if_missing=True)
volumes = {"/data": volume}


@app.function(max_containers=4)
def check(n: int) -> int:
    if n % 100 == 7:
        raise ValueError(f"not {n}")
    return n


@app.function(max_containers=2)
def when_told(n: int) -> int:
    while not notes.get("go"):
        time.sleep(0.02)
    return n


@app.function(max_containers=3, volumes=volumes)
def keep(n: int) -> int:
    """Leaves a file and commits it; notes if somebody else does the same meanwhile."""
    mine = os.urandom(8)
    notes[f"runs-{n}"] = mine
    folder = json.loads(os.environ.get("MODAL_LOCAL_VOLUMES", "{}")).get("/data", "/data")
    Path(folder, f"kept-{n}").write_text(f"kept {n}")
    volume.commit()
    if notes[f"runs-{n}"] != mine:
        notes[f"overlap-{n}"] = True
    return n
