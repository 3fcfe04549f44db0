"""SQLite on the volume: a published snapshot, replaced as a whole by the one process that holds the lock."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
from pathlib import Path

import modal
from sqlalchemy import NullPool, create_engine
from sqlalchemy.exc import SQLAlchemyError

from airflow_serverless.config import DATABASE, Paths
from airflow_serverless.db import backups, tables
from airflow_serverless.db.backend import (
    DatabaseBackend,
    DatabaseDamaged,
    DatabaseError,
    LockLost,
    NotInitialized,
    close_orm,
)
from airflow_serverless.db.dict_lock import DictLock

BUSY_SECONDS = 30
MAGIC = b"SQLite format 3\0"


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
        """How often the database was published."""
        return self._generation

    def acquire_lock(self, lock_name: str, timeout: int) -> bool:
        """Take a lock in the Dict; returns whether that worked within `timeout` seconds."""
        lock = DictLock(self._store, lock_name, modal.current_function_call_id())
        try:
            _, fence = snapshot_version(self._paths.published_database)
        except (NotInitialized, DatabaseDamaged):
            # It is `load` that tells, or a backup is loaded.
            fence = 0
        if not lock.acquire(timeout, above=fence):
            return False
        self._locks[lock_name] = lock
        return True

    def release_lock(self, lock_name: str) -> None:
        """Give a lock back."""
        if lock := self._locks.pop(lock_name, None):
            lock.release()

    def exists(self) -> bool:
        """Whether a snapshot has been published; also brings the volume up to date."""
        self._volume.reload()
        return self._paths.published_database.exists()

    def was_lost(self) -> bool:
        """Whether there is no database where backups show that there was one."""
        published = self._paths.published_database
        return not published.exists() and bool(backups.names(published))

    def load(self) -> None:
        """Copy the published database to the private one."""
        self._volume.reload()
        generation, fence = snapshot_version(self._paths.published_database)
        for lock in self._locks.values():
            # An equal fence is this tenure's own: an earlier round of the same tick has published.
            if fence > lock.fence:
                raise LockLost(f"fence {lock.fence} is older than that of the published database, {fence}")
        if not (self._copy_is_current and generation == self._generation):
            copy_snapshot(self._paths.published_database, self._paths.local_database)
        self._generation = generation
        self._copy_is_current = True

    def roll_back(self, backup: str, generation: int) -> bool:
        """Replace the private copy by a backup; returns whether it could be loaded."""
        self._volume.reload()
        published = self._paths.published_database
        if not backups.can_be_loaded(published, backup):
            return False
        of_backup, _ = snapshot_version(path := backups.path_of(published, backup))
        backups.keep_replaced(published, generation, backup)
        copy_snapshot(path, self._paths.local_database)
        self._generation = max(generation, of_backup)
        self._copy_is_current = True
        return True

    def keep_before_migration(self) -> None:
        """Keep a copy of the published database."""
        backups.keep_replaced(self._paths.published_database, self._generation)

    def publish(self) -> int:
        """Replace the published database by the private copy; returns the new generation.

        Raises:
            LockLost: Another tick holds the scheduler lock.
        """
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
        backups.keep(self._paths.published_database, self._generation)
        _replace(self._paths.local_database, self._paths.published_database, lock)
        self._volume.commit()
        self._generation = generation
        self._copy_is_current = True
        return generation

    def discard(self) -> None:
        """Forget the private copy."""
        self._copy_is_current = False


def snapshot_version(path: Path) -> tuple[int, int]:
    """Generation and fence of a snapshot, without locking it: on the volume it is never changed in place.

    Raises NotInitialized if there is none, and DatabaseDamaged if it is not whole.
    """
    _check_header(path)
    uri = f"{path.absolute().as_uri()}?mode=ro&immutable=1"
    engine = create_engine("sqlite://", creator=lambda: sqlite3.connect(uri, uri=True), poolclass=NullPool)
    try:
        with engine.connect() as connection:
            return tables.get_version(connection)
    except SQLAlchemyError as error:
        raise _damaged(path, str(getattr(error, "orig", error))) from error


def _check_header(path: Path) -> None:
    """Raise unless its first bytes say that a file is a whole database: SQLite looks only at what it reads.

    See "The Database Header" in SQLite's description of its file format.
    """
    try:
        with path.open("rb") as file:
            header = file.read(100)
    except FileNotFoundError:
        raise NotInitialized(
            f"the metadata database {DATABASE} is missing on the Volume; {_way_out(path, '')}"
        ) from None
    size = path.stat().st_size
    if not size:
        raise _damaged(path, "it is empty")
    if not header.startswith(MAGIC) or len(header) < 100:
        raise _damaged(path, "it is not a SQLite database")
    page_size = int.from_bytes(header[16:18]) if header[16:18] != b"\0\1" else 65536
    wanted = page_size * int.from_bytes(header[28:32])
    if size < wanted:
        raise _damaged(path, f"it has {size} of {wanted} bytes")


def _damaged(path: Path, why: str) -> DatabaseDamaged:
    return DatabaseDamaged(
        f"the metadata database {DATABASE} on the Volume is damaged: {why}; {_way_out(path, 'move it away, ')}"
    )


def _way_out(path: Path, first: str) -> str:
    known = backups.names(path)
    if known:
        return f"the newest backup is {known[0]}, which `env rollback` loads"
    return f"there is no backup: {first}delete the environment, and create it again"


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
