"""Keeps the failure of one DAG, run, event or step from stopping the scheduler.

What fails is quarantined with its traceback: ticks leave it out, and retry it when the software changes and at growing
intervals. The records are in the metadata database, and are published with the work of the tick.
"""

from __future__ import annotations

import contextlib
import datetime
import functools
import hmac
import json
import os
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_serverless.config import BUNDLE, Paths, Settings
from airflow_serverless.dags.listing import IGNORE_FILE
from airflow_serverless.dags.write import printable
from airflow_serverless.db import tables
from airflow_serverless.db.backend import DatabaseError
from airflow_serverless.db.tables import QuarantineRecord

if TYPE_CHECKING:
    from sqlalchemy import Connection

PATH, FILE, DAG, RUN, EVENTS, CALLBACK_ROW, STEP = "path", "file", "dag", "run", "events", "callback", "step"
"""Kinds of what can be quarantined: a file that cannot be read and one that cannot be stored, by their paths; a DAG by
its id, a run and the events of its tasks by its `run_name`, a callback by its id, a step of the tick by its name."""
FOLDER = "."
"""The DAG folder, among files: it cannot be listed."""
FIRST_RETRY_SECONDS = 30.0
LONGEST_RETRY_SECONDS = 6 * 3600.0
SHOWN = "The scheduler has quarantined"
LONGEST_PATH = 1024
"""Characters of a path that Airflow's import errors take: the last ones are kept."""
MOST_TEXT = 20_000
"""Characters of a traceback that are kept: the last ones."""


class Quarantine:
    """The records of an environment, as of the beginning of a round; `save` writes what the round changed."""

    def __init__(self, records: list[QuarantineRecord], now: float) -> None:
        self._records = {(record.kind, record.name): record for record in records}
        self._now = now
        self._changed: set[tuple[str, str]] = set()

    @classmethod
    def load(cls, connection: Connection) -> Quarantine:
        """Read the records from the database."""
        return cls(tables.get_quarantine(connection), time.time())

    def save(self, connection: Connection) -> None:
        """Write the changed records."""
        for key in self._changed:
            tables.set_quarantine(connection, *key, self._records.get(key))
        self._changed.clear()

    def is_held(self, kind: str, name: str) -> bool:
        """Whether to leave it out: it has failed, and it is not yet time to retry it."""
        record = self._records.get(_key(kind, name))
        return record is not None and record.software == software() and self._now < record.retry_at

    def held(self, kind: str) -> list[str]:
        """Names of all that is to be left out, of this kind."""
        return [name for of, name in self._records if of == kind and self.is_held(of, name)]

    def names(self, kind: str) -> set[str]:
        """The names of quarantined things of a kind."""
        return {name for of, name in self._records if of == kind}

    @property
    def is_of_interest(self) -> bool:
        """Whether something is quarantined, or was until this round."""
        return bool(self._records or self._changed)

    def records(self) -> list[QuarantineRecord]:
        """All records."""
        return list(self._records.values())

    def next_retry(self) -> float | None:
        """When the next record is due for a retry, in seconds since the epoch; None if none is."""
        now = time.time()
        return min((record.retry_at for record in self._records.values() if record.retry_at > now), default=None)

    @contextlib.contextmanager
    def guard(self, kind: str, name: str) -> Iterator[None]:
        """Run a block whose failure concerns only this name: record it, and go on.

        Raises what concerns the whole environment, see `is_systemic`.
        """
        try:
            yield
        except BaseException as error:
            if is_systemic(error):
                raise
            self.add(kind, name, error)
        else:
            self.release(kind, name)

    def add(self, kind: str, name: str, error: BaseException) -> None:
        """Record a failure, and set when it is retried. Does nothing while it is held already."""
        if self.is_held(kind, name):
            return
        traceback.print_exception(error)
        now, key = time.time(), _key(kind, name)
        known = self._records.get(key)
        failures = known.failures + 1 if known else 1
        pause = min(LONGEST_RETRY_SECONDS, FIRST_RETRY_SECONDS * 2.0 ** (failures - 1))
        text = printable("".join(traceback.format_exception(error)))[-MOST_TEXT:]
        first = known.first_at if known else now
        self._records[key] = QuarantineRecord(*key, text, failures, first, now + pause, software())
        self._changed.add(key)

    def release(self, kind: str, name: str) -> None:
        """Forget a failure: it works again, or what failed is gone."""
        if self._records.pop(_key(kind, name), None):
            self._changed.add(_key(kind, name))

    def keep_only(self, kind: str, names: Iterable[str]) -> None:
        """Forget the failures of all others of this kind."""
        for name in self.names(kind).difference(map(printable, names)):
            self.release(kind, name)


