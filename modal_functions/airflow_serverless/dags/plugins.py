"""Airflow's plugins, in the folder `plugins` of the DAG folder.

Airflow loads plugins once in the life of a process. Processes here are restored, or forked, from one that was there
before the Volume, and outlive many uploads: each of them looks at the folder before it does anything for a user.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import runpy
import stat
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any, TypedDict

from airflow_serverless import regular
from airflow_serverless.config import PLUGINS
from airflow_serverless.dags.isolation import ChildFailed, Limits, run_in_child
from airflow_serverless.dags.lookups import Lookups

Stamp = tuple[str, int, int, int]
MACROS = "airflow.sdk.execution_time.macros"
KEEPERS = (
    "airflow.plugins_manager",
    "airflow.sdk.plugins_manager",
    "airflow.listeners.listener",
    "airflow.sdk.listener",
    "airflow.sdk.lineage",
)
"""Modules of Airflow's that keep what they once had from plugins."""


class Loaded(TypedDict):
    """The result of trying to load plugins; files are paths in the DAG folder.

    `sources`: files that define plugins. `errors`: {file: traceback, or a reason without one}. `is_safe`: whether a
    process that has to live on can load them without harm. `needs_values`: an import requested a value, but none were
    passed; ignore all other fields.
    """

    sources: list[str]
    errors: dict[str, str]
    is_safe: bool
    needs_values: bool


NOTHING: Loaded = {"sources": [], "errors": {}, "is_safe": True, "needs_values": False}

_known: dict[Path, tuple[list[Stamp], str]] = {}
"""{DAG folder: its plugins as they were when this process last looked, and their digest}; one, once it has."""


def is_plugin(path: str) -> bool:
    """Whether a path in the DAG folder belongs to the plugins, and so is no DAG file."""
    return path.startswith(f"{PLUGINS}/")


def follow(root: Path) -> bool:
    """Forget what this process knows of plugins, if those in the DAG folder `root` are not the ones that it knows.

    Airflow loads them when it next needs one. Returns whether they were forgotten. Without plugins this is one look.
    """
    found = list(_look(root / PLUGINS))
    stamps, known = _known.get(root, (None, None))
    if found == stamps:
        return False
    # Stamps alone may change with each reload of a Volume.
    digest = _digest_of(found)
    if digest != known:
        _forget(root / PLUGINS)
        _known.clear()
    _known[root] = (found, digest)
    return digest != known


def load(root: Path, limits: Limits, lookups: Lookups) -> Loaded:
    """Load the plugins of the DAG folder `root` into this process, with `lookups` for the child.

    They are tried in a child first: what ends, hangs or crashes there is not loaded here, nor is anything beside it.
    """
    if not (root / PLUGINS).is_dir():
        return NOTHING
    from airflow import plugins_manager, settings

    loaded = try_out(root, limits, lookups)
    if not loaded["is_safe"]:
        # For Airflow there are none then, in this process and those that it forks.
        settings.PLUGINS_FOLDER = str(root / PLUGINS / ".none")
    plugins_manager.ensure_plugins_loaded()
    return loaded


def try_out(root: Path, limits: Limits, lookups: Lookups) -> Loaded:
    """Load the plugins of the DAG folder `root` in a child, with the values of `lookups`."""

    def load_recorded() -> Loaded:
        lookups.install()
        return {**_load(root, limits.seconds), "needs_values": lookups.needs_values}

    try:
        loaded: Loaded = run_in_child(load_recorded, limits.with_grace())
    except ChildFailed as failure:
        reason = f"importing the plugins {failure}; none of them is used until that is mended"
        return {**NOTHING, "errors": {PLUGINS: reason}, "is_safe": False}
    return loaded


