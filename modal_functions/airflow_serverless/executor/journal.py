"""What a task changes through the Execution API, recorded by its worker for the scheduler to repeat.

The worker's own database is a private copy; the scheduler is the only writer of the real one.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any

import httpx

from airflow_serverless.executor.execution_api import TaskApi
from airflow_serverless.state import Heartbeat, JournalRecord, Request, State, heartbeat_key, journal_key

CHANGING = frozenset({"POST", "PUT", "PATCH", "DELETE"})
HEARTBEAT_SECONDS = 15.0


class JournalWriter(TaskApi):
    """A transport that passes requests on and records those that changed something.

    Records reach the Dict when the task starts, at heartbeats and at the end. From the moment the task reports its own
    end they are held back: the result counts only once logs and XComs are on the volume, and `finish` says so.
    """

    def __init__(self, inner: httpx.BaseTransport, state: State, ti_id: str, launch: str) -> None:
        super().__init__(inner, state, ti_id, launch)
        self._pending: list[Request] = []
        self._sequence = 0
        self._last_heartbeat = 0.0

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        body = request.read()
        at = time.time()
        answer = self._inner.handle_request(request)
        content = answer.read()
        path = request.url.raw_path.decode()
        if path.endswith("/heartbeat"):
            self._heartbeat(at)
        elif request.method in CHANGING and answer.is_success:
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

    def _record(self, request: httpx.Request, path: str, body: bytes, status: int, at: float) -> None:
        headers = request.headers
        self._pending.append(
            {
                "at": at,
                "method": request.method,
                "path": path,
                "body": body.decode() if body else None,
                "content_type": headers.get("content-type"),
                "api_version": headers.get("airflow-api-version"),
                "status": status,
            }
        )
        if request.method == "PATCH" and path.endswith("/state"):
            self.final_state = str(json.loads(body)["state"])
        if path.endswith("/run"):
            self.flush()

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
