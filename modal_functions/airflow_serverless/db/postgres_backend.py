"""PostgreSQL: every step of a tick commits by itself, and an advisory lock keeps out all other ticks."""

from __future__ import annotations

import contextlib
import hashlib
import threading
import time
from collections.abc import Iterator

import modal
from sqlalchemy import Connection, NullPool, create_engine, inspect, text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from airflow_serverless.db import tables
from airflow_serverless.db.backend import DatabaseBackend, DatabaseError, LockLost, NotInitialized, close_orm
from airflow_serverless.db.connection_string import ConnectionString

POLL_SECONDS = 0.2
PREPARE = (
    # A holder whose machine vanished is noticed by the server, and loses the lock, within a minute.
    "SET tcp_keepalives_idle = 20",
    "SET tcp_keepalives_interval = 10",
    "SET tcp_keepalives_count = 3",
)
HELD = text(
    "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND granted AND pid = pg_backend_pid()"
    " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
    " AND (classid::bigint << 32) | objid::bigint = :key AND objsubid = 1"
)


class PostgresBackend(DatabaseBackend):
    """PostgreSQL; the scheduler lock is an advisory lock of a session.

    What must not happen without the lock is executed in that session: if the session was lost, so was the lock.
    """

    def __init__(self, environment: str, volume: modal.Volume) -> None:
        self._environment = environment
        self._volume = volume
        self._locks: dict[str, Connection] = {}
        self._generation = 0

    @property
    def generation(self) -> int:
        """How often the database was published."""
        return self._generation

    def acquire_lock(self, lock_name: str, timeout: int) -> bool:
        """Take an advisory lock; returns whether that worked within `timeout` seconds."""
        deadline = time.monotonic() + timeout
        with explained():
            connection = self._connect()
            try:
                for statement in PREPARE:
                    connection.execute(text(statement))
                while not connection.scalar(text("SELECT pg_try_advisory_lock(:key)"), {"key": self._key(lock_name)}):
                    if time.monotonic() >= deadline:
                        connection.close()
                        return False
                    threading.Event().wait(POLL_SECONDS)
            except BaseException:
                connection.close()
                raise
        self._locks[lock_name] = connection
        return True

    def release_lock(self, lock_name: str) -> None:
        """The server gives the lock up with the session, also with one that was lost before."""
        if connection := self._locks.pop(lock_name, None):
            connection.close()

    def exists(self) -> bool:
        """Whether the database was initialised. One of another environment, or of another Airflow, is refused."""
        with explained(), self.get_connection() as connection:
            owner = tables.owner(connection)
            has_airflow = inspect(connection).has_table("alembic_version")
        if owner not in (None, self._environment):
            raise DatabaseError(
                f"the database belongs to environment {owner!r}: give environment {self._environment!r} one of its own"
            )
        if owner is None and has_airflow:
            raise DatabaseError("the database belongs to another Airflow: name an empty one in the connection string")
        return owner is not None and has_airflow

    def load(self) -> None:
        """Read the generation.

        Raises:
            NotInitialized: The database has no tables.
        """
        # The DAG folder and XComs are there whatever holds the metadata.
        self._volume.reload()
        if not self.exists():
            raise NotInitialized("the metadata database is not initialized")
        self._assert_held()
        with explained(), self.get_connection() as connection:
            self._generation, _ = tables.get_version(connection)

    def keep_before_migration(self) -> None:
        """Do nothing: the server has backups of its own."""

    def publish(self) -> int:
        """Count a generation; the steps have committed already. Returns it."""
        generation = self._generation + 1
        for connection in self._assert_held():
            with lost_with_its_session():
                tables.set_version(connection, generation, 0)
        self._volume.commit()
        self._generation = generation
        return generation

    def discard(self) -> None:
        """Close the connections, which may be read-only since a failover. The next tick finds what was left undone."""
        close_orm()

    def _assert_held(self) -> list[Connection]:
        if not self._locks:
            raise LockLost("the scheduler lock is not held")
        for name, connection in self._locks.items():
            with lost_with_its_session():
                # A session is not its connection: a pooler between here and the server may have swapped it.
                if not connection.scalar(HELD, {"key": self._key(name)}):
                    raise LockLost("the scheduler lock was lost; the tick ends here")
        return list(self._locks.values())

    def _connect(self) -> Connection:
        # No pool: closing the connection is what ends the session.
        string = ConnectionString.of_process()
        engine = create_engine(
            string.for_sqlalchemy(), poolclass=NullPool, isolation_level="AUTOCOMMIT", connect_args=string.arguments()
        )
        return engine.connect()

    def _key(self, lock_name: str) -> int:
        """A number of 63 bits that others will not use by chance: locks are common to all users of the database."""
        digest = hashlib.sha256(f"airflow-serverless:{self._environment}:{lock_name}".encode()).digest()
        return int.from_bytes(digest[:8]) >> 1


@contextlib.contextmanager
def explained() -> Iterator[None]:
    """Say in one line what PostgreSQL did not like; its own message never holds the password."""
    try:
        yield
    except DBAPIError as error:
        reason = " ".join(str(error.orig).split())
        raise DatabaseError(f"PostgreSQL at {ConnectionString.of_process().server}: {reason}") from None


@contextlib.contextmanager
def lost_with_its_session() -> Iterator[None]:
    """A session that fails is not a proof of the lock any more."""
    try:
        yield
    except SQLAlchemyError as error:
        raise LockLost(f"the session that holds the scheduler lock is gone ({type(error).__name__})") from error
