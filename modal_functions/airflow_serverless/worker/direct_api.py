"""The Execution API for a task whose database is the scheduler's own: nothing is recorded, one request has to wait."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import httpx

from airflow_serverless.execution_api import task_api
from airflow_serverless.execution_api.task_api import TaskApi
from airflow_serverless.state import RUNNING, Heartbeat, State, heartbeat_key
from airflow_serverless.worker.journal_writer import HEARTBEAT_SECONDS
from airflow_serverless.worker.worker import AttemptFailed, Worker

if TYPE_CHECKING:
    from airflow.sdk.api.client import Client

MOVED_ON = (404, 409)


class DirectApi(TaskApi):
    """A transport that passes requests on at once, but for the task's report of its own end.

    Others may start as soon as that is in the database, and must find logs and XComs on the volume then: the report is
    held back until `finish` says that they are there.
    """

    def __init__(self, inner: httpx.BaseTransport, state: State, ti_id: str, launch: str, worker: Worker) -> None:
        super().__init__(inner, state, ti_id, launch, worker)
        self._held: list[httpx.Request] = []
        self._last_heartbeat = 0.0

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Pass a request on to the API."""
        body = request.read()
        path = request.url.raw_path.decode()
        operation = task_api.operation(path)
        if operation == "state":
            self._held.append(request)
            self.final_state = str(json.loads(body)["state"])
            return httpx.Response(204, request=request)
        if task_api.pushes_payload(request.method, path, body):
            self._worker.volume.commit()
        answer = self._inner.handle_request(request)
        if operation == "heartbeat":
            self._heartbeat()
        elif request.method == "POST" and path.startswith("/dag-runs/") and answer.is_success:
            # Another run was triggered, and this task may wait for it.
            self._worker.wake("a task triggered a run")
        return answer

    def finish(self, key: str, entry: Mapping[str, Any]) -> None:
        """Report the end to Airflow, and then with `entry` in the Dict. Raises AttemptFailed if Airflow refuses it.

        A task that has moved on meanwhile (cleared, marked, timed out) is no longer this one's to report.
        """
        if self._held:
            # Between the two reports the database no longer wants the launch, which must not be taken for a reason
            # to stop it.
            self._state.update({key: {**entry, "status": RUNNING, "completed_at": None, "ending_at": time.time()}})
        with task_api.client(self._inner) as api:
            for request in self._held:
                _send(api, request)
        self._state.update({key: entry})

    def flush(self) -> None:
        """Nothing is left to publish."""

    def _heartbeat(self) -> None:
        at = time.time()
        if at - self._last_heartbeat >= HEARTBEAT_SECONDS:
            self._last_heartbeat = at
            beat: Heartbeat = {"ti_id": self._ti_id, "launch": self._launch, "at": at}
            self._state.update({heartbeat_key(self._ti_id): beat})


def _send(api: Client, request: httpx.Request) -> None:
    """Repeated by the client for as long as the database cannot be reached; all of these requests may come twice."""
    headers = {"content-type": request.headers["content-type"]}
    try:
        api.patch(request.url.path, content=request.read(), headers=headers)
    except httpx.HTTPStatusError as error:
        answer = error.response
        if answer.status_code not in MOVED_ON:
            raise AttemptFailed(f"Airflow refused the task's result: {answer.status_code} {answer.text}") from error
        print(f"the task's result came too late: {answer.status_code} {answer.text}")
