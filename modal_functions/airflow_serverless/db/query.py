"""`query_metadata`: reads PostgreSQL for the daemon, which does not know the connection string. Without Airflow."""

from __future__ import annotations

import datetime
import re
import uuid
from collections.abc import Sequence
from typing import Any

import psycopg2
import psycopg2.extensions

from airflow_serverless.db.backend import DatabaseError
from airflow_serverless.db.connection_string import ConnectionString

SESSION = (
    "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY",
    "SET statement_timeout = '20s'",
    "SET timezone = 'UTC'",
)
_kept: list[psycopg2.extensions.connection] = []
"""The connection of a warm container, if it has one."""


def query_metadata(sql: str, parameters: Sequence[Any]) -> list[dict[str, Any]]:
    """The rows that one statement with the parameters `$1`, `$2`… selects, as {column: value}.

    Times become text in ISO 8601. Raises DatabaseError in the server's words.
    """
    was_warm = bool(_kept)
    try:
        try:
            return _query(sql, parameters)
        except (psycopg2.OperationalError, psycopg2.InterfaceError):
            # The connection of an earlier call may have ended since, as when the server was started anew.
            if not was_warm or _kept:
                raise
            return _query(sql, parameters)
    except psycopg2.Error as error:
        reason = " ".join(str(error).split())
        raise DatabaseError(f"PostgreSQL at {ConnectionString.of_process().server}: {reason}") from None


def _query(sql: str, parameters: Sequence[Any]) -> list[dict[str, Any]]:
    if not _kept:
        _kept.append(_connect())
    try:
        with _kept[0].cursor() as cursor:
            named = re.sub(r"\$(\d+)", r"%(p\1)s", sql.replace("%", "%%"))
            cursor.execute(named, {f"p{number}": value for number, value in enumerate(parameters, 1)})
            columns = [column.name for column in cursor.description or ()]
            return [dict(zip(columns, map(_plain, row), strict=True)) for row in cursor.fetchall()]
    except psycopg2.Error:
        if _kept[0].closed:
            _kept.clear()
        raise


def _connect() -> psycopg2.extensions.connection:
    connection = psycopg2.connect(**ConnectionString.of_process().for_libpq())
    connection.autocommit = True
    with connection.cursor() as cursor:
        for statement in SESSION:
            cursor.execute(statement)
    return connection


def _plain(value: Any) -> Any:
    if isinstance(value, datetime.datetime):
        return value.isoformat()
    return str(value) if isinstance(value, uuid.UUID) else value
