"""What a task changes through the Execution API, recorded by its worker for the scheduler to repeat.

The worker's own database is a private copy; the scheduler is the only writer of the real one.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import httpx

from airflow_serverless.executor import execution_api, in_process
from airflow_serverless.executor.execution_api import TaskApi
from airflow_serverless.state import Heartbeat, JournalRecord, Request, State, heartbeat_key, journal_key

if TYPE_CHECKING:
    from airflow_serverless.executor.context import Worker

CHANGING = frozenset({"POST", "PUT", "PATCH", "DELETE"})
HEARTBEAT_SECONDS = 15.0
LOOK_SECONDS = 2.0
"""How old an answer may be."""
PLAIN_ENDS = frozenset({"success", "failed", "skipped", "up_for_retry"})
"""States whose report is not refused for anything that a task can say with it, but events of assets."""


class JournalWriter(TaskApi):
    """A transport that passes requests on and records those that changed something.

    Records reach the Dict when the task starts, at heartbeats and at the end. From the moment the task reports its own
    end they are held back: the result counts only once logs and XComs are on the volume, and `finish` says so.
    """

    def __init__(
        self, inner: httpx.BaseTransport, state: State, ti_id: str, launch: str, worker: Worker, generation: int
    ) -> None:
        super().__init__(inner, state, ti_id, launch)
        self._worker = worker
        self._generation = generation
        self._looked_at = time.monotonic()
        self._done: list[Request] = []
        self._pending: list[Request] = []
        self._sequence = 0
        self._last_heartbeat = 0.0

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        body = request.read()
        path = request.url.raw_path.decode()
        at = time.time()
        if path.endswith("/heartbeat"):
            # The copy could not tell whether the task is still wanted: the scheduler cancels its call if it is not.
            self._heartbeat(at)
            return httpx.Response(204, request=request)
        if (status := _foregone(request.method, path, body)) is not None:
            self._record(request, path, body, status, at)
            return httpx.Response(status, request=request)
        if request.method == "GET":
            self._look_again()
        answer = self._inner.handle_request(request)
        content = answer.read()
        if request.method in CHANGING and answer.is_success:
            self._record(request, path, body, answer.status_code, at)
        return httpx.Response(answer.status_code, headers=answer.headers, content=content, request=request)

    def finish(self, key: str, entry: Mapping[str, Any]) -> None:
        """Publish what is left together with the final state of the launch, to which the number of records is added."""
        values: dict[str, Any] = dict(self._take())
        self._state.update({**values, key: {**entry, "journals": self._sequence}})

    def flush(self) -> None:
        """Publish what is not held back."""
        if self.final_state is None:
            self._state.update(self._take())

    def _look_again(self) -> None:
        """Answer from the database as it is now: a task may ask again and again until others have got somewhere."""
        if time.monotonic() - self._looked_at < LOOK_SECONDS:
            return
        generation = self._worker.fetch_newer_snapshot(self._generation)
        if generation != self._generation:
            self._generation = generation
            # The scheduler may not have repeated yet what this launch has done; what it has is refused, or no change.
            with httpx.Client(transport=self._inner, base_url=in_process.BASE_URL) as client:
                for request in self._done:
                    execution_api.repeat(client, request)
        self._looked_at = time.monotonic()

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
        self._pending.append(record)
        self._done.append(record)
        if request.method == "PATCH" and path.endswith("/state"):
            self.final_state = str(json.loads(body)["state"])
        if path.endswith("/run"):
            self.flush()
        elif request.method == "POST" and "/dag-runs/" in path:
            # Another run was triggered, and this task may wait for it.
            self.flush()
            self._worker.wake("a task triggered a run")

    def _heartbeat(self, at: float) -> None:
        if at - self._last_heartbeat < HEARTBEAT_SECONDS:
            return
        self._last_heartbeat = at
        beat: Heartbeat = {"ti_id": self._ti_id, "launch": self._launch, "at": at}
        values = {} if self.final_state else self._take()
        self._state.update({**values, heartbeat_key(self._ti_id): beat})

    def _take(self) -> dict[str, JournalRecord]:
        if not self._pending:
            return {}
        record: JournalRecord = {
            "ti_id": self._ti_id,
            "launch": self._launch,
            "sequence": self._sequence,
            "requests": self._pending,
        }
        key = journal_key(self._ti_id, self._launch, self._sequence)
        self._pending = []
        self._sequence += 1
        return {key: record}


def _foregone(method: str, path: str, body: bytes) -> int | None:
    """The status of an answer that is certain, to a request whose effects on the copy nobody would see."""
    if method == "PUT" and path.endswith("/rtif"):
        return 201
    if method == "PATCH" and path.endswith("/state"):
        end = json.loads(body)
        # Events of assets may be refused.
        if end["state"] in PLAIN_ENDS and not end.get("outlet_events"):
            return 204
    return None
