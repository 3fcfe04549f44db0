"""Which DAG files have to be parsed again because something that they read at their last parse has changed."""

from __future__ import annotations

import hashlib
import hmac
import os
import time
from collections.abc import Iterable, Mapping, Set
from functools import cached_property
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from airflow_serverless.dags.reads import Kind, Read
from airflow_serverless.dags.write import printable
from airflow_serverless.db import tables
from airflow_serverless.quarantine import software

if TYPE_CHECKING:
    from sqlalchemy import Connection

SOFTWARE: Read = (Kind.SOFTWARE, "")
"""Files are parsed again after an upgrade of this package or of Airflow, or with other options of it, as their DAGs may
be others then."""


class ObservedState:
    """The current state of all that DAG files can read. `present`: {path in the DAG folder: digest of its content}."""

    def __init__(self, present: Mapping[str, str]) -> None:
        self._present = present
        self._now = time.time()

    def is_unchanged(self, read: Read, state: str) -> bool:
        """Whether an item is unchanged since it was read with `state`."""
        if read[0] == Kind.CLOCK:
            return self._now - float(state) < clock_seconds()
        return self.state(read) == state

    def state(self, read: Read) -> str:
        """A fingerprint of an item; it changes when the item changes."""
        kind, name = read
        match kind:
            case Kind.FILE:
                return self._present.get(name, "")
            case Kind.LISTING:
                return _digest(sorted(self._listings.get(name, ())))
            case Kind.VARIABLE:
                return self._variables.get(name, "")
            case Kind.VARIABLE_KEYS:
                return _digest(sorted(key for key in self._variables if key.startswith(name)))
            case Kind.CONNECTION:
                return self._connections.get(name, "")
            case Kind.ENVIRONMENT:
                return _digest(os.environ.get(name))
            case Kind.CLOCK:
                return repr(self._now)
        return software()

    @cached_property
    def _listings(self) -> dict[str, set[str]]:
        """{folder: names in it}; the folder itself is ""."""
        found: dict[str, set[str]] = {}
        for path in self._present:
            parts = PurePosixPath(path).parts
            for depth, name in enumerate(parts):
                found.setdefault("/".join(parts[:depth]), set()).add(name)
        return found

    @cached_property
    def _variables(self) -> dict[str, str]:
        """{key: digest of the stored row}, without decrypting it."""
        from airflow.models.variable import Variable

        return _stored(Variable, "key")

    @cached_property
    def _connections(self) -> dict[str, str]:
        from airflow.models.connection import Connection as AirflowConnection

        return _stored(AirflowConnection, "conn_id")


class Reads:
    """{path of a DAG file: what it read}, as of its last parse."""

    def __init__(self, connection: Connection) -> None:
        self._states = tables.get_reads(connection)
        self._changed: set[str] = set()

    def outdated(self, paths: Set[str], observed: ObservedState) -> set[str]:
        """The files that read something which has changed, or whose reads are not known."""
        return {
            path
            for path in paths
            if path not in self._states
            or not all(observed.is_unchanged(read, state) for read, state in self._states[path].items())
        }

    def has_reader(self, path: str) -> bool:
        """Whether any DAG file reads that file, or the folder that it is in."""
        folder = "" if "/" not in path else path.rpartition("/")[0]
        mentioned = ((Kind.FILE, path), (Kind.LISTING, folder))
        return any(read in states for states in self._states.values() for read in mentioned)

    def put(self, path: str, reads: Iterable[Read], observed: ObservedState) -> None:
        """Store what a file read at its last parse, and what was there."""
        # What a file asks for need not be text.
        known = [SOFTWARE, *((kind, printable(name)) for kind, name in reads)]
        self._states[path] = {read: observed.state(read) for read in known}
        self._changed.add(path)

    def forget(self, path: str) -> None:
        """Forget a file."""
        if self._states.pop(path, None) is not None:
            self._changed.add(path)

    def is_known(self, path: str) -> bool:
        """Whether the file was parsed, so that its reads are known."""
        return path in self._states

    def keep_only(self, paths: Set[str]) -> None:
        """Forget all other files."""
        for path in self._states.keys() - paths:
            del self._states[path]
            self._changed.add(path)

    def next_parse_at(self) -> float | None:
        """When the next file that reads the clock is due, in seconds since the epoch; None if none does."""
        times = [float(states[Kind.CLOCK, ""]) for states in self._states.values() if (Kind.CLOCK, "") in states]
        return min(times) + clock_seconds() if times else None

    def save(self, connection: Connection) -> None:
        """Write what has changed."""
        for path in self._changed:
            tables.set_reads(connection, path, self._states.get(path, {}))
        self._changed.clear()


def clock_seconds() -> float:
    """After how long a file that reads the clock is parsed again: Airflow's interval for all files."""
    from airflow.configuration import conf

    return conf.getfloat("dag_processor", "min_file_process_interval")


def _stored(model: Any, key: str) -> dict[str, str]:
    from airflow.utils.session import create_session
    from sqlalchemy import select

    with create_session() as session:
        rows = session.execute(select(model.__table__)).mappings()
        return {row[key]: _digest([str(value) for value in row.values()]) for row in rows}


def _digest(value: Any) -> str:
    """A keyed digest (HMAC with the Fernet key), so that values cannot be guessed from the stored state."""
    key = os.environ.get("AIRFLOW__CORE__FERNET_KEY", "").encode()
    return hmac.new(key, repr(value).encode(), hashlib.sha256).hexdigest()[:32]
