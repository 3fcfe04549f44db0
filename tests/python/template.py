"""Environments that were deployed once, kept stopped, and are copied for each test module that needs one.

They lie below `target/homes`, by all that they depend on: the server, the functions, the settings, the interpreter.
"""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from local_modal import REPOSITORY, binary

HOMES = REPOSITORY / "target/homes"


def fingerprint(*parts: object) -> str:
    """Names what is made from these parts by this server and this interpreter. A folder counts by its contents."""
    digest = hashlib.sha256()
    server = binary().stat()
    for part in (*parts, sys.executable, server.st_mtime_ns, server.st_size):
        digest.update(repr(_contents(part) if isinstance(part, Path) else part).encode())
    return digest.hexdigest()[:16]


def _contents(folder: Path) -> list[tuple[str, str]]:
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.suffix != ".pyc")
    return [(str(path.relative_to(folder)), hashlib.sha256(path.read_bytes()).hexdigest()) for path in files]


def template(kind: str, name: str, make: Callable[[Path], None]) -> Path:
    """The folder that `make` has filled, here or in another process, before; others of its kind go when it is made."""
    HOMES.mkdir(parents=True, exist_ok=True)
    folder = HOMES / f"{kind}-{name}"
    with (HOMES / f"{kind}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            for old in HOMES.glob(f"{kind}-*"):
                shutil.rmtree(old)
            partial = HOMES / f".{kind}"
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir()
            # Others pass through it on their way to what is theirs.
            partial.chmod(0o755)
            make(partial)
            partial.rename(folder)
    return folder


def copy(source: Path, target: Path) -> None:
    """Copy a folder with owners and times: by the times, Python knows what it has compiled."""
    subprocess.run(["cp", "-aT", source, target], check=True)
