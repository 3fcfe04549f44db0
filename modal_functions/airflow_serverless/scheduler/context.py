"""What a warm scheduler process keeps between ticks."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import modal

from airflow_serverless.config import Paths, Settings, configure_airflow
from airflow_serverless.dags.requirements import Environments
from airflow_serverless.db.backend import DatabaseBackend
from airflow_serverless.executor.launcher import Launcher
from airflow_serverless.scheduler.dags import DagFolder
from airflow_serverless.state import State


@dataclass(frozen=True)
class TickContext:
    settings: Settings
    paths: Paths
    state: State
    backend: DatabaseBackend
    launcher: Launcher
    folder: DagFolder

    @classmethod
    def of_process(cls) -> TickContext:
        """The one of this process; configures Airflow when first asked for."""
        return _context()


@cache
def _context() -> TickContext:
    settings = Settings.from_environment()
    paths = Paths.from_environment()
    configure_airflow(settings, paths)
    state = State.of_environment(settings.dict_name)
    volume = modal.Volume.from_name(settings.volume_name)
    return TickContext(
        settings,
        paths,
        state,
        _backend(settings, paths, volume, state),
        Launcher(settings.app_name),
        DagFolder(paths.dags, Environments(paths.packages)),
    )


def _backend(settings: Settings, paths: Paths, volume: modal.Volume, state: State) -> DatabaseBackend:
    if settings.database_type == "postgres":
        from airflow_serverless.db.postgres_backend import PostgresBackend

        return PostgresBackend(settings.environment, volume)
    from airflow_serverless.db.sqlite_backend import SqliteBackend

    return SqliteBackend(paths, volume, state.store)
