"""Commands about DAGs as a whole."""

from __future__ import annotations

from airflow_serverless.commands.command import Request, Result, live_dag


def pause(request: Request) -> Result:
    """`dag_id`: start none of its runs and tasks."""
    return _set_paused(request["dag_id"], True)


def unpause(request: Request) -> Result:
    """`dag_id`: start its runs and tasks again."""
    return _set_paused(request["dag_id"], False)


def _set_paused(dag_id: str, paused: bool) -> Result:
    from airflow.utils.session import create_session

    with create_session() as session:
        live_dag(dag_id, session).is_paused = paused
    return {"dag_id": dag_id, "is_paused": paused}


def refresh(request: Request) -> Result:
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
