"""Creates the metadata database of an environment, or brings an existing one to this version of Airflow."""

from __future__ import annotations

from typing import Any

from airflow_serverless.db import tables
from airflow_serverless.db.backend import SCHEDULER_LOCK, DatabaseError
from airflow_serverless.db.sqlite_backend import SqliteBackend
from airflow_serverless.scheduler.context import TickContext

LOCK_TIMEOUT_SECONDS = 120


def initialize_database() -> dict[str, Any]:
    """Idempotent. Returns {"created": bool, "migrated": bool, "generation": int}."""
    context = TickContext.of_process()
    backend = context.backend
    if not backend.acquire_lock(SCHEDULER_LOCK, LOCK_TIMEOUT_SECONDS):
        raise DatabaseError("the scheduler lock is held by another process")
    try:
        created = not backend.exists()
        if not created:
            backend.load()
            if _is_current(backend):
                return {"created": False, "migrated": False, "generation": backend.generation}
        _migrate(backend)
        context.paths.dags.mkdir(parents=True, exist_ok=True)
        context.paths.logs.mkdir(parents=True, exist_ok=True)
        return {"created": created, "migrated": True, "generation": backend.publish()}
    except BaseException:
        backend.discard()
        raise
    finally:
        backend.release_lock(SCHEDULER_LOCK)


def _is_current(backend: SqliteBackend) -> bool:
    from airflow.utils.db import _REVISION_HEADS_MAP

    connection = backend.get_connection()
    try:
        revision = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    finally:
        connection.close()
    return bool(revision) and revision[0] == list(_REVISION_HEADS_MAP.values())[-1]


def _migrate(backend: SqliteBackend) -> None:
    from airflow.dag_processing.bundles.manager import DagBundlesManager
    from airflow.utils.db import initdb

    initdb()
    DagBundlesManager().sync_bundles_to_db()
    connection = backend.get_connection()
    try:
        connection.execute("PRAGMA journal_mode=WAL")
        tables.create(connection)
    finally:
        connection.close()
