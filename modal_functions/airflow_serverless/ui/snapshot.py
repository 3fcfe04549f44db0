"""The database that a read-only UI shows: a private copy of what the scheduler has published, replaced as a whole."""

from __future__ import annotations

import shutil
from typing import Any

from airflow_serverless.config import Paths
from airflow_serverless.db.sqlite_backend import snapshot_version

OPTIONS = {
    # A connection sees the copy that was there when it was opened, so each is opened anew and none is kept.
    "AIRFLOW__DATABASE__SQL_ALCHEMY_POOL_ENABLED": "False",
}


class Snapshot:
    """A copy that is replaced by rename. Whoever has opened the old one goes on reading that, whole as it was."""

    def __init__(self, paths: Paths) -> None:
        self._published = paths.published_database
        self._copy = paths.local_database
        self._generation = -1

    def refresh(self) -> None:
        """Copy what is published, if that is newer than the copy. The Volume has been reloaded, and stays as it is."""
        generation, _ = snapshot_version(self._published)
        if generation <= self._generation:
            return
        partial = self._copy.with_name(f"{self._copy.name}.partial")
        shutil.copyfile(self._published, partial)
        partial.replace(self._copy)
        self._generation = generation

    def open_for_airflow(self) -> None:
        """Have both engines of Airflow's ORM open the copy as what never changes, as SQLite calls it.

        Then nothing is written to it or beside it, and what lies beside it is not taken for a part of it.
        """
        from airflow import settings
        from sqlalchemy import event

        address = f"{self._copy.absolute().as_uri()}?mode=ro&immutable=1"
        assert settings.engine is not None and settings.async_engine is not None
        for engine in (settings.engine, settings.async_engine.sync_engine):

            @event.listens_for(engine, "do_connect")
            def connect(_dialect: Any, _record: Any, arguments: list[Any], options: dict[str, Any]) -> None:
                arguments[:] = [address]
                options["uri"] = True
