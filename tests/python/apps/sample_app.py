"""An app with a function for each thing that calls can do."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import modal

app = modal.App("sample")
notes = modal.Dict.from_name("sample-notes", create_if_missing=True)
volume = modal.Volume.from_name("sample-volume", create_if_missing=True)
secret = modal.Secret.from_dict({"SAMPLE_SECRET": "hush", "PATH_IS_OURS": "yes"})
image = modal.Image.debian_slim().uv_pip_install("httpx").add_local_python_source("sample_helper")


@app.function(image=image)
def square(x: int) -> int:
    return x * x


@app.function(image=image)
def echo(value: object) -> object:
    return value


@app.function(image=image)
def size(data: bytes) -> int:
    return len(data)


@app.function(image=image)
def yield_large(lengths: list[int]) -> Iterator[bytes]:
    for length in lengths:
        yield bytes(length)


@app.function(image=image)
def make_large(length: int) -> bytes:
    return bytes(length)


@app.function(image=image)
def raise_large(length: int) -> None:
    raise ValueError("x" * length)


@app.function(image=image)
def wait_for_note(note: str, value: object) -> object:
    while not notes.get(note):
        time.sleep(0.05)
    return value


@app.function(image=image)
def forward(source: modal.Queue, target: modal.Queue) -> int:
    forwarded = 0
    while (value := source.get(timeout=60)) is not None:
        target.put(value)
        forwarded += 1
    return forwarded


@app.function(image=image)
def greet() -> str:
    import sample_helper

    return sample_helper.GREETING


@app.function(image=image, volumes={"/data": volume}, secrets=[secret])
def surroundings() -> dict[str, str]:
    import json

    folder = json.loads(os.environ.get("MODAL_LOCAL_VOLUMES", "{}")).get("/data", "/data")
    Path(folder, "from-container").write_text("written")
    volume.commit()
    return {
        **os.environ,
        "cwd": str(Path.cwd()),
        "files": " ".join(sorted(path.name for path in Path(folder).iterdir())),
    }


class CustomError(Exception):
    pass


@app.function(image=image, retries=modal.Retries(max_retries=2, initial_delay=0.0, backoff_coefficient=1.0))
def fail_until(name: str, successes_at: int) -> int:
    attempt = notes.get(name, 0) + 1
    notes[name] = attempt
    if attempt < successes_at:
        raise CustomError(f"attempt {attempt}")
    return attempt


@app.function(image=image, timeout=1, startup_timeout=60)
def too_slow(marker: str) -> None:
    notes[marker] = os.getpid()
    time.sleep(60)


@app.function(image=image, max_containers=1)
def hold(marker: str, seconds: float) -> int:
    notes[marker] = os.getpid()
    time.sleep(seconds)
    return os.getpid()


@app.function(image=image)
def stubborn(marker: str) -> None:
    while True:
        with contextlib.suppress(BaseException):
            notes[marker] = os.getpid()
            time.sleep(60)


@app.function(image=image)
def die(marker: str, times: int) -> int:
    died = notes.get(marker, 0)
    if died < times:
        notes[marker] = died + 1
        os._exit(0)
    return died


@app.function(image=image, max_containers=1)
def identify() -> int:
    return os.getpid()


@app.function(image=image, scaledown_window=2)
def brief() -> int:
    return os.getpid()


twenty = asyncio.Barrier(20)


@app.function(image=image, max_containers=1)
@modal.concurrent(max_inputs=20)
async def together(n: int) -> int:
    """Returns once twenty run at the same time in this container."""
    await twenty.wait()
    return n


@app.function(image=image)
def parent(x: int) -> int:
    call = square.spawn(x)
    again = modal.Function.from_name("sample", "square")
    return call.get(timeout=30) + again.remote(x + 1)


@app.function(image=image)
def leave_child(marker: str) -> None:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    notes[marker] = [os.getpid(), child.pid]
    time.sleep(600)


@app.function(image=image, timeout=2, startup_timeout=60)
def detach(marker: str) -> None:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
    notes[marker] = child.pid
    time.sleep(600)


@app.cls(image=image, max_containers=1)
class Counter:
    @modal.enter()
    def begin(self) -> None:
        self.value = 0

    @modal.method()
    def add(self, by: int = 1) -> int:
        self.value += by
        return self.value
