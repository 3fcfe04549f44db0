"""Asks the daemon for all that the API's document promises, and for much that it does not: schemathesis, at both doors.

No answer may be a server error, or one that the document does not tell of; what is malformed has to be refused.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from daemon import Daemon
from local_modal import REPOSITORY, wait_until

HERE = Path(__file__).resolve().parent
DAGS = REPOSITORY / "tests/dags"
# Twice what it takes on a machine that has other things to do.
LIMIT = 540.0
CHECKS = [
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "negative_data_rejection",
    "positive_data_acceptance",
    "missing_required_header",
    "unsupported_method",
    "allow_header_conformance",
]
SCHEDULED = """
from airflow.sdk import dag, task

@dag(schedule="@daily", start_date=None, catchup=False)
def NAME():
    @task
    def nothing(): ...
    nothing()
NAME()
"""


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    """A daemon with an environment that has one of everything."""
    running = Daemon.with_dev()
    fill(running)
    yield running
    running.close()


def fill(daemon: Daemon) -> None:
    base = "/v1/environments/dev"

    def wanted(method: str, path: str, body: object, content_type: str = "application/json") -> dict:
        status, answer = daemon.ask(method, base + path, body, content_type)
        assert status in (200, 201), answer
        return answer

    files = {"greeting": (DAGS / "greeting.py").read_text()}
    files |= {name: SCHEDULED.replace("NAME", name) for name in ("daily", "doomed", "spare")}
    for name, source in files.items():
        wanted("PUT", f"/dags/files/{name}.py?mode=create", source.encode(), "text/x-python")
    for name in ("few", "lost"):
        wanted("POST", "/pools", {"pools": [{"name": name, "slots": 2}]})
        wanted("POST", "/variables", {"variables": [{"key": name, "value": "1"}]})
        wanted("POST", "/connections", {"connections": [{"connection_id": name, "conn_type": "http"}]})
    # It need not be ready to be deleted.
    status, answer = daemon.ask(
        "POST", "/v1/environments", {"name": "lost", "config": {"database": {"type": "sqlite"}}}
    )
    assert status == 202, answer
    daemon.ask("POST", f"/v1/operations/{answer['operation']['id']}/cancel", {})
    wanted("POST", "/dags/greeting/runs", {"dag_run_id": "first"})
    ended = ("success", "failed")
    wait_until(lambda: daemon.ask("GET", f"{base}/dags/greeting/runs/first")[1]["state"] in ended, "the run", 120.0)
    dates = {"from_date": "2026-01-01T00:00:00Z", "to_date": "2026-01-01T00:00:00Z"}
    wanted("POST", "/backfills", {"dag_id": "daily", **dates})


class Forwarder:
    """A port that leads to a Unix socket: what comes in at the one goes through the other, and back."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.loop = asyncio.new_event_loop()
        self.server = self.loop.run_until_complete(asyncio.start_server(self._forward, "127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.server.sockets[0].getsockname()[1]}"
        self.thread = threading.Thread(target=self.loop.run_forever)
        self.thread.start()

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner_reader, inner_writer = await asyncio.open_unix_connection(self.path)
        await asyncio.gather(pump(reader, inner_writer), pump(inner_reader, writer), return_exceptions=True)

    def close(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()


async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
    finally:
        writer.close()


def run(daemon: Daemon, document: dict, url: str, checks: list[str], *arguments: str) -> None:
    """Runs schemathesis with the document against a URL; it has to find nothing."""
    described = daemon.root / "openapi.json"
    described.write_text(json.dumps(document))
    config = daemon.ask("GET", "/v1/environments/dev")[1]["config"]
    names = {
        "environment": "dev",
        "dag_id": "greeting",
        "dag_run_id": "first",
        "task_id": "greet",
        "key": "few",
        "connection_id": "few",
        "name": "few",
        "filename": "greeting.py",
        "backfill_id": 1,
        "scheduled": "daily",
    }
    doomed = {
        "delete_environment": {"environment": "lost"},
        "delete_dag": {"dag_id": "doomed"},
        "delete_dag_file": {"filename": "spare.py"},
        "delete_variable": {"key": "lost"},
        "delete_connection": {"connection_id": "lost"},
        "delete_pool": {"name": "lost"},
    }
    environment = {
        **os.environ,
        "SCHEMATHESIS_HOOKS": "schemathesis_hooks",
        "PYTHONPATH": str(HERE),
        "API_TEST_NAMES": json.dumps(names),
        "API_TEST_DOOMED": json.dumps(doomed),
        "API_TEST_CONFIG": json.dumps(config),
    }
    program = Path(sys.executable).with_name("schemathesis")
    options = ["--checks", ",".join(checks), "--request-timeout", "100", "--warnings", "off"]
    options += ["--url", url, *arguments]
    command = [program, "--config-file", HERE / "schemathesis.toml", "--no-color", "run", described, *options]
    done = subprocess.run(
        command, cwd=daemon.root, env=environment, capture_output=True, text=True, timeout=LIMIT, check=False
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}\n{daemon.log.read_text()[-5000:]}"
    operations = sum(map(len, document["paths"].values()))
    assert f"Tested: {operations}" in done.stdout, done.stdout


def test_port_conforms_to_the_openapi_document(daemon: Daemon) -> None:
    document = daemon.ask("GET", "/openapi.json")[1]
    run(daemon, document, daemon.url, [*CHECKS, "ignored_auth"], "--header", f"Authorization: Bearer {daemon.token}")


def test_socket_conforms_to_the_openapi_document(daemon: Daemon) -> None:
    # Who may connect needs no token here. What lies behind is that of the port, so a few requests for each are enough.
    document = daemon.ask("GET", "/openapi.json")[1]
    del document["security"]
    forwarder = Forwarder(daemon.socket)
    try:
        run(daemon, document, forwarder.url, CHECKS, "--phases", "examples,fuzzing", "--max-examples", "1")
    finally:
        forwarder.close()