def _load(root: Path, seconds: float) -> Loaded:
    from airflow import plugins_manager
    from airflow.dag_processing.importers.python_importer import _timeout

    follow(root)
    try:
        with _timeout(seconds, f"the plugins take longer than {seconds:g} s to load"):
            found, failures = plugins_manager._get_plugins()
    except BaseException as error:
        # Airflow lets plugins end the process; so we know where it was.
        frames = [Path(frame.filename) for frame in traceback.extract_tb(error.__traceback__)]
        path = next((frame for frame in reversed(frames) if frame.is_relative_to(root)), root / PLUGINS)
        return {**NOTHING, "errors": {_relative(path, root): _traceback(error, root)}, "is_safe": False}
    failed = {_file(name, root): message for name, message in failures.items()}
    return {
        **NOTHING,
        "sources": [_relative(_file(str(plugin.source), root), root) for plugin in found],
        "errors": {_relative(file, root): _explanation(file, message, root) for file, message in failed.items()},
    }


def _file(name: str, root: Path) -> Path:
    """The file that Airflow means. Plugins that packages bring keep their names."""
    return Path(name.replace("$PLUGINS_FOLDER", str(root / PLUGINS)))


def _relative(file: Path, root: Path) -> str:
    return file.relative_to(root).as_posix() if file.is_relative_to(root) else str(file)


def _explanation(file: Path, message: str, root: Path) -> str:
    """The traceback that Airflow has kept to itself, found by running the file again."""
    if not file.is_relative_to(root):
        return message
    try:
        runpy.run_path(str(file))
    except BaseException as error:
        return _traceback(error, root)
    return message


def _traceback(error: BaseException, root: Path) -> str:
    """From the first line that is the user's own."""
    start: TracebackType | None = error.__traceback__
    while start and not Path(start.tb_frame.f_code.co_filename).is_relative_to(root):
        start = start.tb_next
    return "".join(traceback.format_exception(type(error), error, start))


def _look(folder: Path) -> Iterator[Stamp]:
    """What tells one state of the folder from another."""
    if not folder.is_dir():
        return
    for directory, names, files in os.walk(folder, followlinks=True):
        names[:] = sorted(name for name in names if name != "__pycache__")
        for path in sorted(Path(directory, name) for name in files):
            status = path.stat()
            # Airflow takes nothing else for a plugin.
            if stat.S_ISREG(status.st_mode):
                yield str(path), status.st_mtime_ns, status.st_size, status.st_ino


def digest(folder: Path) -> str:
    """Of the paths and contents of all files in a folder."""
    return _digest_of(list(_look(folder)))


def _digest_of(stamps: list[Stamp]) -> str:
    contents = ((path, hashlib.sha256(regular.read_bytes(path)).hexdigest()) for path, *_ in stamps)
    return hashlib.sha256(json.dumps(list(contents)).encode()).hexdigest()


def _forget(folder: Path) -> None:
    from airflow import settings

    for keeper in KEEPERS:
        for function in _attributes(sys.modules.get(keeper)).values():
            if clear := getattr(function, "cache_clear", None):
                clear()
    # Airflow makes a module of the macros of each plugin, and has `macros` in templates lead there.
    macros = sys.modules.get(MACROS)
    for name, module in list(_attributes(macros).items()):
        if "_objects" in _attributes(module):
            delattr(macros, name)
    for name, module in list(sys.modules.items()):
        is_macros = name.startswith(f"{MACROS}.") and "_objects" in _attributes(module)
        if is_macros or _is_from(module, folder):
            del sys.modules[name]
    settings.PLUGINS_FOLDER = str(folder)
    if str(folder) not in sys.path:
        sys.path.append(str(folder))
    importlib.invalidate_caches()


def _is_from(module: ModuleType, folder: Path) -> bool:
    attributes = _attributes(module)
    place = attributes.get("__file__") or next(iter(attributes.get("__path__") or ()), None)
    return isinstance(place, str) and place.startswith(f"{folder}{os.sep}")


def _attributes(thing: Any) -> dict[str, Any]:
    """Without asking a module for one, which it might import for that."""
    return thing.__dict__ if isinstance(thing, ModuleType) else {}
