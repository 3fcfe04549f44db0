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
        """A connection whose changes are published together with those that Airflow's ORM makes inside the block."""
        with self.get_connection() as connection:
            yield connection
            connection.commit()

    @abstractmethod
    def acquire_lock(self, lock_name: str, timeout: int) -> bool:
        """Take a lock that excludes all other processes of the environment; False after `timeout` seconds."""

    @abstractmethod
    def release_lock(self, lock_name: str) -> None:
        """Give the lock up; does nothing if it is not held."""

    @abstractmethod
    def exists(self) -> bool:
        """Whether the database was initialised. Raises DatabaseError if it is somebody else's."""

    @abstractmethod
    def load(self) -> None:
        """Let Airflow's ORM see the published state. Raises DatabaseError if there is none."""

    @abstractmethod
    def publish(self) -> int:
        """Make all changes durable and visible to others; returns the new generation. Raises LockLost."""

    @abstractmethod
    def discard(self) -> None:
        """Forget changes that were not published."""
