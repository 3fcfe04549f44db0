"""Variables, Connections and environment variables for a DAG file that is being imported.

In Airflow, a supervisor process calls the Execution API for each import. Here, the import runs in a forked child that
either has all values from the start, or stops and reports `needs_values`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from airflow_serverless.airflow_config import use_secrets_backend
from airflow_serverless.dags.reads import Kind, Read
from airflow_serverless.dags.values import Values, Write

if TYPE_CHECKING:
    from pydantic import BaseModel


class ValuesNeeded(BaseException):
    """An import requested a value, but none were passed. `except Exception` does not catch it."""


@dataclass
class Lookups:
    """Replaces the supervisor of Airflow's Task SDK. `names`: the environment variables that the user has set."""

    values: Values | None
    names: frozenset[str] = frozenset()
    reads: set[Read] = field(default_factory=set)
    writes: list[Write] = field(default_factory=list)
    needs_values: bool = False

    def install(self) -> None:
        """Route the SDK's messages to the supervisor of this process, a forked child, to this object."""
        from airflow.sdk.execution_time import task_runner
        from airflow.sdk.execution_time.supervisor import block_orm_access

        task_runner.SUPERVISOR_COMMS = self  # type: ignore[assignment]
        if self.values:
            os.environ.update(self.values["environment"])
        if use_secrets_backend():
            _watch_secrets_backend(self)
        _watch_environment(self)
        block_orm_access()

    def send(self, msg: BaseModel) -> BaseModel | None:
        """Answer a message to the supervisor as Airflow's DAG processor would."""
        from airflow.sdk.exceptions import ErrorType
        from airflow.sdk.execution_time import comms

        match msg:
            case comms.GetVariable():
                value = self._get("variables", (Kind.VARIABLE, msg.key))
                if value is None:
                    return comms.ErrorResponse(error=ErrorType.VARIABLE_NOT_FOUND, detail={"key": msg.key})
                return comms.VariableResult(key=msg.key, value=value)
            case comms.GetVariableKeys():
                self._record((Kind.VARIABLE_KEYS, msg.prefix or ""))
                keys = sorted(key for key in self._all("variables") if key.startswith(msg.prefix or ""))
                page = keys[msg.offset : msg.offset + msg.limit]
                return comms.VariableKeysResult(keys=page, total_entries=len(keys))
            case comms.GetConnection():
                fields = self._get("connections", (Kind.CONNECTION, msg.conn_id))
                if fields is None:
                    return comms.ErrorResponse(error=ErrorType.CONNECTION_NOT_FOUND, detail={"conn_id": msg.conn_id})
                return comms.ConnectionResult(**fields)
            case comms.PutVariable():
                self._write(msg.key, msg.value or "", msg.description)
            case comms.DeleteVariable():
                self._write(msg.key, None, None)
                return comms.OKResponse(ok=True)
            case comms.MaskSecret():
                pass
            case _:
                reason = (
                    f"{type(msg).__name__} is not supported while a DAG file is imported; move the call into a task"
                )
                return comms.ErrorResponse(error=ErrorType.GENERIC_ERROR, detail={"message": reason})
        return None

    async def asend(self, msg: BaseModel) -> BaseModel | None:
        """Send a message, as `send` does."""
        return self.send(msg)

    def read_environment(self, name: str) -> None:
        """Record the read of an environment variable."""
        if name in self.names:
            self._record((Kind.ENVIRONMENT, name))

    def _get(self, kind: Literal["variables", "connections"], read: Read) -> Any:
        self._record(read)
        return self._all(kind).get(read[1])

    def _all(self, kind: Literal["variables", "connections"]) -> Mapping[str, Any]:
        return self.values[kind] if self.values else {}

    def _record(self, read: Read) -> None:
        self.reads.add(read)
        if self.values is None:
            self.needs_values = True
            raise ValuesNeeded(f"{read[0]} {read[1]!r}")

    def _write(self, key: str, value: str | None, description: str | None) -> None:
        self.writes.append({"key": key, "value": value, "description": description})
        if self.values is None:
            return
        if value is None:
            self.values["variables"].pop(key, None)
        else:
            self.values["variables"][key] = value


def _watch_secrets_backend(lookups: Lookups) -> None:
    """Make each use of the secrets backend count as a read of the clock: nobody tells when a value there changes."""
    from airflow.sdk.execution_time import supervisor

    load = supervisor.ensure_secrets_backend_loaded

    def load_recorded() -> Any:
        lookups.reads.add((Kind.CLOCK, ""))
        return load()

    supervisor.ensure_secrets_backend_loaded = load_recorded


def _watch_environment(lookups: Lookups) -> None:
    """Make `os.environ` report every read to `lookups`."""
    environ_class: Any = type(os.environ)
    get, contains = environ_class.__getitem__, environ_class.__contains__

    def getitem(self: Any, name: str) -> str:
        lookups.read_environment(name)
        value: str = get(self, name)
        return value

    def contains_name(self: Any, name: object) -> bool:
        lookups.read_environment(str(name))
        return bool(contains(self, name))

    environ_class.__getitem__, environ_class.__contains__ = getitem, contains_name
