"""Creates the metadata database of an environment, or brings an existing one to this version of Airflow."""

from __future__ import annotations

import contextlib
from typing import Any

from airflow_serverless.db import tables
from airflow_serverless.db.backend import SCHEDULER_LOCK, DatabaseBackend, DatabaseError, DatabaseOlder
from airflow_serverless.db.revision import check_revision
from airflow_serverless.scheduler.context import TickContext
from airflow_serverless.state import HEALTH

LOCK_TIMEOUT_SECONDS = 120
REASON = "deployment"


def initialize_database() -> dict[str, Any]:
    """Idempotent. Returns {"created": bool, "migrated": bool, "generation": int}.

    Raises NotInitialized if the database was lost and has backups.

    Starts a tick if there was a database: DAG files may read variables and options that were deployed just now.
    """
    context = TickContext.of_process()
    initialized = _initialize(context)
    if not initialized["created"]:
        context.state.wake(REASON)
        context.launcher.spawn_tick(REASON)
    return initialized


def _initialize(context: TickContext) -> dict[str, Any]:
    backend = context.backend
    if not backend.acquire_lock(SCHEDULER_LOCK, LOCK_TIMEOUT_SECONDS):
        raise DatabaseError("the scheduler lock is held by another process")
    try:
        # It may be of an environment that was deleted since. The next tick tells what is true now.
        context.state.remove([HEALTH])
        created = not backend.exists()
        # In the place of a lost one, an empty one would look as if all was well: loading says what to do.
        if not created or backend.was_lost():
            backend.load()
            with contextlib.suppress(DatabaseOlder):
                check_revision(backend)
                return {"created": False, "migrated": False, "generation": backend.generation}
            backend.keep_before_migration()
        _migrate(backend, context.settings.environment)
        context.paths.dags.mkdir(parents=True, exist_ok=True)
        context.paths.logs.mkdir(parents=True, exist_ok=True)
        return {"created": created, "migrated": True, "generation": backend.publish()}
    except BaseException:
        backend.discard()
        raise
    finally:
        backend.release_lock(SCHEDULER_LOCK)


def _migrate(backend: DatabaseBackend, environment: str) -> None:
    from airflow.dag_processing.bundles.manager import DagBundlesManager
    from airflow.utils.db import initdb

    # First: a database that Airflow has begun to fill has to be known as this environment's.
    with backend.get_connection() as connection:
        tables.create(connection, environment)
        connection.commit()
    initdb()
    DagBundlesManager().sync_bundles_to_db()
