"""Stores what was parsed of a file on trial, so that an upload is refused for all that the scheduler would fail at."""

from __future__ import annotations

import math
import traceback
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

from airflow_serverless.config import BUNDLE
from airflow_serverless.dags import refusals, tracebacks
from airflow_serverless.dags.storage import FileError, ParsedDag, ParsedFile
from airflow_serverless.dags.write import printable, write


class Trial:
    """An empty metadata database in memory. It is made once; each forked child has a copy of its own."""

    def __init__(self) -> None:
        import airflow.dag_processing.collection
        import airflow.models
        from airflow.models.base import Base
        from airflow.models.dagbundle import DagBundleModel
        from sqlalchemy import StaticPool, create_engine, event, insert
        from sqlalchemy.orm import configure_mappers

        airflow.models.import_all_models()
        configure_mappers()
        self._engine = create_engine("sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False})
        Base.metadata.create_all(self._engine)
        with self._engine.begin() as connection:
            connection.execute(insert(DagBundleModel).values(name=BUNDLE))
        event.listen(self._engine, "before_execute", _refuse_too_large)

    def check(self, path: Path, root: Path, parsed: ParsedFile) -> ParsedFile:
        """The same, with an import error in place of each DAG that cannot be stored. Call it in a forked child."""
        self._become_database()
        stored: list[ParsedDag] = []
        errors: list[FileError] = []
        for dag in parsed["dags"]:
            try:
                _store(path, root, dag)
                stored.append(dag)
            except Exception as error:
                errors.append(_error(path, root, dag["dag_id"], error))
        return {**parsed, "dags": stored, "import_errors": [*parsed["import_errors"], *errors]}

    def _become_database(self) -> None:
        """Have Airflow's ORM of this process work on it."""
        from airflow import settings
        from sqlalchemy.orm import scoped_session, sessionmaker

        settings.engine = self._engine
        settings.NonScopedSession = sessionmaker(bind=self._engine, autoflush=False, expire_on_commit=False)
        settings.Session = scoped_session(settings.NonScopedSession)


class Unstorable(ValueError):
    """A value that not every database takes: SQLite takes more than PostgreSQL."""


def _refuse_too_large(_: Any, statement: Any, rows: Any, row: Any, *__: Any) -> None:
    """Check the values of an INSERT or UPDATE against the types of their columns."""
    columns = getattr(getattr(statement, "table", None), "c", {})
    for values in (*rows, row):
        _check_sizes(columns, values, "DAG")


def _check_sizes(columns: Mapping[str, Any], values: Mapping[str, Any], where: str) -> None:
    from sqlalchemy import BigInteger, Integer, String

    for name, value in values.items():
        kind = columns[name].type if name in columns else None
        if isinstance(kind, String) and isinstance(value, str) and kind.length and len(value) > kind.length:
            raise Unstorable(f"{name} of {where} is longer than {kind.length} characters: {value[:100]!a}")
        if isinstance(kind, Integer) and isinstance(value, int):
            most = 2**63 - 1 if isinstance(kind, BigInteger) else 2**31 - 1
            if not -most - 1 <= value <= most:
                raise Unstorable(f"{name} of {where} must be from {-most - 1} to {most}, not {value}")


def _store(path: Path, root: Path, dag: ParsedDag) -> None:
    """Write a DAG, read it again and prepare a run; raises whatever goes wrong."""
    from airflow.models import DagRun
    from airflow.serialization.serialized_objects import DagSerialization

    for where, value in _values(dag["data"], "DAG"):
        _check_value(value, where)
    if errors := write(path.relative_to(root).as_posix(), [dag], []):
        raise ValueError(tracebacks.read(errors, root).exception)
    read = DagSerialization.from_dict(dag["data"])
    run = DagRun(dag_id=read.dag_id, run_id="trial")
    for task in read.tasks:
        _prepare(task, run)


def _prepare(task: Any, run: Any) -> None:
    """Make of a task what the scheduler does for a run: its row, with its weight, and what a worker is given."""
    from airflow.executors.workloads.task import TaskInstanceDTO
    from airflow.models import TaskInstance
    from pydantic import ValidationError

    row = TaskInstance.insert_mapping(run.run_id, task, -1, dag_version_id=None, dag_run=run)
    _check_sizes(TaskInstance.__table__.c, row, f"task {task.task_id!a}")
    known = {name: row[name] for name in TaskInstanceDTO.model_fields if name in row}
    try:
        TaskInstanceDTO(**{**known, "id": uuid4(), "dag_version_id": uuid4()})
    except ValidationError as error:
        first = error.errors()[0]
        raise Unstorable(f"{first['loc'][0]} of task {task.task_id!a}: {first['msg']}") from error


def _check_value(value: str | float, where: str) -> None:
    if isinstance(value, float):
        if not math.isfinite(value):
            raise Unstorable(f"{where} has a number that JSON does not have: {value}")
    elif printable(value) != value:
        raise Unstorable(f"{where} has a character that is not valid in text (a lone surrogate or NUL): {value!a}")


def _values(data: Any, where: str) -> Iterator[tuple[str, str | float]]:
    """(where it is, value) for all texts and floats in serialized data."""
    if isinstance(data, str | float):
        yield where, data
    elif isinstance(data, dict):
        if isinstance(name := data.get("task_id"), str):
            where = f"task {name!a}"
        for key, value in data.items():
            yield f"a name in {where}", key
            inner = where if key.startswith("__") or isinstance(value, dict) else f"{key} of {where}"
            yield from _values(value, inner)
    elif isinstance(data, list | tuple | set | frozenset):
        for value in data:
            yield from _values(value, where)


def _error(path: Path, root: Path, dag_id: str, error: Exception) -> FileError:
    causes: list[BaseException] = [error]
    while not isinstance(causes[-1], Unstorable) and (cause := causes[-1].__cause__):
        causes.append(cause)
    message = printable(str(causes[-1]))
    if not isinstance(causes[-1], Unstorable):
        message = f"{type(causes[-1]).__name__}: {message}"
    return {
        "file": path.relative_to(root).as_posix(),
        "line": refusals.line_of_owner(path, dag_id),
        "message": f"DAG {printable(dag_id)!r} cannot be stored: {message}",
        "traceback": printable("".join(traceback.format_exception(error))),
    }
