"""SQLite on the volume: a published snapshot, replaced as a whole by the one process that holds the lock."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
from pathlib import Path

import modal
from sqlalchemy import NullPool, create_engine

from airflow_serverless.config import Paths
from airflow_serverless.db import tables
from airflow_serverless.db.backend import DatabaseBackend, DatabaseError, LockLost
from airflow_serverless.db.dict_lock import DictLock

BUSY_SECONDS = 30


class SqliteBackend(DatabaseBackend):
    """Works on a private copy in WAL mode; the volume only ever sees finished files."""

    def __init__(self, paths: Paths, volume: modal.Volume, store: modal.Dict) -> None:
        self._paths = paths
        self._volume = volume
        self._store = store
        self._locks: dict[str, DictLock] = {}
        self._generation = 0
        self._copy_is_current = False

    @property
    def generation(self) -> int:
        return self._generation

    def acquire_lock(self, lock_name: str, timeout: int) -> bool:
        lock = DictLock(self._store, lock_name, modal.current_function_call_id())
        published = self._paths.published_database
        fence = snapshot_version(published)[1] if published.exists() else 0
        if not lock.acquire(timeout, above=fence):
            return False
        self._locks[lock_name] = lock
        return True

    def release_lock(self, lock_name: str) -> None:
        if lock := self._locks.pop(lock_name, None):
            lock.release()

    def exists(self) -> bool:
        """Whether a snapshot has been published; also brings the volume up to date."""
        self._volume.reload()
        return self._paths.published_database.exists()

    def load(self) -> None:
        if not self.exists():
            raise DatabaseError("the metadata database has not been initialised")
        generation, fence = snapshot_version(self._paths.published_database)
        for lock in self._locks.values():
            # An equal fence is this tenure's own: an earlier round of the same tick has published.
            if fence > lock.fence:
                raise LockLost(f"fence {lock.fence} is older than that of the published database, {fence}")
        if not (self._copy_is_current and generation == self._generation):
            copy_snapshot(self._paths.published_database, self._paths.local_database)
        self._generation = generation
        self._copy_is_current = True

    def publish(self) -> int:
        lock = next(iter(self._locks.values()), None)
        if lock is None or not lock.is_held():
            raise LockLost("the scheduler lock was lost; the changes of this tick are dropped")
        self._copy_is_current = False
        generation = self._generation + 1
        with self.get_connection() as connection:
            tables.set_version(connection, generation, lock.fence)
            connection.commit()
        close_orm()
        _checkpoint(self._paths.local_database)
        _replace(self._paths.local_database, self._paths.published_database, lock)
        self._volume.commit()
        self._generation = generation
        self._copy_is_current = True
        return generation

    def discard(self) -> None:
        self._copy_is_current = False


def snapshot_version(path: Path) -> tuple[int, int]:
    """Generation and fence of a snapshot, without locking it: on the volume it is never changed in place."""
    uri = f"{path.absolute().as_uri()}?mode=ro&immutable=1"
    engine = create_engine("sqlite://", creator=lambda: sqlite3.connect(uri, uri=True), poolclass=NullPool)
    with engine.connect() as connection:
        return tables.get_version(connection)


def copy_snapshot(source: Path, target: Path) -> None:
    """Put a fresh copy where Airflow's ORM of this process looks for its database."""
    close_orm()
    for suffix in ("-wal", "-shm"):
        target.with_name(target.name + suffix).unlink(missing_ok=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(target.name + ".partial")
    shutil.copyfile(source, partial)
    partial.replace(target)
    with contextlib.closing(sqlite3.connect(target, timeout=BUSY_SECONDS)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")


def _checkpoint(path: Path) -> None:
    """Bring all changes from the log into the file, which is then the whole database."""
    with contextlib.closing(sqlite3.connect(path, timeout=BUSY_SECONDS)) as connection:
        # A database that was created a moment ago is not in this mode yet.
        connection.execute("PRAGMA journal_mode=WAL")
        busy, _, _ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    if busy:
        raise DatabaseError("a connection was left open; the database cannot be published")


def close_orm() -> None:
    """Close pooled connections, so that the file under them can be read or replaced as a whole."""
    from airflow import settings

    if settings.engine is not None:
        settings.engine.dispose()
    if settings.async_engine is not None:
        settings.async_engine.sync_engine.dispose()


def _replace(source: Path, target: Path, lock: DictLock) -> None:
    """Write beside the target and rename, so that no reader ever sees half a database."""
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.{lock.fence}")
    with source.open("rb") as reader, partial.open("wb") as writer:
        shutil.copyfileobj(reader, writer, 1 << 20)
        writer.flush()
        os.fsync(writer.fileno())
    if not lock.is_held():
        partial.unlink()
        raise LockLost("the scheduler lock was lost while the database was written")
    partial.replace(target)
    directory = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
