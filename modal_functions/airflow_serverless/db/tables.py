"""The few tables of our own beside Airflow's, so that their content is published with what it describes.

Plain SQL on a DB-API connection with `?` parameters; each function commits.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterable

JOURNAL_KEPT_SECONDS = 8 * 24 * 3600
"""Longer than Modal keeps a call, and so longer than a call can come back."""

SCHEMA = """
CREATE TABLE IF NOT EXISTS airflow_serverless_version (
    one INTEGER PRIMARY KEY CHECK (one = 1), generation INTEGER NOT NULL, fence INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS airflow_serverless_journal (
    ti_id TEXT NOT NULL, launch TEXT NOT NULL, next_sequence INTEGER NOT NULL, aborted INTEGER NOT NULL,
    updated_at REAL NOT NULL, PRIMARY KEY (ti_id, launch));
CREATE TABLE IF NOT EXISTS airflow_serverless_file (
    path TEXT PRIMARY KEY, digest TEXT NOT NULL, kind TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS airflow_serverless_command (
    id TEXT PRIMARY KEY, reply TEXT NOT NULL, updated_at REAL NOT NULL);
INSERT OR IGNORE INTO airflow_serverless_version VALUES (1, 0, 0);
"""


def create(connection: sqlite3.Connection) -> None:
    """Create what is missing."""
    connection.executescript(SCHEMA)
    connection.commit()


def get_version(connection: sqlite3.Connection) -> tuple[int, int]:
    """(generation, fence) of the state."""
    generation, fence = connection.execute("SELECT generation, fence FROM airflow_serverless_version").fetchone()
    return int(generation), int(fence)


def set_version(connection: sqlite3.Connection, generation: int, fence: int) -> None:
    connection.execute("UPDATE airflow_serverless_version SET generation = ?, fence = ?", (generation, fence))
    connection.commit()


def get_offset(connection: sqlite3.Connection, ti_id: str, launch: str) -> tuple[int, bool]:
    """(sequence of the next journal record to replay, whether the launch's records are dropped)."""
    query = "SELECT next_sequence, aborted FROM airflow_serverless_journal WHERE ti_id = ? AND launch = ?"
    row = connection.execute(query, (ti_id, launch)).fetchone()
    return (int(row[0]), bool(row[1])) if row else (0, False)


def set_offset(connection: sqlite3.Connection, ti_id: str, launch: str, sequence: int, aborted: bool) -> None:
    connection.execute(
        "INSERT OR REPLACE INTO airflow_serverless_journal VALUES (?, ?, ?, ?, ?)",
        (ti_id, launch, sequence, int(aborted), time.time()),
    )
    connection.execute(
        "DELETE FROM airflow_serverless_journal WHERE updated_at < ?", (time.time() - JOURNAL_KEPT_SECONDS,)
    )
    connection.commit()


def get_files(connection: sqlite3.Connection) -> dict[str, tuple[str, str]]:
    """{path in the DAG folder: (digest, kind)} as of the last parse."""
    rows = connection.execute("SELECT path, digest, kind FROM airflow_serverless_file")
    return {path: (digest, kind) for path, digest, kind in rows}


def set_files(connection: sqlite3.Connection, files: Iterable[tuple[str, str, str]]) -> None:
    """Replace the manifest by (path, digest, kind) rows."""
    connection.execute("DELETE FROM airflow_serverless_file")
    connection.executemany("INSERT INTO airflow_serverless_file VALUES (?, ?, ?)", files)
    connection.commit()


def get_reply(connection: sqlite3.Connection, command_id: str) -> str | None:
    """The JSON reply of a command that was applied before, so that it is not applied twice."""
    query = "SELECT reply FROM airflow_serverless_command WHERE id = ?"
    row = connection.execute(query, (command_id,)).fetchone()
    return str(row[0]) if row else None


def set_reply(connection: sqlite3.Connection, command_id: str, reply: str) -> None:
    connection.execute(
        "INSERT OR REPLACE INTO airflow_serverless_command VALUES (?, ?, ?)", (command_id, reply, time.time())
    )
    connection.execute(
        "DELETE FROM airflow_serverless_command WHERE updated_at < ?", (time.time() - JOURNAL_KEPT_SECONDS,)
    )
    connection.commit()
