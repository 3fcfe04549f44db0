"""What is done in the UI has the scheduler look at it at once, not at its next tick."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, MutableMapping
from typing import Any

from airflow_serverless.ui.asgi import App, Receive, Scope, Send
from airflow_serverless.ui.read_only import is_write

log = logging.getLogger(__name__)


class Wake:
    """Calls `wake`, in a thread, after each answer that says that something was written."""

    def __init__(self, app: App, wake: Callable[[], None]) -> None:
        self._app = app
        self._wake = wake

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Wake the scheduler after a write."""
        if scope["type"] != "http" or not is_write(scope["method"], scope["path"]):
            await self._app(scope, receive, send)
            return
        status = 500

        async def watch(message: MutableMapping[str, Any]) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        await self._app(scope, receive, watch)
        if status < 400:
            try:
                await asyncio.to_thread(self._wake)
            except Exception:
                log.warning("The scheduler cannot be woken; its next tick sees what was done", exc_info=True)
