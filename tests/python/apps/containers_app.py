"""An app about what containers are: their files, their Volumes, their limits, and how they start."""

from __future__ import annotations

import json
import os
import random
import subprocess
import tempfile
import time
import uuid
from pathlib import Path

import modal

IMPORTED_BY = os.getpid()
"""The process that imported this module."""

app = modal.App("containers")
volume = modal.Volume.from_name("containers-volume", create_if_missing=True)
notes = modal.Dict.from_name("containers-notes", create_if_missing=True)
image = modal.Image.debian_slim().add_local_file(__file__, "/srv/given/module.py")
secret = modal.Secret.from_dict({"GIVEN": "secret"})

MOUNT = "/data/volume"


def folder() -> Path:
    """The Volume's folder, also where the system does not let it be mounted."""
    return Path(json.loads(os.environ.get("MODAL_LOCAL_VOLUMES", "{}")).get(MOUNT, MOUNT))


@app.function(image=image, volumes={MOUNT: volume})
def files() -> dict[str, object]:
    """Where a container is, and what it has."""
    private = Path("/root/only-here")
    private.write_text("private")
    return {
        "mounted": "MODAL_LOCAL_VOLUMES" not in os.environ,
        "cwd": str(Path.cwd()),
        "module": __file__,
        "given": Path("/srv/given/module.py").read_text() == Path(__file__).read_text(),
        "user": os.geteuid(),
        "private": private.exists(),
    }


class Keeper:
    """Works on the Volume, and keeps its view of it between calls."""

    @modal.method()
    def write(self, name: str, text: str, commit: bool = True) -> None:
        (folder() / name).write_text(text)
        if commit:
            volume.commit()

    @modal.method()
    def read(self, name: str, reload: bool = False) -> str | None:
        if reload:
            volume.reload()
        path = folder() / name
        return path.read_text() if path.exists() else None

    @modal.method()
    def reload_with_open_file(self, name: str) -> str:
        with (folder() / name).open():
            try:
                volume.reload()
            except RuntimeError as error:
                return str(error)
        return "reloaded"

    @modal.method()
    def reload_with_process_inside(self, name: str) -> str:
        (folder() / name).mkdir(exist_ok=True)
        with subprocess.Popen(["sleep", "60"], cwd=folder() / name) as process:
            try:
                volume.reload()
            except RuntimeError as error:
                return str(error)
            finally:
                process.kill()
        return "reloaded"


@app.cls(image=image, volumes={MOUNT: volume}, max_containers=1)
class One(Keeper):
    """One container."""


@app.cls(image=image, volumes={MOUNT: volume}, max_containers=1)
class Two(Keeper):
    """Another one."""


@app.function(image=image, volumes={MOUNT: volume.with_mount_options(read_only=True)})
def write_to_read_only() -> str:
    try:
        (folder() / "forbidden").write_text("x")
    except OSError as error:
        return type(error).__name__ + str(error.errno)
    return "written"


@app.function(image=image, enable_memory_snapshot=True, single_use_containers=True, secrets=[secret])
def from_snapshot(delay: float = 0.0) -> dict[str, object]:
    time.sleep(delay)
    return {
        "pid": os.getpid(),
        "imported_by": IMPORTED_BY,
        "task": os.environ["MODAL_TASK_ID"],
        "secret": os.environ["GIVEN"],
        "volumes": os.environ.get("MODAL_LOCAL_VOLUMES"),
    }


@app.function(image=image, enable_memory_snapshot=True, secrets=[modal.Secret.from_dict({"GIVEN": "secret"})])
def sibling() -> int:
    """Imports the same in the same surroundings."""
    return IMPORTED_BY


@app.function(image=image, enable_memory_snapshot=True, secrets=[modal.Secret.from_dict({"GIVEN": "other"})])
def stranger() -> tuple[int, str]:
    """Has another variable, on which its imports could depend."""
    return IMPORTED_BY, os.environ["GIVEN"]


@app.function(image=image, single_use_containers=True)
def without_snapshot(delay: float = 0.0) -> dict[str, object]:
    time.sleep(delay)
    chance = [random.random(), uuid.uuid4().hex, Path(tempfile.mkdtemp()).name]
    return {"pid": os.getpid(), "imported_by": IMPORTED_BY, "parent": os.getppid(), "chance": chance}


@app.cls(image=image, volumes={MOUNT: volume}, enable_memory_snapshot=True, single_use_containers=True)
class Snapshot:
    """Forked, with a Volume."""

    @modal.enter(snap=True)
    def prepare(self) -> None:
        self.prepared = "prepared"

    @modal.method()
    def write(self, name: str) -> list[str]:
        (folder() / name).write_text(self.prepared)
        volume.commit()
        return sorted(path.name for path in folder().iterdir())


@app.function(image=image, enable_memory_snapshot=True, single_use_containers=True)
def fall(signal: int) -> None:
    os.kill(os.getpid(), signal)


@app.function(image=image, memory=(64, 256))
def swell_at_first(name: str, times: int) -> int:
    """Needs too much memory that many times; returns how often it was called."""
    calls: int = notes.get(name, 0) + 1
    notes[name] = calls
    if calls <= times:
        held = b"x" * (600 << 20)
        # The memory is looked at now and then.
        time.sleep(60)
        del held
    return calls


@app.function(image=image, memory=(64, 256))
def swell(mebibytes: int) -> int:
    held = b"x" * (mebibytes << 20)
    # The memory is looked at now and then.
    time.sleep(2)
    return len(held)
