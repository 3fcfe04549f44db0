"""Commands about Airflow's connections. Passwords and extras are encrypted by the database's models."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

from airflow_serverless.commands.command import CommandError, Request, Result, page, select_existing

if TYPE_CHECKING:
    from airflow.models.connection import Connection
    from sqlalchemy.orm import Session

LONGEST_ID = 200
ID = re.compile(r"[\w.-]+")
"""What Airflow's REST API and command line take."""
FIELDS = frozenset({"conn_type", "description", "host", "login", "password", "schema", "port", "extra"})


def list_all(request: Request) -> Result:
    """`limit`, `offset`, `hide_sensitive` → connections with all their fields, by id."""
    from airflow.models.connection import Connection
    from airflow.utils.session import create_session

    with create_session() as session:
        found, total = page(Connection, Connection.conn_id, request, session)
        return {
            "connections": [_described(connection, bool(request.get("hide_sensitive"))) for connection in found],
            "total_entries": total,
        }


def get(request: Request) -> Result:
    """`connection_id`, `hide_sensitive` → the connection."""
    from airflow.utils.session import create_session

    with create_session() as session:
        return _described(_existing(request["connection_id"], session), bool(request.get("hide_sensitive")))


def put(request: Request) -> Result:
    """Create or replace connections.

    Request: `connections` ([{"connection_id", and "uri" or the fields}]), `action_on_existing_key`. Returns the ids
    `written` and `skipped`.
    """
    from airflow.models.connection import Connection
    from airflow.utils.session import create_session
    from sqlalchemy import delete

    ids = [_valid_id(entry["connection_id"]) for entry in request["connections"]]
    entries = {key: _made(key, entry) for key, entry in zip(ids, request["connections"], strict=True)}
    with create_session() as session:
        existing = select_existing(Connection.conn_id, entries, request, "connections", session)
        written = [key for key in entries if key not in existing]
        session.execute(delete(Connection).where(Connection.conn_id.in_(written)))
        session.add_all([entries[key] for key in written])
    return {"written": written, "skipped": sorted(existing)}


def delete(request: Request) -> Result:
    """`connection_id`: remove the connection."""
    from airflow.utils.session import create_session

    with create_session() as session:
        session.delete(_existing(request["connection_id"], session))
    return {}


def _valid_id(connection_id: str) -> str:
    if len(connection_id) > LONGEST_ID or not ID.fullmatch(connection_id):
        words = f"an id has 1 to {LONGEST_ID} letters, digits, '_', '-' and '.'"
        raise CommandError(f"connection {connection_id!r}: {words}")
    return connection_id


def _existing(connection_id: str, session: Session) -> Connection:
    from airflow.models.connection import Connection
    from sqlalchemy import select

    connection = session.scalar(select(Connection).where(Connection.conn_id == connection_id))
    if connection is None:
        raise CommandError(f"there is no connection {connection_id!r}", "not_found")
    return connection


def _made(connection_id: str, entry: Request) -> Connection:
    """The connection of an entry. What is wrong with it is told without its values, which may be secrets."""
    from airflow.exceptions import AirflowException
    from airflow.models.connection import Connection

    fields = {name: value for name, value in entry.items() if value is not None and name != "connection_id"}
    uri = fields.pop("uri", None)
    if uri is not None and set(fields) - {"description"}:
        raise CommandError(f"connection {connection_id!r} has a URI and fields of its own: use one of them")
    if unknown := sorted(set(fields) - FIELDS):
        raise CommandError(f"connection {connection_id!r} has unknown fields: {', '.join(unknown)}")
    try:
        if uri is not None:
            connection = Connection(connection_id, uri=uri, description=fields.get("description"))
        else:
            connection = Connection.from_json(json.dumps(fields), connection_id)
    except (AirflowException, ValueError, TypeError) as error:
        raise CommandError(f"connection {connection_id!r} is not valid: see its URI, port and extra") from error
    if not connection.conn_type:
        raise CommandError(f"connection {connection_id!r} has no type: name it with `conn_type` or a URI's scheme")
    return connection


def _described(connection: Connection, hide_sensitive: bool) -> Result:
    """As Airflow's REST API has it, with the URI that Airflow's command line also shows if nothing is hidden."""
    from airflow._shared.secrets_masker import redact

    described: Result = {
        "connection_id": connection.conn_id,
        "conn_type": connection.conn_type,
        "description": connection.description,
        "host": connection.host,
        "login": connection.login,
        "schema": connection.schema,
        "port": connection.port,
        "password": connection.password,
        "extra": connection.extra,
        "uri": connection.get_uri(),
    }
    if hide_sensitive:
        described["uri"] = None
        described["password"] = connection.password and "***"
        described["extra"] = connection.extra and json.dumps(redact(json.loads(connection.extra)))
    return described
