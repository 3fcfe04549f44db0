"""Showing what is there now: the Volume is reloaded, and the copy of the database replaced, as requests come in."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import time
from collections.abc import AsyncIterator, Callable

from airflow_serverless.ui.asgi import App, Receive, Scope, Send

INTERVAL_SECONDS = 2.0
READERS_SECONDS = 1.0
FRESH = re.compile(r"/(?:api|ui)/.*")
"""What has to be up to date; the rest are the files of the page."""
FROM_FILES = re.compile(r"/api/v2/.+/(?:logs|xcomEntries)/.+")
"""What is answered from files of the Volume."""

log = logging.getLogger(__name__)


class Refresh:
    """Has `refresh` called before a request is answered, in a thread, by one request at a time and not too often.

    A Volume looks empty while it is reloaded, and is not reloaded while one of its files is open. So those who read
    files wait for a reload, and a reload waits a moment for them; if it fails all the same, what there is is shown, and
    a later request tries again.
    """

    def __init__(self, app: App, refresh: Callable[[], None]) -> None:
        self._app = app
        self._refresh = refresh
        self._due = time.monotonic() + INTERVAL_SECONDS
        self._under_way: asyncio.Task[None] | None = None
        self._changed = asyncio.Condition()
        self._readers = 0
        self._is_reloading = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Bring the database up to date before requests that show it."""
        if scope["type"] != "http" or not FRESH.fullmatch(scope["path"]):
            await self._app(scope, receive, send)
            return
        if self._under_way is None and time.monotonic() >= self._due:
            self._under_way = asyncio.create_task(self._reload())
        if self._under_way is not None:
            # A client that goes away must not end what others wait for.
            await asyncio.shield(self._under_way)
        async with self._reading() if FROM_FILES.fullmatch(scope["path"]) else contextlib.nullcontext():
            await self._app(scope, receive, send)

    async def _reload(self) -> None:
        try:
            async with self._alone():
                await asyncio.to_thread(self._refresh)
        except Exception:
            log.warning("The Volume cannot be reloaded now; a later request tries again", exc_info=True)
        finally:
            self._due = time.monotonic() + INTERVAL_SECONDS
            self._under_way = None

    @contextlib.asynccontextmanager
    async def _reading(self) -> AsyncIterator[None]:
        async with self._changed:
            await self._changed.wait_for(lambda: not self._is_reloading)
            self._readers += 1
        try:
            yield
        finally:
            async with self._changed:
                self._readers -= 1
                self._changed.notify_all()

    @contextlib.asynccontextmanager
    async def _alone(self) -> AsyncIterator[None]:
        async with self._changed:
            self._is_reloading = True
            # Somebody who reads for longer may be slow to take a long log.
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait_for(lambda: self._readers == 0), READERS_SECONDS)
        try:
            yield
        finally:
            async with self._changed:
                self._is_reloading = False
                self._changed.notify_all()
