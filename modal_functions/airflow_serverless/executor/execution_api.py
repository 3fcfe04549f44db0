"""Airflow's Execution API inside this process, and two cures for its latency.

Both touch private parts of the pinned Airflow version; each says what it replaces and why.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

import httpx

from airflow_serverless.state import Request, State

if TYPE_CHECKING:
    from airflow.api_fastapi.execution_api.app import InProcessExecutionAPI
    from airflow.sdk.api.client import Client

BASE_URL = "http://in-process.invalid./"
EXIT_POLL_SECONDS = 0.01


class TaskApi(httpx.BaseTransport, ABC):
    """The API as a transport for one launch, which sees to it that the end of a task is told after its effects."""

    final_state: str | None = None
    """The state that the task reported for itself, in Airflow's words."""

    def __init__(self, inner: httpx.BaseTransport, state: State, ti_id: str, launch: str) -> None:
        self._inner = inner
        self._state = state
        self._ti_id = ti_id
        self._launch = launch

    def client(self) -> Client:
        """The API for a supervisor of Airflow's."""
        return client(self)

    @abstractmethod
    def finish(self, key: str, entry: Mapping[str, Any]) -> None:
        """Tell what was held back, and leave `entry` under `key` in the Dict. Logs and XComs are on the volume now."""

    @abstractmethod
    def flush(self) -> None:
        """Tell what is not held back."""


@cache
def transport() -> httpx.BaseTransport:
    """The API as a transport for HTTP clients, working on the database of Airflow's ORM. Built once per process."""
    return _api().transport


def prepare() -> None:
    """Build the API without a thread, so that processes that are forked from this one need not. Touches no database."""

    async def build() -> None:
        async with httpx.AsyncClient(transport=_api().atransport, base_url=BASE_URL) as client:
            # The routes of a version are built when it is first asked for; there is no such task.
            await client.get("no-such-route", headers={"airflow-api-version": _newest_version()})

    asyncio.run(build())


@cache
def _api() -> InProcessExecutionAPI:
    _keep_newest_version_only()
    from airflow.api_fastapi.execution_api.app import InProcessExecutionAPI

    return InProcessExecutionAPI()


def _newest_version() -> str:
    from airflow.api_fastapi.execution_api import versions

    return str(versions.bundle.versions[0].value)


def client(inner: httpx.BaseTransport) -> Client:
    """The task supervisor's API client on a transport instead of a server."""
    from airflow.sdk.api.client import Client

    # A client without a base URL is only accepted for dry runs; the transport given here makes it a real one.
    api: Client = Client(base_url=None, token="", dry_run=True, transport=inner)
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


def _keep_newest_version_only() -> None:
    """Airflow builds the routes of all API versions on the first request, which takes seconds.

    Worker, scheduler and API are one installation here, so only the newest version is ever asked for. The last version
    of a bundle may carry no changes, hence a new one. Routes that exist only for older versions must go as well.
    """
    from airflow.api_fastapi.execution_api import versions
    from airflow.api_fastapi.execution_api.routes import execution_api_router
    from cadwyn import HeadVersion, Version, VersionBundle
    from cadwyn.route_generation import _DELETED_ROUTE_TAG

    if len(versions.bundle.versions) == 1:
        return
    versions.bundle = VersionBundle(HeadVersion(), Version(versions.bundle.versions[0].value))
    execution_api_router.routes[:] = [
        route for route in execution_api_router.routes if _DELETED_ROUTE_TAG not in (getattr(route, "tags", None) or [])
    ]


def hasten_supervisor_exit() -> None:
    """The supervisor waits on its child's sockets; once all are closed it waits for nothing, for five seconds.

    The child has only its exit left then, so a short poll replaces the wait.
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
