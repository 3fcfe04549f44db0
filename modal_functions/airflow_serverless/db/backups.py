"""Backups of the published SQLite database, beside it on the Volume.

`data/backups/{time}-{generation}.db` is the database as one tick published it. The database that a roll-back
or a migration replaces is kept as `{time}-{generation}.replaced.db`, so that this can be undone; if it is damaged, it
is called `{time}-{generation}.damaged.db`, and cannot be loaded.
"""

from __future__ import annotations

import contextlib
import datetime
import re
import shutil
import sqlite3
import time
from pathlib import Path

FOLDER = "backups"
EVERY_SECONDS = 3600.0
FIRST_SECONDS = 300.0
"""Between the first ones: the very first has nothing in it yet."""
FIRST = 3
KEPT = 6
REPLACED_KEPT = 3
NAME = re.compile(r"(\d{8}T\d{6}Z)-(\d+)\.db")
REPLACED = re.compile(r"(\d{8}T\d{6}Z)-(\d+)\.replaced\.db")
TIME = "%Y%m%dT%H%M%SZ"


def names(database: Path, form: re.Pattern[str] = NAME) -> list[str]:
    """The names of all backups of this form, newest first."""
    folder = database.parent / FOLDER
    found = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    return sorted(filter(form.fullmatch, found), reverse=True)


def can_be_loaded(database: Path, name: str) -> bool:
    """Whether there is a backup of this name."""
    return name in names(database) or name in names(database, REPLACED)


def path_of(database: Path, name: str) -> Path:
    """The path of a backup of this database."""
    return database.parent / FOLDER / name


def keep(database: Path, generation: int) -> None:
    """Copy the published database, if the newest backup is old enough and the database is sound; remove old backups."""
    known = names(database)
    pause = FIRST_SECONDS if len(known) < FIRST else EVERY_SECONDS
    is_due = not known or time.time() - _time_of(known[0]) >= pause
    if is_due and database.exists() and _is_sound(database):
        _copy(database, path_of(database, f"{_now()}-{generation}.db"))
        for name in names(database)[KEPT:]:
            path_of(database, name).unlink(missing_ok=True)


def keep_replaced(database: Path, generation: int, loaded: str | None = None) -> None:
    """Copy the database that the backup `loaded`, or a migration, is about to replace, so that this can be undone.

    Three sound ones are kept, and the last damaged one.
    """
    if not database.exists():
        return
    if _is_sound(database):
        _copy(database, path_of(database, f"{_now()}-{generation}.replaced.db"))
        for name in names(database, REPLACED)[REPLACED_KEPT:]:
            if name != loaded:
                path_of(database, name).unlink(missing_ok=True)
        return
    for path in (database.parent / FOLDER).glob("*.damaged.db"):
        path.unlink()
    _copy(database, path_of(database, f"{_now()}-{generation}.damaged.db"))


def _copy(database: Path, path: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    partial = path.with_suffix(".partial")
    shutil.copyfile(database, partial)
    partial.replace(path)


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).strftime(TIME)


def _time_of(name: str) -> float:
    return datetime.datetime.strptime(name.partition("-")[0], TIME).replace(tzinfo=datetime.UTC).timestamp()


def _is_sound(database: Path) -> bool:
    """Whether all pages of it can be read."""
    uri = f"{database.absolute().as_uri()}?mode=ro&immutable=1"
    with contextlib.closing(sqlite3.connect(uri, uri=True)) as connection:
        try:
            if database.stat().st_size == 0:
                return False
            return bool(connection.execute("PRAGMA quick_check(1)").fetchone()[0] == "ok")
        except sqlite3.DatabaseError:
            return False
