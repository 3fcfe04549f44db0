"""What a warm container keeps between tasks, and the database as a task sees it."""

from __future__ import annotations

import threading
import uuid
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import modal

from airflow_serverless.airflow_config import configure_airflow
from airflow_serverless.config import DATABASE, Paths, Settings
from airflow_serverless.dags import plugins
from airflow_serverless.db.backend import DatabaseDamaged, NotInitialized
from airflow_serverless.execution_api import in_process, task_api
from airflow_serverless.executor.launcher import Launcher
from airflow_serverless.state import State, TaskEntry
from airflow_serverless.worker import masks, output, time_limit

if TYPE_CHECKING:
    from airflow_serverless.execution_api.task_api import TaskApi

SNAPSHOT_ATTEMPTS = 10
SNAPSHOT_WAIT_SECONDS = 1.0


class AttemptFailed(Exception):
    """The attempt ended without a result of its own; the scheduler decides about a retry."""


@dataclass(frozen=True)
class Worker:
    """One for each process that runs what users wrote."""

    settings: Settings
    paths: Paths
    state: State
    volume: modal.Volume
    launcher: Launcher

    @classmethod
    def of_process(cls) -> Worker:
        """The one of this process; configures Airflow when first asked for."""
        return _worker()

    def wake(self, reason: str) -> None:
        """Have the scheduler look at what was done."""
        if self.state.wake(reason):
            self.launcher.spawn_tick(reason)

    def is_wanted(self, entry: TaskEntry) -> bool:
        """Whether the database wants this launch. PostgreSQL can tell, and knows of a next launch before the Dict."""
        if self.settings.database_type != "postgres":
            return True
        from airflow.models.taskinstance import TaskInstance
        from airflow.utils.session import create_session
        from sqlalchemy import select

        query = select(TaskInstance.external_executor_id).where(TaskInstance.id == uuid.UUID(entry["ti_id"]))
        with create_session() as session:
            return session.scalar(query) == entry["launch"]

    def open_api(self, ti_id: str, launch: str, generation: int) -> TaskApi:
        """The Execution API for one launch, on a database that is at least of this generation.

        Raises AttemptFailed if there is none.
        """
        from airflow_serverless.worker.direct_api import DirectApi
        from airflow_serverless.worker.journal_writer import JournalWriter

        self.refresh(generation)
        task_api.hasten_supervisor_exit()
        output.keep_order()
        time_limit.log_timeouts()
        time_limit.limit_executions(self.settings.task_timeout)
        transport = in_process.transport()
        masks.mask_environment(self.settings.environment_names)
        if self.settings.database_type == "postgres":
            return DirectApi(transport, self.state, ti_id, launch, self)
        in_process.leave_listeners_to_the_tick()
        return JournalWriter(transport, self.state, ti_id, launch, self)

    def refresh(self, generation: int) -> None:
        """See the volume as it is now, with its plugins, and a database of at least this generation."""
        if self.settings.database_type == "postgres":
            self.volume.reload()
        else:
            self._fetch_snapshot(generation)
        if plugins.follow(self.paths.dags):
            in_process.forget_dags()

    def fetch_newer_snapshot(self, generation: int) -> None:
        """Make a private copy of what is published if that is newer than this generation.

        The Volume is not reloaded for it, which could not be done while the log of a task is open.
        """
        from airflow_serverless.db.sqlite_backend import copy_snapshot

        published = self.state.published()
        if published is None or published["generation"] <= generation:
            return
        download = self.paths.work / "published.db"
        with download.open("wb") as file:
            for chunk in self.volume.read_file(DATABASE):
                file.write(chunk)
        copy_snapshot(download, self.paths.local_database)

    def _fetch_snapshot(self, generation: int) -> None:
        """Make a private copy of a snapshot that knows the task; an older one would refuse to let it start."""
        from airflow_serverless.db.sqlite_backend import copy_snapshot, snapshot_version

        found = 0
        for attempt in range(SNAPSHOT_ATTEMPTS):
            if attempt:
                threading.Event().wait(SNAPSHOT_WAIT_SECONDS)
            self.volume.reload()
            try:
                found, _ = snapshot_version(self.paths.published_database)
            except (NotInitialized, DatabaseDamaged):
                continue
            if found >= generation:
                copy_snapshot(self.paths.published_database, self.paths.local_database)
                return
        raise AttemptFailed(f"the volume shows generation {found} of the database, not {generation}")


@cache
def _worker() -> Worker:
    settings = Settings.from_environment()
    paths = Paths.from_environment()
    configure_airflow(settings, paths)
    return Worker(
        settings,
        paths,
        State.of_environment(settings.dict_name),
        modal.Volume.from_name(settings.volume_name),
        Launcher(settings.app_name),
    )
