"""The transport to an application in this process: an interrupted request leaves nothing behind."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from types import FrameType

import httpx
import pytest
from fastapi import FastAPI

from airflow_serverless.execution_api.in_process import InProcessTransport

finished: list[str] = []


class Interrupted(BaseException):
    """As the SDK raises it in a signal handler when a call is cancelled."""


@pytest.fixture
def client() -> Iterator[httpx.Client]:
    app = FastAPI()

    @app.get("/raises")
    async def raises() -> None:
        raise Interrupted

    @app.get("/waits")
    async def waits() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            finished.append("waits")

    @app.get("/breaks")
    async def breaks() -> None:
        raise RuntimeError("broken")

    @app.get("/answers")
    async def answers() -> str:
        return "yes"

    finished.clear()
    with httpx.Client(transport=InProcessTransport(app), base_url="http://in-process.invalid") as client:
        yield client


def test_request_after_an_interrupted_one_is_answered(client: httpx.Client) -> None:
    with pytest.raises(Interrupted):
        client.get("/raises")
    assert client.get("/answers").json() == "yes"


def test_waiting_request_is_ended_by_an_interruption(client: httpx.Client) -> None:
    def interrupt(number: int, frame: FrameType | None) -> None:
        raise Interrupted

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.3)
        with pytest.raises(Interrupted):
            client.get("/waits")
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert finished == ["waits"]
    assert client.get("/answers").json() == "yes"


def test_application_error_is_answered_with_500(client: httpx.Client) -> None:
    assert client.get("/breaks").status_code == 500
    assert client.get("/answers").json() == "yes"
