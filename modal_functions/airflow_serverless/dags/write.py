"""Writes what was parsed of a DAG file through Airflow's ORM; the validator tries the same on a database of its own."""

from __future__ import annotations

import traceback
from pathlib import Path

from airflow_serverless.config import BUNDLE
from airflow_serverless.dags.storage import FileError, ParsedDag, refused


class NotStored(Exception):
    """Airflow could not store DAGs of a file; the message is its traceback."""


def write(path: str, parsed: list[ParsedDag], import_errors: list[FileError]) -> str:
    """Bring the database in line with what is in a file, given relative to the DAG folder.

    Returns the tracebacks that are noted as its import error, an empty string if there are none.
    """
    from airflow._shared.timezones import timezone
    from airflow.dag_processing.collection import update_dag_parsing_results_in_db
    from airflow.models.dag import DagModel
    from airflow.serialization.serialized_objects import LazyDeserializedDAG
    from airflow.utils.session import create_session
    from sqlalchemy import or_, select

    now = timezone.utcnow()
    dags = [LazyDeserializedDAG(data=dag["data"], last_loaded=now) for dag in parsed]
    errors: dict[tuple[str, str], str] = {}
    if import_errors:
        errors[BUNDLE, path] = printable("\n\n".join(error["traceback"] for error in import_errors))
    with create_session() as session:
        # It adds to `errors` what it cannot serialize.
        update_dag_parsing_results_in_db(
            BUNDLE, None, dags, errors, None, set(), session=session, files_parsed={(BUNDLE, path)}
        )
        if not errors:
            found = [dag["dag_id"] for dag in parsed]
            stale = select(DagModel).where(
                DagModel.bundle_name == BUNDLE,
                # DAGs of an archive are in files of its own.
                or_(
                    DagModel.relative_fileloc == path,
                    DagModel.relative_fileloc.startswith(f"{path}/", autoescape=True),
                ),
                DagModel.is_stale.is_(False),
                DagModel.dag_id.not_in(found),
            )
            for model in session.scalars(stale):
                model.is_stale = True
    return "\n\n".join(errors.values())


def not_stored(file: Path, root: Path, error: BaseException) -> list[FileError]:
    """The import error of a file whose DAGs cannot be stored."""
    errors = refused(file, root, f"its DAGs cannot be stored: {printable(str(error))}")["import_errors"]
    errors[0]["traceback"] = printable("".join(traceback.format_exception(error)))
    return errors


def printable(text: str) -> str:
    """Text that every database and every encoding takes: without lone surrogates and zero bytes."""
    return text.encode("utf-8", "backslashreplace").decode().replace("\0", "\\x00")
