"""XComs as people want to see them: Airflow's API shows what the database holds, which here refers to a file."""

from __future__ import annotations

import contextvars
import json
import logging
import re
from typing import Any

from airflow_serverless.ui.asgi import App, Receive, Scope, Send

ONE = re.compile(r"/api/v2/.+/xcomEntries/.+")
LARGEST_BYTES = 1 << 20
"""Of a value that is shown; a browser does not want larger ones."""

log = logging.getLogger(__name__)
_is_shown: contextvars.ContextVar[bool] = contextvars.ContextVar("is_shown", default=False)


class XComValues:
    """Marks the requests that ask for the value of one XCom."""

    def __init__(self, app: App) -> None:
        self._app = app
        _show_payloads()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Read values of XComs from the volume where a single one is shown."""
        if scope["type"] == "http" and scope["method"] == "GET" and ONE.fullmatch(scope["path"]):
            before = _is_shown.set(True)
            try:
                await self._app(scope, receive, send)
            finally:
                _is_shown.reset(before)
        else:
            await self._app(scope, receive, send)


def _show_payloads() -> None:
    from airflow.models.xcom import XComModel
    from sqlalchemy import event
    from sqlalchemy.orm.attributes import set_committed_value

    import airflow_serverless.xcom.backend  # noqa: F401  # The UI reads what tasks wrote as they do.

    @event.listens_for(XComModel, "load")
    def show(entry: XComModel, _context: Any) -> None:
        if _is_shown.get():
            set_committed_value(entry, "value", _payload(entry.value))


def _payload(value: Any) -> Any:
    """What a row's value refers to, or the value itself."""
    from airflow_serverless.xcom.backend import payload_path

    path = payload_path(value)
    if path is None:
        return value
    try:
        if path.stat().st_size > LARGEST_BYTES:
            return value
        return json.loads(path.read_bytes())
    except OSError:
        log.warning("The payload of an XCom is not there: %s", path, exc_info=True)
        return value
