"""Commands about Airflow's variables. Values are encrypted by the database's models, with the Secret's key."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from airflow_serverless.commands.command import CommandError, Request, Result, page, select_existing, valid_name

if TYPE_CHECKING:
    from airflow.models.variable import Variable

LONGEST_KEY = 250


def list_all(request: Request) -> Result:
    """`limit`, `offset`, `hide_sensitive` → variables with their values, by key."""
    from airflow.models.variable import Variable
    from airflow.utils.session import create_session

    with create_session() as session:
        found, total = page(Variable, Variable.key, request, session)
        return {
            "variables": [_described(variable, bool(request.get("hide_sensitive"))) for variable in found],
            "total_entries": total,
        }


def get(request: Request) -> Result:
    """`key`, `hide_sensitive` → the variable."""
    from airflow.models.variable import Variable
    from airflow.utils.session import create_session
    from sqlalchemy import select

    with create_session() as session:
        variable = session.scalar(select(Variable).where(Variable.key == request["key"]))
        if variable is None:
            raise CommandError(f"there is no variable {request['key']!r}", "not_found")
        return _described(variable, bool(request.get("hide_sensitive")))


def put(request: Request) -> Result:
    """`variables` ([{"key", "value", "description"}]), `action_on_existing_key` → keys `written` and `skipped`.

    A value that is not text is stored as JSON.
    """
    from airflow.models.variable import Variable
    from airflow.utils.session import create_session

    entries = {valid_name(entry["key"], LONGEST_KEY, "variable"): entry for entry in request["variables"]}
    with create_session() as session:
        existing = select_existing(Variable.key, entries, request, "variables", session)
        written = [key for key in entries if key not in existing]
        for key in written:
            value = entries[key]["value"]
            Variable.set(
                key,
                value,
                description=entries[key].get("description"),
                serialize_json=not isinstance(value, str),
                session=session,
            )
    return {"written": written, "skipped": sorted(existing)}


def delete(request: Request) -> Result:
    """`key`: remove the variable."""
    from airflow.models.variable import Variable
    from airflow.utils.session import create_session

    with create_session() as session:
        if not Variable.delete(request["key"], session=session):
            raise CommandError(f"there is no variable {request['key']!r}", "not_found")
    return {}


def _described(variable: Variable, hide_sensitive: bool) -> Result:
    """As Airflow's REST API has it; a value is hidden if its key, or a key inside of it, sounds sensitive."""
    from airflow._shared.secrets_masker import redact

    value = variable.val
    if value is None:
        raise CommandError(f"variable {variable.key!r} cannot be decrypted: it was stored with another Fernet key")
    if hide_sensitive:
        try:
            value = json.dumps(redact(json.loads(value), variable.key))
        except ValueError:
            value = str(redact(value, variable.key))
    return {
        "key": variable.key,
        "value": value,
        "description": variable.description,
        "is_encrypted": bool(variable.is_encrypted),
    }
