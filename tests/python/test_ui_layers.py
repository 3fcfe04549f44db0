"""The layers around Airflow's app in the UI, each around a small app of the test's."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from airflow_serverless.db import tables
from airflow_serverless.ui import refresh
from airflow_serverless.ui.access import Access, cookie
from airflow_serverless.ui.asgi import App, Receive, Scope, Send, answer
from airflow_serverless.ui.read_only import is_write
from airflow_serverless.ui.snapshot import Snapshot

LOG = "/api/v2/dags/d/dagRuns/r/taskInstances/t/logs/1"


def asking(app: App, **more: Any) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="https://ui", **more)


async def good(_scope: Scope, _receive: Receive, send: Send) -> None:
    await answer(send, 200, b"")


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refresh, "INTERVAL_SECONDS", 0.0)


def test_failed_reload_is_retried(caplog: pytest.LogCaptureFixture) -> None:
    outcomes = [OSError("there are open files"), None, None]
    done = []

    def reload() -> None:
        done.append(len(done))
        if error := outcomes.pop(0):
            raise error

    async def run() -> list[int]:
        async with asking(refresh.Refresh(good, reload)) as client:
            paths = ("/ui/dags", "/ui/dags", "/static/pin_32.png", LOG)
            return [(await client.get(path)).status_code for path in paths]

    assert asyncio.run(run()) == [200] * 4
    # The files of the page do not ask for one.
    assert (len(done), caplog.text.count("there are open files")) == (3, 1)


def test_no_file_is_read_during_a_reload(monkeypatch: pytest.MonkeyPatch) -> None:
    readers, reloads, clashes = 0, 0, []
    monkeypatch.setattr(refresh, "READERS_SECONDS", 30.0)

    async def read(scope: Scope, _receive: Receive, send: Send) -> None:
        nonlocal readers
        readers += scope["path"] == LOG
        await asyncio.sleep(0.001)
        readers -= scope["path"] == LOG
        await answer(send, 200, b"")

    def reload() -> None:
        nonlocal reloads
        reloads += 1
        clashes.append(readers)
        threading.Event().wait(0.001)
        clashes.append(readers)

    async def run() -> None:
        async with asking(refresh.Refresh(read, reload)) as client:
            await asyncio.gather(*(client.get(path) for _ in range(40) for path in (LOG, "/ui/dags")))
            await asyncio.gather(*(client.get(LOG) for _ in range(40)))

    asyncio.run(run())
    assert reloads > 1 and not any(clashes)


def test_slow_reader_does_not_stop_reloads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refresh, "READERS_SECONDS", 0.01)
    reloads: list[int] = []

    async def run() -> None:
        begun, end = asyncio.Event(), asyncio.Event()

        async def slow(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["path"] == LOG:
                begun.set()
                await end.wait()
            await good(scope, receive, send)

        async with asking(refresh.Refresh(slow, lambda: reloads.append(1))) as client:
            reading = asyncio.create_task(client.get(LOG))
            await begun.wait()
            before = len(reloads)
            await client.get("/ui/dags")
            assert len(reloads) == before + 1
            end.set()
            await reading

    asyncio.run(run())


def asked(app: App, ask: Callable[[httpx.AsyncClient], Awaitable[httpx.Response]], **more: Any) -> httpx.Response:
    async def run() -> httpx.Response:
        async with asking(app, **more) as client:
            return await ask(client)

    return asyncio.run(run())


def test_cookies_are_secure_over_https() -> None:
    gate = Access(good, "secret")
    name, value = cookie("secret")
    given = asked(gate, lambda client: client.get("/dags?x=%2F&token=secret"))
    assert (given.status_code, given.headers["location"]) == (303, "/dags?x=%2F")
    assert given.headers["set-cookie"] == f"{name}={value}; Path=/; HttpOnly; SameSite=Lax; Secure"
    # Airflow has parameters of this name, too.
    kept = asked(gate, lambda client: client.get("/dags?token=another"), cookies={name: value})
    assert kept.status_code == 200
    for site, status in {"same-origin": 200, "none": 200, "same-site": 403, "cross-site": 403}.items():
        headers = {"sec-fetch-site": site}
        posted = asked(gate, lambda client: client.post("/", headers=headers), cookies={name: value})  # noqa: B023
        assert posted.status_code == status, site


def test_websocket_without_the_cookie_is_refused() -> None:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "websocket.connect"}

    scope = {"type": "websocket", "path": "/", "query_string": b"token=secret", "headers": []}
    asyncio.run(Access(good, "secret")(scope, receive, send))
    assert sent == [{"type": "websocket.close", "code": 1008}]


def test_writing_requests_are_recognized() -> None:
    reads = [("GET", "/x"), ("HEAD", "/x"), ("POST", "/api/v2/dags/~/dagRuns/list"), ("POST", "/auth/token")]
    writes = [("POST", "/api/v2/list"), ("DELETE", "/auth/x"), ("PATCH", "/api/v2/x/list"), ("POST", "/ui/auth/token")]
    assert not [asked for asked in reads if is_write(*asked)]
    assert [asked for asked in writes if is_write(*asked)] == writes


def test_open_connection_keeps_its_snapshot(tmp_path: Path) -> None:
    from sqlalchemy import create_engine

    paths: Any = SimpleNamespace(published_database=tmp_path / "published.db", local_database=tmp_path / "copy.db")

    def publish(generation: int) -> None:
        # As the scheduler does: another file under the same name.
        partial = tmp_path / f"{generation}.db"
        engine = create_engine(f"sqlite:///{partial}")
        with engine.connect() as connection:
            tables.create(connection, "test")
            tables.set_version(connection, generation, 1)
            connection.commit()
        engine.dispose()
        partial.replace(paths.published_database)

    def generation(connection: sqlite3.Connection) -> Any:
        return connection.execute(f"SELECT generation FROM {tables.VERSION.name}").fetchone()

    publish(1)
    snapshot = Snapshot(paths)
    snapshot.refresh()
    old = sqlite3.connect(paths.local_database)
    seen = generation(old)
    publish(2)
    snapshot.refresh()
    new = sqlite3.connect(paths.local_database)
    assert generation(old) == seen != generation(new)
    for connection in (old, new):
        connection.close()
