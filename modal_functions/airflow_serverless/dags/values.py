"""What an environment has that DAG files may read while they are imported."""

from __future__ import annotations

import traceback
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, TypedDict

if TYPE_CHECKING:
    from sqlalchemy.orm import Session


class Write(TypedDict):
    """A Variable that was set (`value` is text) or deleted (None) while a file was imported."""

    key: str
    value: str | None
    description: str | None


class Values(TypedDict):
    """The values of an environment that DAG files can read.

    {key: value of the Variable}, {id: fields of the Connection, as the Execution API names them}, and {name: value of
    the environment variable}.
    """

    variables: dict[str, str]
    connections: dict[str, dict[str, Any]]
    environment: dict[str, str]


def load_values() -> Values:
    """The Variables and Connections that are in the database, decrypted. Environment variables are this process's.

    Omits values that cannot be decrypted because they were stored with another Fernet key.
    """
    from airflow.models.connection import Connection
    from airflow.models.variable import Variable
    from airflow.utils.session import create_session
    from sqlalchemy import select

    with create_session() as session:
        variables = {row.key: row.val for row in session.scalars(select(Variable)) if row.val is not None}
        found = [_fields(connection_id, session) for connection_id in session.scalars(select(Connection.conn_id)).all()]
    connections = {fields["conn_id"]: fields for fields in found if fields}
    return {"variables": variables, "connections": connections, "environment": {}}


def _fields(connection_id: str, session: Session) -> dict[str, Any] | None:
    from airflow.models.connection import Connection
    from sqlalchemy import select
    from sqlalchemy.exc import DBAPIError

    try:
        # Loading the row decrypts it.
        connection = session.scalars(select(Connection).where(Connection.conn_id == connection_id)).one()
        return {
            "conn_id": connection.conn_id,
            "conn_type": connection.conn_type,
            "host": connection.host,
            "schema": connection.schema,
            "login": connection.login,
            "password": connection.password,
            "port": connection.port,
            "extra": connection.extra,
        }
    except Exception as error:
        if isinstance(error, DBAPIError):
            raise
        # One Connection must not keep all DAG files from being parsed.
        traceback.print_exc()
        return None


def apply_writes(writes: Iterable[Write]) -> None:
    """Set and delete the Variables that a file has set and deleted while it was imported.

    Skips a Variable that has this value already: to write it again would change its stored state, and have its readers
    parsed again after every parse.
    """
    from airflow.models.variable import Variable
    from airflow.utils.session import create_session
    from sqlalchemy import select

    with create_session() as session:
        for write in writes:
            existing = session.scalar(select(Variable).where(Variable.key == write["key"]))
            if write["value"] is None:
                Variable.delete(write["key"], session=session)
            elif existing is None or (existing.val, existing.description) != (write["value"], write["description"]):
                Variable.set(write["key"], write["value"], description=write["description"], session=session)
