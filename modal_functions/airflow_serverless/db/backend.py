"""What the scheduler needs of a metadata database, whichever it is."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sqlalchemy import Connection

SCHEDULER_LOCK = "scheduler"


class DatabaseError(RuntimeError):
    """The database is missing, not ready, or no longer ours to write."""


class NotInitialized(DatabaseError):
    """`initialize_database` has not published a database yet, or it was lost since."""


class DatabaseDamaged(DatabaseError):
    """What is published is not a whole database."""


class DatabaseOlder(DatabaseError):
    """`initialize_database` has yet to bring the database to this version of Airflow."""


class DatabaseNewer(DatabaseError):
    """The database is of a newer version of Airflow."""


class LockLost(DatabaseError):
    """The lock ended or went to another holder; nothing was written."""


class DatabaseBackend(ABC):
    """A metadata database that one tick at a time may write.

    The order of a tick is acquire_lock, load, work through Airflow's ORM, publish, release_lock.
    """

    @property
    @abstractmethod
    def generation(self) -> int:
        """Number of the published state that was last loaded or published; tasks need at least their own."""

    def get_connection(self) -> Connection:
        """A new connection to what Airflow's ORM of this process works on; the caller closes it."""
        from airflow import settings

        return settings.get_engine().connect()

    @contextlib.contextmanager
    def transaction(self) -> Iterator[Connection]:
        """A connection whose changes are committed together with those that Airflow's ORM makes inside the block.

        Meanwhile the ORM works in savepoints of this one transaction, wherever it opens and commits its sessions.
        """
        from airflow import settings

        sessions = settings.Session
        assert sessions is not None
        with self.get_connection() as connection, connection.begin():
            if connection.dialect.name == "sqlite":
                # Its driver would begin the transaction with the first change, which may be in a savepoint.
                connection.exec_driver_sql("BEGIN")
            sessions.remove()
            sessions.configure(bind=connection, join_transaction_mode="create_savepoint")
            try:
                yield connection
            finally:
                sessions.remove()
                sessions.configure(bind=settings.get_engine(), join_transaction_mode="conditional_savepoint")

    @abstractmethod
    def acquire_lock(self, lock_name: str, timeout: int) -> bool:
        """Take a lock that excludes all other processes of the environment; False after `timeout` seconds."""

    @abstractmethod
    def release_lock(self, lock_name: str) -> None:
        """Give the lock up; does nothing if it is not held."""

    @abstractmethod
    def exists(self) -> bool:
        """Whether the database was initialised. Raises DatabaseError if it is somebody else's."""

    def was_lost(self) -> bool:
        """Whether there is none although there was one, of which there are backups."""
        return False

    @abstractmethod
    def load(self) -> None:
        """Let Airflow's ORM see the published state. Raises NotInitialized if there is none, and DatabaseDamaged."""

    @abstractmethod
    def publish(self) -> int:
        """Make all changes durable and visible to others; returns the new generation. Raises LockLost."""

    def roll_back(self, backup: str, generation: int) -> bool:
        """Load a backup in place of the published state, as one of at least this generation; False if there is none."""
        return False

    @abstractmethod
    def keep_before_migration(self) -> None:
        """Keep a copy of the published state, so that a migration can be undone."""

    @abstractmethod
    def discard(self) -> None:
        """Forget changes that were not published."""


def close_orm() -> None:
    """Close pooled connections, so that the file under them can be read or replaced as a whole."""
    from airflow import settings

    if settings.engine is not None:
        settings.engine.dispose()
    if settings.async_engine is not None:
        settings.async_engine.sync_engine.dispose()
