"""An app about when containers begin and end, and when what failed is tried again."""

from __future__ import annotations

import atexit
import json
import os
import time
from pathlib import Path

import modal

app = modal.App("lifespan")
notes = modal.Dict.from_name("lifespan-notes", create_if_missing=True)
volume = modal.Volume.from_name("lifespan-volume", create_if_missing=True)

MOUNT = "/data"


@app.function(retries=modal.Retries(max_retries=2, initial_delay=1.0, backoff_coefficient=2.0))
def flaky(name: str) -> None:
    notes[name] = [*notes.get(name, []), time.time()]
    raise ValueError(f"attempt {len(notes[name])}")


@app.function(retries=2)
def flaky_at_first(name: str) -> int:
    attempt = notes[name] = notes.get(name, 0) + 1
    if attempt == 1:
        raise ValueError("the first time")
    return attempt


@app.function(timeout=1, startup_timeout=60, retries=modal.Retries(max_retries=1, initial_delay=0.0))
def slow_at_first(name: str) -> int:
    attempt = notes[name] = notes.get(name, 0) + 1
    if attempt == 1:
        time.sleep(60)
    return attempt


@app.function(timeout=1, startup_timeout=60, retries=modal.Retries(max_retries=1, initial_delay=0.0))
def always_slow(name: str) -> None:
    notes[name] = notes.get(name, 0) + 1
    time.sleep(60)


@app.function(min_containers=1, scaledown_window=2)
def warm() -> int:
    return os.getpid()


@app.function(single_use_containers=True)
def once() -> int:
    return os.getpid()


@app.function(scaledown_window=2)
def leaves_it_to_the_end(path: str) -> None:
    """Neither closes the file that it writes, nor does now what it has registered for the end of its process."""
    global book  # noqa: PLW0603
    book = Path(path).open("w")  # noqa: SIM115
    book.write("written")
    atexit.register(Path(f"{path}.registered").touch)


@app.cls(scaledown_window=2, volumes={MOUNT: volume})
class Visitor:
    """Says good-bye on the Volume, without a commit, and in the Dict."""

    @modal.enter()
    def arrive(self) -> None:
        self.visits = 0

    @modal.exit()
    def leave(self) -> None:
        folder = json.loads(os.environ.get("MODAL_LOCAL_VOLUMES", "{}")).get(MOUNT, MOUNT)
        Path(folder, f"left-{os.getpid()}").write_text(str(self.visits))
        notes[f"left-{os.getpid()}"] = self.visits

    @modal.method()
    def visit(self, seconds: float = 0.0) -> int:
        self.visits += 1
        notes["visiting"] = os.getpid()
        time.sleep(seconds)
        return os.getpid()


@app.cls(startup_timeout=2)
class Late:
    @modal.enter()
    def arrive(self) -> None:
        time.sleep(60)

    @modal.method()
    def visit(self) -> None:
        pass
