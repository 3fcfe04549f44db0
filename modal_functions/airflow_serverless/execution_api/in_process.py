"""Airflow's Execution API as a transport for HTTP clients: in this process, in the caller's thread, and quick.

Made for a server with many clients, an answer of it takes some 5 ms of processor time, and a task asks about ten times.
What is done about that touches private parts of pinned versions; each says what it replaces and why.
"""

from __future__ import annotations

import asyncio
import threading
import traceback
from collections.abc import Callable
from contextvars import ContextVar
from functools import cache
from typing import TYPE_CHECKING, Any

import httpx

from airflow_serverless.execution_api import shortcuts

if TYPE_CHECKING:
    from fastapi import FastAPI

BASE_URL = "http://in-process.invalid./"
FOR_SERVERS = frozenset({"JWTReissueMiddleware", "CorrelationIdMiddleware"})
_in_process: ContextVar[bool] = ContextVar("in_process", default=False)
"""True while a request of this module is served, as opposed to one of an application that a DAG's author wrote."""


@cache
def transport() -> InProcessTransport:
    """The API on the database of Airflow's ORM, one for the process."""
    return InProcessTransport(_app())


def prepare() -> None:
    """Build the API, so that processes that are forked from this one need not. Leaves nothing open or running."""
    # The routes of a version are built when it is first asked for; there is no such task.
    request = httpx.Request("GET", BASE_URL + "no-such-route", headers={"airflow-api-version": newest_version()})
    answer = asyncio.run(_answer(_app(), request))
    if answer.status_code != 404:
        raise RuntimeError(f"the Execution API answers {answer.status_code} {answer.text}, not 404")


def forget_dags() -> None:
    """Let the API make its DAGs anew from the database: timetables in them may be those of plugins that are gone."""
    _app().state.dag_bag.clear_cache()


def leave_listeners_to_the_tick() -> None:
    """What tasks ask of this API, the tick repeats: listeners (of plugins) for assets would be told of it twice.

    The processes of tasks have listeners of their own, those of the Task SDK.
    """
    from airflow.listeners import listener

    listener.integrate_listener_plugins = lambda listener_manager: None


def newest_version() -> str:
    """The only version of the API that is served."""
    from airflow.api_fastapi.execution_api import versions

    return str(versions.bundle.versions[0].value)


class InProcessTransport(httpx.BaseTransport):
    """Serves one request at a time, on an event loop that runs no longer than that."""

    def __init__(self, app: FastAPI) -> None:
        self._app = app
        self._lock = threading.Lock()
        self._runner = asyncio.Runner()
        self._lifespan = app.router.lifespan_context(app)
        self._runner.run(self._lifespan.__aenter__())

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Answer a request in this thread."""
        with self._lock:
            if (quick := shortcuts.answer(self._app, request)) is not None:
                return quick
            try:
                return self._runner.run(_answer(self._app, request))
            except BaseException:
                self._abandon()
                raise

    def _abandon(self) -> None:
        """A request that was interrupted, as by the cancellation of a call, must not go on with the next one."""
        loop = self._runner.get_loop()
        tasks = asyncio.all_tasks(loop)
        for task in tasks:
            task.cancel()
        if tasks:
            loop.run_until_complete(asyncio.wait(tasks))


async def _answer(app: FastAPI, request: httpx.Request) -> httpx.Response:
    _in_process.set(True)
    asked = httpx.Request(request.method, request.url, headers=request.headers, content=request.read())
    try:
        answer = await httpx.ASGITransport(app=app).handle_async_request(asked)
        content = await answer.aread()
    except Exception:
        traceback.print_exc()
        return httpx.Response(500, request=request)
    return httpx.Response(answer.status_code, headers=answer.headers, content=content, request=request)


@cache
def _app() -> FastAPI:
    _keep_newest_version_only()
    _remember_dependencies()
    _stay_in_thread()
    from airflow.api_fastapi.execution_api.app import InProcessExecutionAPI

    app: FastAPI = InProcessExecutionAPI().app
    # They look after tokens, which nobody has here, and mark log lines of a server.
    app.user_middleware[:] = [one for one in app.user_middleware if getattr(one.cls, "__name__", "") not in FOR_SERVERS]
    return app


def _keep_newest_version_only() -> None:
    """Airflow builds the routes of all API versions on the first request, which takes seconds.

    Worker, scheduler and API are one installation here, so only the newest version is ever asked for. The last version
    of a bundle may carry no changes, hence a new one. Routes that exist only for older versions must go as well. The
    rest is served as Airflow defines it: nothing is derived for other versions, which would take half a second.
    """
    from airflow.api_fastapi.execution_api import versions
    from airflow.api_fastapi.execution_api.routes import execution_api_router
    from cadwyn import HeadVersion, Version, VersionBundle, applications
    from cadwyn.route_generation import _DELETED_ROUTE_TAG, GeneratedRouters
    from fastapi import APIRouter

    if len(versions.bundle.versions) == 1:
        return
    newest = newest_version()
    versions.bundle = VersionBundle(HeadVersion(), Version(newest))
    execution_api_router.routes[:] = [
        route for route in execution_api_router.routes if _DELETED_ROUTE_TAG not in (getattr(route, "tags", None) or [])
    ]
    generate = applications.generate_versioned_routers

    def generate_versioned_routers(router: Any, versions: Any, **options: Any) -> Any:
        if [str(version.value) for version in versions] != [newest]:
            return generate(router, versions, **options)
        return GeneratedRouters({newest: router}, {newest: APIRouter()})

    applications.generate_versioned_routers = generate_versioned_routers


def _remember_dependencies() -> None:
    """FastAPI analyses the signatures of all dependencies at each request if an application overrides any.

    Airflow's in-process application overrides the checks of tokens. What comes of a signature is always the same.
    """
    from fastapi.dependencies import utils

    original = utils.get_dependant
    known: dict[Any, Any] = {}

    def get_dependant(*, path: str, call: Callable[..., Any], **more: Any) -> Any:
        if not _in_process.get():
            return original(path=path, call=call, **more)
        key = (path, call, *((name, tuple(it) if isinstance(it, list) else it) for name, it in sorted(more.items())))
        if key not in known:
            known[key] = original(path=path, call=call, **more)
        return known[key]

    utils.get_dependant = get_dependant


def _stay_in_thread() -> None:
    """FastAPI runs functions that may block in other threads, lest other requests wait. Here there are no others."""
    import anyio.to_thread

    original = anyio.to_thread.run_sync

    async def run_sync(function: Callable[..., Any], *args: Any, **options: Any) -> Any:
        return function(*args) if _in_process.get() else await original(function, *args, **options)

    anyio.to_thread.run_sync = run_sync  # type: ignore[assignment]
