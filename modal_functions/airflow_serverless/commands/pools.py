"""Commands about Airflow's pools. They hold no secrets: who reads them reads the database."""

from __future__ import annotations

from airflow_serverless.commands.command import CommandError, Request, Result, select_existing, valid_name

LONGEST_NAME = 256
UNLIMITED = -1


def put(request: Request) -> Result:
    """Create or replace pools.

    Request: `pools` ([{"name", "slots", "description", "include_deferred"}]), `action_on_existing_key`. Returns the
    names `written` and `skipped`.
    """
    from airflow.models.pool import Pool
    from airflow.utils.session import create_session

    entries = {valid_name(entry["name"], LONGEST_NAME, "pool"): entry for entry in request["pools"]}
    for name, entry in entries.items():
        if entry["slots"] < UNLIMITED:
            raise CommandError(f"pool {name!r}: slots must be 0 or more, or {UNLIMITED} for no limit")
    with create_session() as session:
        existing = select_existing(Pool.pool, entries, request, "pools", session)
        written = [name for name in entries if name not in existing]
        for name in written:
            entry = entries[name]
            Pool.create_or_update_pool(
                name,
                entry["slots"],
                entry.get("description"),
                bool(entry.get("include_deferred")),
                session=session,
            )
    return {"written": written, "skipped": sorted(existing)}


def delete(request: Request) -> Result:
    """`name`: remove the pool; Airflow's default pool stays."""
    from airflow.exceptions import AirflowException, PoolNotFound
    from airflow.models.pool import Pool
    from airflow.utils.session import create_session

    try:
        with create_session() as session:
            Pool.delete_pool(request["name"], session=session)
    except PoolNotFound as error:
        raise CommandError(f"there is no pool {request['name']!r}", "not_found") from error
    except AirflowException as error:
        raise CommandError(str(error)) from error
    return {}
