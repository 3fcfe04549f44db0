"""What a warm scheduler process keeps between ticks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

import modal

from airflow_serverless.airflow_config import configure_airflow
from airflow_serverless.config import Paths, Settings
from airflow_serverless.dags.requirements import Environments
from airflow_serverless.db.backend import DatabaseBackend
from airflow_serverless.executor.launcher import Launcher
from airflow_serverless.scheduler.dag_folder import DagFolder
from airflow_serverless.state import State
from airflow_serverless.task_log import add_to_log


@dataclass(frozen=True)
class TickContext:
    """What ticks of this process share."""

    settings: Settings
    paths: Paths
    state: State
    volume: modal.Volume
    backend: DatabaseBackend
    launcher: Launcher
    folder: DagFolder

    @classmethod
    def of_process(cls) -> TickContext:
        """The one of this process; configures Airflow when first asked for."""
        return _context()

    def explain(self, lines: Mapping[str, str]) -> None:
        """Add {path of a task's log: line} to the logs. The next commit of the Volume makes it visible to others."""
        if lines:
            # What a container that is gone has committed must not be replaced by what was seen here before.
            self.volume.reload()
            for path, line in lines.items():
                add_to_log(self.paths.logs, path, line)


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
        volume,
        _backend(settings, paths, volume, state),
        Launcher(settings.app_name),
        DagFolder(paths.dags, Environments(paths.packages), frozenset(settings.environment_names)),
    )


def _backend(settings: Settings, paths: Paths, volume: modal.Volume, state: State) -> DatabaseBackend:
    if settings.database_type == "postgres":
        from airflow_serverless.db.postgres_backend import PostgresBackend

        return PostgresBackend(settings.environment, volume)
    from airflow_serverless.db.sqlite_backend import SqliteBackend

    return SqliteBackend(paths, volume, state.store)
