"""What a task changes through the Execution API, recorded by its worker for the scheduler to repeat.

The worker's own database is a private copy; the scheduler is the only writer of the real one.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import httpx
from modal.exception import Error

from airflow_serverless.db import tables
from airflow_serverless.execution_api import task_api
from airflow_serverless.execution_api.task_api import CHANGING, TaskApi
from airflow_serverless.state import (
    WRITTEN,
    Heartbeat,
    JournalRecord,
    Request,
    State,
    Written,
    heartbeat_key,
    journal_key,
)

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from airflow_serverless.worker.worker import Worker

READING = frozenset({"GET", "HEAD"})
HEARTBEAT_SECONDS = 15.0
LOOK_SECONDS = 2.0
"""How old an answer may be."""
SETTLING_SECONDS = 5.0
"""A mark that is younger may have become visible before the record that it names."""
MOST_RECORDS = 50
"""After so many records a tick is due: until then each task that reads what others write applies them by itself."""
PLAIN_ENDS = frozenset({"success", "failed", "skipped", "up_for_retry"})
"""States whose report is not refused for anything that a task can say with it, but events of assets."""


class JournalWriter(TaskApi):
    """A transport that passes requests on and records those that changed something.

    Records reach the Dict when the task starts, at heartbeats and at the end; those of what a task writes for others
    (`task_api.is_write`) before the request is answered. The task's report of its own end is held back: the result
    counts only once logs and XComs are on the volume, and `finish` says so.
    """

    def __init__(self, inner: httpx.BaseTransport, state: State, ti_id: str, launch: str, worker: Worker) -> None:
        super().__init__(inner, state, ti_id, launch, worker)
        with _connection() as connection:
            self._generation, _ = tables.get_version(connection)
        self._looked_at = -math.inf
        self._seen: Written | None = None
        self._pending: list[Request] = []
        self._held: list[Request] = []
        self._sequence = 0
        self._unsent: dict[str, JournalRecord] = {}
        """Records the Dict may lack. They stay as they are: a tick may have them, though the answer was lost."""
        self._records: dict[str, JournalRecord] = {}
        """What is not known to be in a published database."""
        self._last_heartbeat = 0.0

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Pass a request on to the API, and record it if it changes something."""
        body = request.read()
        path = request.url.raw_path.decode()
        at = time.time()
        if task_api.operation(path) == "heartbeat":
            # The copy could not tell whether the task is still wanted: the scheduler cancels its call if it is not.
            self._heartbeat(at)
            return httpx.Response(204, request=request)
        if (status := _foregone(path, body)) is not None:
            self._record(request, path, body, status, at)
            return httpx.Response(status, request=request)
        try:
            return self._pass_on(request, path, body, at)
        except Error as error:
            # The client repeats what failed like this.
            return httpx.Response(503, json={"detail": f"Modal: {error}"}, request=request)

    def _pass_on(self, request: httpx.Request, path: str, body: bytes, at: float) -> httpx.Response:
        if request.method in READING:
            self._look_again()
        answer = self._inner.handle_request(request)
        content = answer.read()
        if request.method in CHANGING and answer.is_success:
            self._record(request, path, body, answer.status_code, at)
            if task_api.is_write(request.method, path, body):
                self._publish_write(task_api.pushes_payload(request.method, path, body))
        return httpx.Response(answer.status_code, headers=answer.headers, content=content, request=request)

    def finish(self, key: str, entry: Mapping[str, Any]) -> None:
        """Publish what is left together with the final state of the launch, to which the number of records is added."""
        self._pending += self._held
        self._held = []
        self._take()
        self._send({key: {**entry, "journals": self._sequence}})

    def flush(self) -> None:
        """Publish what is not held back."""
        self._take()
        self._send({})

    def _publish_write(self, with_payload: bool) -> None:
        """Make a write durable, and visible to tasks that look."""
        if with_payload:
            self._worker.volume.commit()
        mark: Written = {"key": self._take(), "at": time.time()}
        self._send({WRITTEN: mark})
        if self._sequence % MOST_RECORDS == 0:
            self._worker.wake("a task writes much")

    def _look_again(self) -> None:
        """Answer from the database as it is now, and what running tasks have written since.

        A task may ask again and again until others have got somewhere.
        """
        if time.monotonic() - self._looked_at < LOOK_SECONDS:
            return
        written = self._state.written()
        if self._looked_at > -math.inf:
            self._worker.fetch_newer_snapshot(self._generation)
        with _connection() as connection:
            generation, _ = tables.get_version(connection)
            is_fresh = generation != self._generation
            if is_fresh or self._is_news(written):
                self._apply(is_fresh, connection)
        self._generation, self._seen = generation, written
        self._looked_at = time.monotonic()

    def _is_news(self, written: Written | None) -> bool:
        """Whether something was written that the copy may lack. What a tick has applied, it has published."""
        if written is None:
            return False
        if written["at"] > time.time() - SETTLING_SECONDS:
            return True
        return written != self._seen and self._state.has_journal(written["key"])

    def _apply(self, is_fresh: bool, connection: Connection) -> None:
        """Repeat on the copy what others have written, and on a fresh one what this launch has done."""
        from airflow_serverless.scheduler.replay import replay

        own = (self._ti_id, self._launch)
        found = self._state.journals().items()
        journals = {key: record for key, record in found if (record["ti_id"], record["launch"]) != own}
        if is_fresh:
            # Not from the Dict, of which a tick may take what it publishes only then.
            applied, _ = tables.get_offset(connection, *own)
            self._records = {key: record for key, record in self._records.items() if record["sequence"] >= applied}
            journals |= self._records
            if self._pending:
                journals["pending"] = self._next_record()
        replay(journals, connection)

    def _record(self, request: httpx.Request, path: str, body: bytes, status: int, at: float) -> None:
        headers = request.headers
        record: Request = {
            "at": at,
            "method": request.method,
            "path": path,
            "body": body.decode() if body else None,
            "content_type": headers.get("content-type"),
            "api_version": headers.get("airflow-api-version"),
            "status": status,
        }
        operation = task_api.operation(path)
        if operation == "state":
            self._held.append(record)
            self.final_state = str(json.loads(body)["state"])
            return
        self._pending.append(record)
        if operation == "run":
            self.flush()
        elif request.method == "POST" and path.startswith("/dag-runs/"):
            # Another run was triggered, and this task may wait for it.
            self.flush()
            self._worker.wake("a task triggered a run")

    def _heartbeat(self, at: float) -> None:
        if at - self._last_heartbeat < HEARTBEAT_SECONDS:
            return
        self._last_heartbeat = at
        beat: Heartbeat = {"ti_id": self._ti_id, "launch": self._launch, "at": at}
        self._take()
        self._send({heartbeat_key(self._ti_id): beat})

    def _take(self) -> str:
        """Make a record of what is pending, if anything is; returns the key of the last record."""
        if self._pending:
            record = self._next_record()
            self._pending = []
            self._sequence += 1
            key = journal_key(self._ti_id, self._launch, record["sequence"])
            self._unsent[key] = self._records[key] = record
        return journal_key(self._ti_id, self._launch, self._sequence - 1)

    def _send(self, values: Mapping[str, Any]) -> None:
        """Write records that are not in the Dict yet, and `values`, in one request."""
        self._state.update({**self._unsent, **values})
        self._unsent = {}

    def _next_record(self) -> JournalRecord:
        return {
            "ti_id": self._ti_id,
            "launch": self._launch,
            "sequence": self._sequence,
            "requests": self._pending,
        }


def _connection() -> Connection:
    """One to the copy that Airflow's ORM of this process works on."""
    from airflow import settings

    return settings.get_engine().connect()


def _foregone(path: str, body: bytes) -> int | None:
    """The status of an answer that is certain, to a request whose effects on the copy nobody would see."""
    operation = task_api.operation(path)
    if operation == "rtif":
        return 201
    if operation == "state":
        end = json.loads(body)
        # Events of assets may be refused.
        if end["state"] in PLAIN_ENDS and not end.get("outlet_events"):
            return 204
    return None
