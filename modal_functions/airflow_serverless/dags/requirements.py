"""Packages of one DAG file: declared in it or beside it, installed once for all that ask for the same.

A file declares them in a PEP 723 block, or a `requirements.txt` in its folder does. They are installed on top of what
Airflow runs with, whose own versions win, into a folder that is named by a hash of the declaration (`declarations.py`).
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import re
import shutil
import site
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.metadata import distributions
from pathlib import Path

from airflow_serverless.dags import declarations
from airflow_serverless.dags.declarations import Declaration, RequirementsError, declared

__all__ = ["Environments", "RequirementsError", "activate", "active_in_children", "declared"]

COMPLETE = ".complete"
UNUSED = ".unused"
KEPT_SECONDS = 7 * 24 * 3600.0
"""How long packages that no file asks for any more are kept: tasks of older files may still run."""
INSTALL_SECONDS = 240


class Environments:
    """The folder of installed packages, one folder in it for each set of requirements."""

    def __init__(self, root: Path) -> None:
        self._root = root

    @staticmethod
    def name(requirements: Declaration) -> str:
        """A name that changes with the requirements, with Python, and with what is installed under them."""
        described = json.dumps([requirements, sys.version_info[:2], sys.platform, _base()])
        return hashlib.sha256(described.encode()).hexdigest()[:24]

    def find(self, requirements: Declaration) -> Path | None:
        """Where these packages are, if they are."""
        folder = self._root / self.name(requirements)
        return folder if (folder / COMPLETE).exists() else None

    def provide(self, requirements: Declaration) -> Path:
        """Where these packages are; installs them if need be. Raises RequirementsError."""
        found = self.find(requirements)
        if found is not None:
            return found
        folder = self._root / self.name(requirements)
        self._root.mkdir(parents=True, exist_ok=True)
        # Beside its place, so that it appears there as a whole; others may install the same at the same time.
        with tempfile.TemporaryDirectory(prefix=".installing-", dir=self._root) as temporary:
            built = Path(temporary, "packages")
            built.mkdir()
            _install(requirements, built, Path(temporary))
            (built / COMPLETE).write_text("\n".join(requirements))
            try:
                built.rename(folder)
            except OSError:
                if not (folder / COMPLETE).exists():
                    shutil.rmtree(folder, ignore_errors=True)
                    built.rename(folder)
        return folder

    def collect(self, used: set[str]) -> None:
        """Remove what no file has asked for in a while; `used` are the names of what files ask for now."""
        if not self._root.is_dir():
            return
        for folder in self._root.iterdir():
            mark = folder / UNUSED
            if folder.name in used:
                mark.unlink(missing_ok=True)
            elif not mark.exists() and folder.is_dir():
                mark.touch()
            elif mark.exists() and mark.stat().st_mtime < time.time() - KEPT_SECONDS:
                shutil.rmtree(folder)


@cache
def _base() -> dict[str, str]:
    """{name: version} of all that is installed under the requirements."""
    return {one.metadata["Name"].lower().replace("_", "-"): one.version for one in distributions(path=_base_path())}


def _base_path() -> list[str]:
    return [path for path in sys.path if path.endswith("site-packages")]


def _install(requirements: Declaration, target: Path, work: Path) -> None:
    """Resolve against what is there, and install only what is not there in that very version."""
    constraints, resolved = work / "constraints.txt", work / "resolved.txt"
    constraints.write_text("".join(f"{name}=={version}\n" for name, version in sorted(_base().items())))
    declared = work / "wanted"
    wanted = declarations.write(requirements, declared)
    options = ["--no-header", "--no-annotate", "--emit-index-url", "--emit-find-links"]
    _uv(declared, "compile", *options, "-c", constraints, "-o", resolved, wanted)
    present = {f"{name}=={version}" for name, version in _base().items()}
    lines = [line for line in resolved.read_text().splitlines() if line.strip() and line.lower() not in present]
    if all(line.startswith("-") for line in lines):
        return
    if declarations.has_hashes(requirements):
        # They are in the file itself, for all that it needs: what it asks for is installed as it is.
        _uv(declared, "install", "--no-deps", "--require-hashes", "--target", target, "-r", wanted)
        return
    resolved.write_text("\n".join(lines) + "\n")
    _uv(declared, "install", "--no-deps", "--target", target, "-r", resolved)


def _uv(declared: Path, command: str, *arguments: str | Path) -> None:
    """Run `uv pip`; its errors name files in the folder `declared` as they are called in the DAG folder."""
    uv = [sys.executable, "-m", "uv", "pip", command, "--quiet", "--color=never", "--python", sys.executable]
    try:
        done = subprocess.run(
            [*uv, *arguments],
            capture_output=True,
            check=False,
            stdin=subprocess.DEVNULL,
            text=True,
            timeout=INSTALL_SECONDS,
        )
    except subprocess.TimeoutExpired:
        raise RequirementsError(f"installing took longer than {INSTALL_SECONDS} seconds") from None
    if done.returncode != 0:
        said = _with_lines(done.stderr.strip().replace(f"{declared}{os.sep}", ""), declared)
        raise RequirementsError(said or f"uv pip {command} ended with status {done.returncode}")


def _with_lines(said: str, declared: Path) -> str:
    """Name the lines of bad requirements, for which uv counts the bytes before them."""

    def line(found: re.Match[str]) -> str:
        name, position = found[1], int(found[2])
        try:
            before = (declared / name).read_bytes()[:position]
        except OSError:
            # It is not one of these files.
            return found[0]
        number = before.count(b"\n") + 1
        return f" line {number} of {name}"

    return re.sub(r"\s+`([^`\n]+)`\s+at position (\d+)", line, said)


def activate(folder: Path) -> None:
    """Let this process and its children import the packages. Airflow's own come first."""
    site.addsitedir(str(folder))
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), str(folder)]))
    os.environ["PATH"] = os.pathsep.join([str(folder / "bin"), os.environ.get("PATH", os.defpath)])
    importlib.invalidate_caches()


_for_children: list[Path] = []


@contextmanager
def active_in_children(folder: Path | None) -> Iterator[None]:
    """Children that are forked meanwhile have the packages; this process, which others will use, does not."""
    _for_children[:] = [folder] if folder else []
    try:
        yield
    finally:
        _for_children.clear()


def _activate_in_child() -> None:
    for folder in _for_children:
        activate(folder)


os.register_at_fork(after_in_child=_activate_in_child)
