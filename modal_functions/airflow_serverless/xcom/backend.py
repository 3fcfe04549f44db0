"""XCom payloads as files on the volume; the database holds a small reference to each.

A file is `xcom/{dag_id}/{run_id}/{task_id}/{key}`, with `{map_index}/` before the key for mapped tasks.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import sys
from pathlib import Path, PurePosixPath
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote

import modal
from airflow.sdk.bases.xcom import BaseXCom

from airflow_serverless.config import SETTINGS_VARIABLE, XCOM, Paths, Settings
from airflow_serverless.xcom import exact

REFERENCE = "__volume_xcom__"
"""Key of the reference {REFERENCE: path relative to the XCom folder, "bytes": size, "digest": of the payload} that the
database holds. Where the task had returned when it was pushed, that has "returned": True as well."""
REFERENCE_KEYS = frozenset({REFERENCE, "bytes", "digest", "returned"})
LONGEST_NAME = 200

exact.install()


class VolumeXComBackend(BaseXCom):
    """Airflow's `[core] xcom_backend` wherever tasks or the scheduler run."""

    @staticmethod
    def serialize_value(
        value: Any,
        *,
        key: str | None = None,
        task_id: str | None = None,
        dag_id: str | None = None,
        run_id: str | None = None,
        map_index: int | None = None,
    ) -> Any:
        """Write the payload and return the reference. Keys that Airflow reads by itself stay in the database."""
        with exact.of_xcom(key):
            serialized = BaseXCom.serialize_value(value)
        if not (key and task_id and dag_id and run_id) or _read_by_airflow(key):
            return serialized
        mapped = [] if map_index is None or map_index < 0 else [str(map_index)]
        relative = PurePosixPath(*(_name(part) for part in (dag_id, run_id, task_id, *mapped, key)))
        payload = json.dumps(serialized).encode()
        _write(_root() / relative, payload)
        reference = {REFERENCE: str(relative), "bytes": len(payload), "digest": _digest(payload)}
        return {**reference, "returned": True} if _has_returned() else reference

    @staticmethod
    def deserialize_value(result: Any) -> Any:
        """The value of a row; a payload that is gone raises FileNotFoundError with its path."""
        value = result.value
        if path := payload_path(value):
            value = json.loads(_read(path, value))
        return BaseXCom.deserialize_value(SimpleNamespace(value=value))

    @classmethod
    def purge(cls, xcom: Any, *args: Any) -> None:
        """Delete the payload of a row that is being deleted."""
        value = getattr(xcom, "value", None)
        if isinstance(value, str):
            try:
                value = json.loads(value)
            except ValueError:
                return
        if path := payload_path(value):
            path.unlink(missing_ok=True)


def is_pushed_early(value: Any) -> bool:
    """Whether a row's value refers to a payload of a task that had not returned."""
    return payload_path(value) is not None and "returned" not in value


def _has_returned() -> bool:
    """Whether Airflow is pushing what the task has returned, as one XCom or as several."""
    from airflow.sdk.execution_time.task_runner import _push_xcom_if_needed

    frame = sys._getframe().f_back
    while frame is not None and frame.f_code is not _push_xcom_if_needed.__code__:
        frame = frame.f_back
    return frame is not None


def _digest(payload: bytes) -> str:
    return hashlib.blake2b(payload, digest_size=16).hexdigest()


def _read(path: Path, reference: dict[str, Any]) -> bytes:
    """The payload that a reference means, or the one that has replaced it.

    A container sees what others have committed only after a reload of its Volume, which is not possible while a task
    runs: what is not there is asked of Modal.
    """
    payload = path.read_bytes() if path.exists() else None
    if payload is not None and reference.get("digest") in (None, _digest(payload)):
        return payload
    if SETTINGS_VARIABLE in os.environ:
        volume = modal.Volume.from_name(Settings.from_environment().volume_name)
        with contextlib.suppress(FileNotFoundError):
            return b"".join(volume.read_file(f"{XCOM}/{reference[REFERENCE]}"))
    if payload is None:
        raise FileNotFoundError(f"the payload of an XCom is not there: {path}")
    return payload


def _read_by_airflow(key: str) -> bool:
    """Branching (skipmixin_key) and operator links are read from the table itself, without the backend."""
    return key == "skipmixin_key" or key.startswith("_link_")


def _root() -> Path:
    return Paths.from_environment().xcom


def payload_path(value: Any) -> Path | None:
    """Where the payload is that a row's value refers to; None if the value is not a reference."""
    if not (isinstance(value, dict) and {REFERENCE, "bytes"} <= value.keys() <= REFERENCE_KEYS):
        return None
    relative = PurePosixPath(str(value[REFERENCE]))
    if relative.is_absolute() or ".." in relative.parts:
        raise ValueError(f"XCom reference points outside of the XCom folder: {relative}")
    return _root() / relative


def _name(part: str) -> str:
    """A file name for any identifier: readable, unambiguous, and short enough for every file system."""
    name = quote(part, safe=" !#$&'()+,:;=@[]{}~")
    if re.fullmatch(r"\.+", name):
        name = name.replace(".", "%2E")
    if len(name) > LONGEST_NAME:
        digest = hashlib.sha256(part.encode()).hexdigest()[:16]
        name = f"{name[: LONGEST_NAME - 17]}~{digest}"
    return name


def _write(path: Path, payload: bytes) -> None:
    """Replace the file in one step, so that a reader sees the old payload or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{os.getpid()}~{path.name}"[:255])
    temporary.write_bytes(payload)
    temporary.replace(path)
