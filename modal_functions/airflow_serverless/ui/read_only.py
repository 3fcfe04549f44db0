"""A UI that only shows: with SQLite nobody but the scheduler writes the database."""

from __future__ import annotations

import json
import re

from airflow_serverless.ui.asgi import WRITING, App, Receive, Scope, Send, answer

READING = re.compile(r"/api/v2/.+/list|/auth/.*")
"""What is asked for by POST and writes nothing: lists whose filter is too long for an address, and the login."""


class ReadOnly:
    """Refuses, in the form of Airflow's own refusals, what would write."""

    def __init__(self, app: App, environment: str) -> None:
        self._app = app
        detail = (
            f"The metadata of environment {environment} are in SQLite, which only its scheduler writes: this UI is "
            f"read-only. Use the command line, such as `airflow-serverless dags trigger --env {environment}`, or an "
            "environment with PostgreSQL."
        )
        self._refusal = json.dumps({"detail": detail}).encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse writes; pass on the rest."""
        if scope["type"] == "http" and is_write(scope["method"], scope["path"]):
            await answer(send, 403, self._refusal, (b"content-type", b"application/json"))
        else:
            await self._app(scope, receive, send)


def is_write(method: str, path: str) -> bool:
    """Whether a request changes something."""
    return method in WRITING and not (method == "POST" and READING.fullmatch(path))


def drop_audit_log() -> None:
    """Leave out the entries that Airflow makes in its audit log for some of what is only read.

    Whatever else would be written is an error, as the copy of the database is opened read-only.
    """
    from airflow.models.log import Log
    from sqlalchemy import event
    from sqlalchemy.orm import Session

    @event.listens_for(Session, "before_flush")
    def drop(session: Session, *_: object) -> None:
        for entry in [entry for entry in session.new if isinstance(entry, Log)]:
            session.expunge(entry)
