"""Creates the metadata database of an environment, or brings an existing one to this version of Airflow."""

from __future__ import annotations

from typing import Any

from airflow_serverless.db import tables
from airflow_serverless.db.backend import SCHEDULER_LOCK, DatabaseBackend, DatabaseError
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
        _migrate(backend, context.settings.environment)
        context.paths.dags.mkdir(parents=True, exist_ok=True)
        context.paths.logs.mkdir(parents=True, exist_ok=True)
        return {"created": created, "migrated": True, "generation": backend.publish()}
    except BaseException:
        backend.discard()
        raise
    finally:
        backend.release_lock(SCHEDULER_LOCK)


def _is_current(backend: DatabaseBackend) -> bool:
    from airflow.utils.db import _REVISION_HEADS_MAP
    from sqlalchemy import text

    with backend.get_connection() as connection:
        revision = connection.scalar(text("SELECT version_num FROM alembic_version"))
    return bool(revision == list(_REVISION_HEADS_MAP.values())[-1])


def _migrate(backend: DatabaseBackend, environment: str) -> None:
    from airflow.dag_processing.bundles.manager import DagBundlesManager
    from airflow.utils.db import initdb

    # First: a database that Airflow has begun to fill has to be known as this environment's.
    with backend.get_connection() as connection:
        tables.create(connection, environment)
        connection.commit()
    initdb()
    DagBundlesManager().sync_bundles_to_db()
