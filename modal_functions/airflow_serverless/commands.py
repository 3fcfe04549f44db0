"""Applies the daemon's commands to the database. A command is applied once, however often it is seen."""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal

from airflow_serverless.db import tables
from airflow_serverless.db.backend import DatabaseBackend
from airflow_serverless.state import Command, Reply

if TYPE_CHECKING:
    from airflow.models.dag import DagModel
    from sqlalchemy.orm import Session


Reason = Literal["invalid", "not_found", "conflict"]


class CommandError(Exception):
    """The command cannot be carried out; the message is for the user."""

    def __init__(self, message: str, reason: Reason = "invalid") -> None:
        super().__init__(message)
        self.reason: Reason = reason


def apply(commands: Mapping[str, Command], backend: DatabaseBackend) -> dict[str, Reply]:
    """Carry out the commands, oldest first; returns {key of the command: its reply}."""
    replies: dict[str, Reply] = {}
    for key, command in sorted(commands.items(), key=lambda item: item[1]["at"]):
        with backend.transaction() as connection:
            earlier = tables.get_reply(connection, command["id"])
            reply = json.loads(earlier) if earlier else _carry_out(command)
            tables.set_reply(connection, command["id"], json.dumps(reply))
        replies[key] = reply
    return replies


def _carry_out(command: Command) -> Reply:
    handlers: dict[str, Callable[[Mapping[str, Any]], dict[str, Any]]] = {
        "trigger": _trigger,
        "refresh": _refresh,
        "pause": lambda request: _set_paused(request, True),
        "unpause": lambda request: _set_paused(request, False),
    }
    handler = handlers.get(command["kind"])
    if handler is None:
        return _refusal(f"unknown command {command['kind']!r}", "invalid")
    try:
        return {"ok": True, "error": None, "reason": None, "result": handler(command)}
    except KeyError as error:
        return _refusal(f"the command {command['kind']!r} lacks {error}", "invalid")
    except CommandError as error:
        return _refusal(str(error), error.reason)


def _refusal(error: str, reason: Reason) -> Reply:
    return {"ok": False, "error": error, "reason": reason, "result": {}}


def _trigger(request: Mapping[str, Any]) -> dict[str, Any]:
    """`dag_id`, and optionally `run_id`, `logical_date` (ISO 8601), `conf` → the run that was created."""
    from airflow._shared.timezones import timezone
    from airflow.api.common.trigger_dag import trigger_dag
    from airflow.exceptions import AirflowException
    from airflow.utils.session import create_session
    from airflow.utils.types import DagRunTriggeredByType

    logical_date = _logical_date(request.get("logical_date"))
    with create_session() as session:
        dag = _live_dag(request["dag_id"], session)
        if dag.has_import_errors:
            raise CommandError(f"the file of DAG {dag.dag_id!r} does not import; see its import errors")
        _refuse_duplicate(dag.dag_id, request.get("run_id"), logical_date, session)
        is_paused = bool(dag.is_paused)
    try:
        run = trigger_dag(
            dag_id=request["dag_id"],
            triggered_by=DagRunTriggeredByType.CLI,
            run_id=request.get("run_id"),
            conf=request.get("conf"),
            logical_date=logical_date,
            # SQLite compares whole seconds: a run of "now" would stay invisible until the next one.
            run_after=timezone.utcnow() - datetime.timedelta(seconds=1),
            replace_microseconds=False,
        )
    except (AirflowException, ValueError, TypeError) as error:
        raise CommandError(f"DAG {request['dag_id']!r} was not triggered: {error}") from error
    if run is None:
        raise CommandError(f"DAG {request['dag_id']!r} was not triggered")
    return {
        "dag_id": run.dag_id,
        "dag_run_id": run.run_id,
        "state": str(run.state),
        "logical_date": run.logical_date.isoformat() if run.logical_date else None,
        "dag_is_paused": is_paused,
    }


def _refresh(request: Mapping[str, Any]) -> dict[str, Any]:
    """The folder was parsed before any command is looked at; tell what came of it."""
    from airflow.models.dag import DagModel
    from airflow.models.errors import ParseImportError
    from airflow.utils.session import create_session
    from sqlalchemy import select

    with create_session() as session:
        dags = [
            {
                "dag_id": dag.dag_id,
                "relative_fileloc": dag.relative_fileloc,
                "is_paused": bool(dag.is_paused),
                "has_import_errors": bool(dag.has_import_errors),
                "timetable_summary": dag.timetable_summary,
            }
            for dag in session.scalars(select(DagModel).where(DagModel.is_stale.is_(False)).order_by(DagModel.dag_id))
        ]
        errors = [
            {"filename": error.filename, "stack_trace": error.stacktrace}
            for error in session.scalars(select(ParseImportError).order_by(ParseImportError.filename))
        ]
    return {"dags": dags, "import_errors": errors}


def _set_paused(request: Mapping[str, Any], paused: bool) -> dict[str, Any]:
    from airflow.utils.session import create_session

    with create_session() as session:
        dag = _live_dag(request["dag_id"], session)
        dag.is_paused = paused
        return {"dag_id": dag.dag_id, "is_paused": paused}


def _live_dag(dag_id: str, session: Session) -> DagModel:
    from airflow.models.dag import DagModel

    dag = session.get(DagModel, dag_id)
    if dag is None or dag.is_stale:
        raise CommandError(f"there is no DAG {dag_id!r}", "not_found")
    return dag


def _logical_date(text: str | None) -> datetime.datetime | None:
    if text is None:
        return None
    try:
        date = datetime.datetime.fromisoformat(text)
    except (TypeError, ValueError) as error:
        raise CommandError(f"not a date in ISO 8601: {text!r}") from error
    return date if date.tzinfo else date.replace(tzinfo=datetime.UTC)


def _refuse_duplicate(
    dag_id: str, run_id: str | None, logical_date: datetime.datetime | None, session: Session
) -> None:
    from airflow.models.dagrun import DagRun
    from sqlalchemy import select

    for column, value in ((DagRun.run_id, run_id), (DagRun.logical_date, logical_date)):
        query = select(DagRun.run_id).where(DagRun.dag_id == dag_id, column == value)
        if value is not None and (existing := session.scalar(query)):
            message = f"DAG {dag_id!r} has a run {existing!r} with this id or logical date already"
            raise CommandError(message, "conflict")
