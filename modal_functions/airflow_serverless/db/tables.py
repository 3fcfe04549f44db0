"""The few tables of our own beside Airflow's, so that their content is committed with what it describes.

Each function takes a SQLAlchemy connection to either database; who calls it commits.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from sqlalchemy import (
    CheckConstraint,
    Column,
    ColumnElement,
    Connection,
    Double,
    Integer,
    MetaData,
    Table,
    Text,
    and_,
    delete,
    insert,
    inspect,
    select,
    update,
)

KEPT_SECONDS = 8 * 24 * 3600
"""Longer than Modal keeps a call, and so longer than a call can come back."""

SCHEMA = MetaData()
VERSION = Table(
    "airflow_serverless_version",
    SCHEMA,
    Column("one", Integer, CheckConstraint("one = 1"), primary_key=True, autoincrement=False),
    Column("generation", Integer, nullable=False),
    Column("fence", Integer, nullable=False),
)
ENVIRONMENT = Table("airflow_serverless_environment", SCHEMA, Column("name", Text, primary_key=True))
JOURNAL = Table(
    "airflow_serverless_journal",
    SCHEMA,
    Column("ti_id", Text, primary_key=True),
    Column("launch", Text, primary_key=True),
    Column("next_sequence", Integer, nullable=False),
    Column("aborted", Integer, nullable=False),
    Column("updated_at", Double, nullable=False),
)
FILE = Table(
    "airflow_serverless_file",
    SCHEMA,
    Column("path", Text, primary_key=True),
    Column("digest", Text, nullable=False),
    Column("kind", Text, nullable=False),
)
DEFINITION = Table(
    "airflow_serverless_definition",
    SCHEMA,
    Column("path", Text, primary_key=True),
    Column("dag_id", Text, primary_key=True),
)
READ = Table(
    "airflow_serverless_read",
    SCHEMA,
    Column("path", Text, primary_key=True),
    Column("kind", Text, primary_key=True),
    Column("name", Text, primary_key=True),
    Column("state", Text, nullable=False),
)
COMMAND = Table(
    "airflow_serverless_command",
    SCHEMA,
    Column("id", Text, primary_key=True),
    Column("reply", Text, nullable=False),
    Column("updated_at", Double, nullable=False),
)
QUARANTINE = Table(
    "airflow_serverless_quarantine",
    SCHEMA,
    Column("kind", Text, primary_key=True),
    Column("name", Text, primary_key=True),
    Column("traceback", Text, nullable=False),
    Column("failures", Integer, nullable=False),
    Column("first_at", Double, nullable=False),
    Column("retry_at", Double, nullable=False),
    Column("software", Text, nullable=False),
)


class QuarantineRecord(NamedTuple):
    """What failed and is left out. Times in seconds since the epoch; `software` is what it failed with."""

    kind: str
    name: str
    traceback: str
    failures: int
    first_at: float
    retry_at: float
    software: str


def create(connection: Connection, environment: str) -> None:
    """Create what is missing, and note whose database this is."""
    SCHEMA.create_all(connection)
    if connection.execute(select(VERSION)).first() is None:
        connection.execute(insert(VERSION).values(one=1, generation=0, fence=0))
    if connection.execute(select(ENVIRONMENT)).first() is None:
        connection.execute(insert(ENVIRONMENT).values(name=environment))


def add_missing(connection: Connection) -> None:
    """Create the tables that a database of an earlier version lacks: ticks may come before its next migration."""
    if SCHEMA.tables.keys() - set(inspect(connection).get_table_names()):
        SCHEMA.create_all(connection)


def owner(connection: Connection) -> str | None:
    """The environment whose database this is, None if nobody has noted it."""
    if not inspect(connection).has_table(ENVIRONMENT.name):
        return None
    return connection.scalar(select(ENVIRONMENT.c.name))


def get_version(connection: Connection) -> tuple[int, int]:
    """(generation, fence) of the state."""
    generation, fence = connection.execute(select(VERSION.c.generation, VERSION.c.fence)).one()
    return int(generation), int(fence)


def set_version(connection: Connection, generation: int, fence: int) -> None:
    """Store the generation and the fence."""
    connection.execute(update(VERSION).values(generation=generation, fence=fence))


def get_offset(connection: Connection, ti_id: str, launch: str) -> tuple[int, bool]:
    """(sequence of the next journal record to replay, whether the launch's records are dropped)."""
    query = select(JOURNAL.c.next_sequence, JOURNAL.c.aborted).where(_launch(ti_id, launch))
    row = connection.execute(query).first()
    return (int(row[0]), bool(row[1])) if row else (0, False)


def set_offset(connection: Connection, ti_id: str, launch: str, sequence: int, aborted: bool) -> None:
    """Store how far the journal of a launch was replayed."""
    now = time.time()
    connection.execute(delete(JOURNAL).where(_launch(ti_id, launch) | (JOURNAL.c.updated_at < now - KEPT_SECONDS)))
    connection.execute(
        insert(JOURNAL).values(ti_id=ti_id, launch=launch, next_sequence=sequence, aborted=int(aborted), updated_at=now)
    )


def _launch(ti_id: str, launch: str) -> ColumnElement[bool]:
    return and_(JOURNAL.c.ti_id == ti_id, JOURNAL.c.launch == launch)


def get_files(connection: Connection) -> dict[str, tuple[str, str]]:
    """{path in the DAG folder: (digest, kind)} as of the last parse."""
    rows = connection.execute(select(FILE.c.path, FILE.c.digest, FILE.c.kind))
    return {path: (digest, kind) for path, digest, kind in rows}


def set_files(connection: Connection, files: Iterable[tuple[str, str, str]]) -> None:
    """Replace the manifest by (path, digest, kind) rows."""
    connection.execute(delete(FILE))
    if rows := [{"path": path, "digest": digest, "kind": kind} for path, digest, kind in files]:
        connection.execute(insert(FILE), rows)


def get_definitions(connection: Connection) -> dict[str, set[str]]:
    """{path in the DAG folder: ids of the DAGs in the file}."""
    found: dict[str, set[str]] = {}
    for path, dag_id in connection.execute(select(DEFINITION.c.path, DEFINITION.c.dag_id)):
        found.setdefault(path, set()).add(dag_id)
    return found


def set_definitions(connection: Connection, path: str, dag_ids: Iterable[str]) -> None:
    """Replace what is noted of a file."""
    connection.execute(delete(DEFINITION).where(DEFINITION.c.path == path))
    if rows := [{"path": path, "dag_id": dag_id} for dag_id in dag_ids]:
        connection.execute(insert(DEFINITION), rows)


def get_reads(connection: Connection) -> dict[str, dict[tuple[str, str], str]]:
    """{path in the DAG folder: {(kind, name) of what was read when it was parsed: its state then}}."""
    found: dict[str, dict[tuple[str, str], str]] = {}
    for path, kind, name, state in connection.execute(select(READ.c.path, READ.c.kind, READ.c.name, READ.c.state)):
        found.setdefault(path, {})[kind, name] = state
    return found


def set_reads(connection: Connection, path: str, states: Mapping[tuple[str, str], str]) -> None:
    """Replace the recorded reads of a file."""
    connection.execute(delete(READ).where(READ.c.path == path))
    if rows := [{"path": path, "kind": kind, "name": name, "state": state} for (kind, name), state in states.items()]:
        connection.execute(insert(READ), rows)


def get_quarantine(connection: Connection) -> list[QuarantineRecord]:
    """All that is quarantined."""
    return [QuarantineRecord(*row) for row in connection.execute(select(QUARANTINE))]


def set_quarantine(connection: Connection, kind: str, name: str, record: QuarantineRecord | None) -> None:
    """Replace the record of this kind and name, or remove it."""
    connection.execute(delete(QUARANTINE).where(QUARANTINE.c.kind == kind, QUARANTINE.c.name == name))
    if record is not None:
        connection.execute(insert(QUARANTINE).values(**record._asdict()))


def get_reply(connection: Connection, command_id: str) -> str | None:
    """The JSON reply of a command that was applied before, so that it is not applied twice."""
    return connection.scalar(select(COMMAND.c.reply).where(COMMAND.c.id == command_id))


def set_reply(connection: Connection, command_id: str, reply: str) -> None:
    """Store the reply to a command, and remove old ones."""
    now = time.time()
    old = (COMMAND.c.id == command_id) | (COMMAND.c.updated_at < now - KEPT_SECONDS)
    connection.execute(delete(COMMAND).where(old))
    connection.execute(insert(COMMAND).values(id=command_id, reply=reply, updated_at=now))
