"""Airflow's Execution API as the supervisor of one launch uses it."""

from __future__ import annotations

import json
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import httpx

from airflow_serverless.execution_api.in_process import BASE_URL
from airflow_serverless.state import Request, State

if TYPE_CHECKING:
    from airflow.sdk.api.client import Client

    from airflow_serverless.worker.worker import Worker

CHANGING = frozenset({"POST", "PUT", "PATCH", "DELETE"})
WRITES = ("/variables/", "/xcoms/", "/store/")
"""Paths of what a task writes for others, or for its next try."""
TASK_INSTANCE = re.compile(r"/task-instances/[0-9a-f-]{36}/([a-z-]+)")
EXIT_POLL_SECONDS = 0.01


class TaskApi(httpx.BaseTransport, ABC):
    """The API as a transport for one launch, which sees to it that the end of a task is told after its effects."""

    final_state: str | None = None
    """The state that the task reported for itself, in Airflow's words."""

    def __init__(self, inner: httpx.BaseTransport, state: State, ti_id: str, launch: str, worker: Worker) -> None:
        self._inner = inner
        self._state = state
        self._ti_id = ti_id
        self._launch = launch
        self._worker = worker

    def client(self) -> Client:
        """The API for a supervisor of Airflow's."""
        return client(self)

    @abstractmethod
    def finish(self, key: str, entry: Mapping[str, Any]) -> None:
        """Tell what was held back, and leave `entry` under `key` in the Dict. Logs and XComs are on the volume now."""

    @abstractmethod
    def flush(self) -> None:
        """Tell what is not held back."""


def operation(path: str) -> str | None:
    """What a request asks of a task instance ("run", "heartbeat", "rtif", "state", …); None if it does not.

    Names of other things may end with these words.
    """
    found = TASK_INSTANCE.fullmatch(path)
    return found[1] if found else None


def is_write(method: str, path: str, body: bytes) -> bool:
    """Whether a request writes something that has to outlive the container as soon as it is answered.

    XComs of what a task returned count with its end, and those that Airflow pushes by itself with what it says next.
    """
    if method not in CHANGING or not path.startswith(WRITES):
        return False
    return method != "POST" or pushes_payload(method, path, body)


def pushes_payload(method: str, path: str, body: bytes) -> bool:
    """Whether a request pushes an XCom before the task has returned, with a payload that is to be committed first."""
    from airflow_serverless.xcom.backend import is_pushed_early

    return method == "POST" and path.startswith("/xcoms/") and is_pushed_early(json.loads(body))


def client(inner: httpx.BaseTransport) -> Client:
    """The task supervisor's API client on a transport instead of a server."""
    from airflow_serverless.execution_api.client import TaskClient

    # A client without a base URL is only accepted for dry runs; the transport given here makes it a real one.
    api: Client = TaskClient(base_url=None, token="", dry_run=True, transport=inner)
    api.base_url = httpx.URL(BASE_URL)
    return api


def repeat(client: httpx.Client, request: Request) -> httpx.Response:
    """Send a recorded request."""
    headers = {"content-type": request["content_type"], "airflow-api-version": request["api_version"]}
    return client.request(
        request["method"],
        request["path"],
        content=request["body"],
        headers={name: value for name, value in headers.items() if value},
    )


def hasten_supervisor_exit() -> None:
    """The supervisor waits on its child's sockets; once all are closed it waits for nothing, for five seconds.

    The child has only its exit left then, so a short poll replaces the wait. Touches a private part of the pinned SDK.
    """
    from airflow.sdk.execution_time.supervisor import WatchedSubprocess

    original = WatchedSubprocess._service_subprocess
    if getattr(original, "hastened", False):
        return

    def hastened(self: Any, max_wait_time: float, *args: Any, **kwargs: Any) -> Any:
        wait = max_wait_time if self._open_sockets else min(max_wait_time, EXIT_POLL_SECONDS)
        return original(self, wait, *args, **kwargs)

    hastened.hastened = True  # type: ignore[attr-defined]
    WatchedSubprocess._service_subprocess = hastened  # type: ignore[method-assign]