def show(quarantine: Quarantine) -> None:
    """List what is quarantined among Airflow's import errors, where people look for what does not run."""
    from airflow.models.dag import DagModel
    from airflow.models.errors import ParseImportError
    from airflow.utils.session import create_session
    from sqlalchemy import delete, select

    # DAG files that cannot be stored have an import error of their own.
    records = [one for one in quarantine.records() if one.kind != FILE or Path(one.name).name in ("", IGNORE_FILE)]
    with create_session() as session:
        session.execute(delete(ParseImportError).where(ParseImportError.stacktrace.startswith(SHOWN)))
        for record in records:
            dag_id = record.name.partition("/")[0] if record.kind in (DAG, RUN, EVENTS) else None
            file = session.scalar(select(DagModel.relative_fileloc).where(DagModel.dag_id == dag_id))
            session.add(
                ParseImportError(
                    filename=file or (record.name[-LONGEST_PATH:] if record.kind in (PATH, FILE) else "scheduler"),
                    bundle_name=BUNDLE,
                    timestamp=datetime.datetime.fromtimestamp(record.first_at, datetime.UTC),
                    stacktrace=_explain(record),
                )
            )


def _explain(record: QuarantineRecord) -> str:
    retry_at = datetime.datetime.fromtimestamp(record.retry_at, datetime.UTC).isoformat(timespec="seconds")
    return f"{SHOWN} {record.kind} {record.name!r}. Next retry: {retry_at}.\n\n{record.traceback}"


def _key(kind: str, name: str) -> tuple[str, str]:
    # The name of a file need not be text.
    return kind, printable(name)


def run_name(dag_id: str, run_id: str) -> str:
    """The name of a run in records."""
    return f"{dag_id}/{run_id}"


def is_systemic(error: BaseException) -> bool:
    """Whether an error concerns the whole environment, so that other work would fail alike.

    What the code of a plugin raises is its own, be it `SystemExit` or the error of a database that it asks.
    """
    from modal.exception import InputCancellation
    from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError

    if isinstance(error, KeyboardInterrupt | InputCancellation):
        # The container is being stopped.
        return True
    if _passes_through_dag_folder(error):
        return False
    if not isinstance(error, Exception):
        return True
    if isinstance(error, DatabaseError | MemoryError | OperationalError | InterfaceError):
        return True
    return isinstance(error, DBAPIError) and error.connection_invalidated


def _passes_through_dag_folder(error: BaseException) -> bool:
    folder = f"{Paths.from_environment().dags}/"
    return any(frame.f_code.co_filename.startswith(folder) for frame, _ in traceback.walk_tb(error.__traceback__))


@functools.cache
def software() -> str:
    """A digest of this package, of Airflow's version and of its options: what failed may work with another one.

    It is keyed, so that options that are secret cannot be guessed from it.
    """
    import airflow

    import airflow_serverless

    digest = hmac.new(os.environ.get("AIRFLOW__CORE__FERNET_KEY", "").encode(), airflow.__version__.encode(), "sha256")
    for path in sorted(path for folder in airflow_serverless.__path__ for path in Path(folder).rglob("*.py")):
        digest.update(path.read_bytes())
    options = Settings.from_environment().airflow_options
    digest.update(
        json.dumps([(name, value or os.environ.get(name)) for name, value in sorted(options.items())]).encode()
    )
    return digest.hexdigest()[:16]


def one_by_one(
    quarantine: Quarantine, kind: str, names: list[str], work: Callable[[str], Any], error: BaseException
) -> list[Any]:
    """Do for each name what failed with `error` for all of them together; quarantine those that fail alone.

    Where none of them fails alone, all of it is done. Raises `error` if there are no names, and systemic errors.
    """
    if not names:
        raise error
    results: list[Any] = []
    for name in names:
        with quarantine.guard(kind, name):
            results.append(work(name))
    return results
