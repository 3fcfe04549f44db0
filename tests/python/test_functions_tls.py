"""PostgreSQL with TLS: what proves a server, to both drivers, and an environment on one that takes nothing else."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncpg
import psycopg2
import pytest

from airflow_serverless.db import connection_string
from airflow_serverless.db.connection_string import ConnectionString
from environment import Environment
from local_modal import LocalModal, wait_until
from postgres import PASSWORD, USER, Postgres, self_made

DAG = """
from datetime import datetime, timedelta
from airflow.providers.standard.sensors.date_time import DateTimeSensorAsync
from airflow.sdk import DAG, task

with DAG("encrypted", schedule=None, start_date=datetime(2026, 1, 1)):
    @task
    def takes(value):
        assert value == "given"
    @task
    def gives():
        return "given"
    moment = DateTimeSensorAsync(
        task_id="moment", target_time="{{ (dag_run.start_date + macros.timedelta(seconds=2)) }}")
    moment >> takes(gives())
"""
ASYNC = """
import asyncio
from airflow_serverless.scheduler.context import TickContext
TickContext.of_process()
from airflow.utils.session import create_session_async
from sqlalchemy import text

async def main():
    async with create_session_async() as session:
        print(await session.scalar(text("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()")))

asyncio.run(main())
"""


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    server = Postgres()
    try:
        server.demand_tls()
        try:
            server.start()
        except AssertionError as error:
            if "SSL is not supported by this build" in str(error):
                pytest.skip("this PostgreSQL was built without TLS")
            raise
        yield server
    finally:
        server.close()


def is_let_in(server: Postgres, string: ConnectionString) -> list[bool]:
    """By psycopg2, by asyncpg."""
    found = []
    try:
        psycopg2.connect(**string.for_libpq()).close()
        found.append(True)
    except psycopg2.OperationalError:
        found.append(False)

    async def connect() -> None:
        options: dict[str, Any] = connection_string._for_asyncpg(string.arguments())
        connection = await asyncpg.connect(
            host=string.host, port=server.port, user=USER, password=PASSWORD, database="postgres", **options
        )
        await connection.close()

    try:
        asyncio.run(connect())
        found.append(True)
    except (OSError, asyncpg.PostgresError, asyncpg.ClientConfigurationError):
        found.append(False)
    return found


def test_both_drivers_apply_the_same_tls_options(
    server: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    root, other = tmp_path / "root", tmp_path / "other"
    root.write_text(server.certificate)
    other.write_text(self_made("localhost")[1])
    cases = [
        ("localhost", "sslmode=disable", None, False),
        ("localhost", "", None, True),
        ("localhost", "sslmode=require", None, True),
        ("localhost", "sslmode=require&channel_binding=require", None, True),
        ("localhost", f"sslmode=require&sslrootcert={other}", None, False),
        ("127.0.0.1", f"sslmode=require&sslrootcert={root}", None, True),
        ("127.0.0.1", f"sslmode=verify-ca&sslrootcert={root}", None, True),
        ("localhost", f"sslmode=verify-full&sslrootcert={root}", None, True),
        ("127.0.0.1", f"sslmode=verify-full&sslrootcert={root}", None, False),
        ("localhost", "sslmode=verify-full", None, False),
        # The server is not one that the public authorities vouch for.
        ("localhost", "sslmode=verify-full&sslrootcert=system", None, False),
        ("localhost", "sslmode=require&sslrootcert=system", None, False),
        ("localhost", "", root, True),
        ("127.0.0.1", "", root, False),
        ("127.0.0.1", "sslmode=verify-ca", root, True),
        ("localhost", "sslmode=verify-full", root, True),
        ("localhost", "sslmode=verify-full", other, False),
    ]
    for number, (host, options, certificate, expected) in enumerate(cases):
        monkeypatch.setenv("AIRFLOW_SERVERLESS_WORK", str(tmp_path / str(number)))
        settings: dict[str, Any] = {"environment": "test"}
        if certificate:
            settings["database"] = {"type": "postgres", "root_certificate": certificate.read_text()}
        monkeypatch.setenv("AIRFLOW_SERVERLESS_SETTINGS", json.dumps(settings))
        url = server.url().replace("127.0.0.1", host)
        monkeypatch.setenv(connection_string.VARIABLE, f"{url}?{options}" if options else url)
        string = ConnectionString.of_process()
        assert is_let_in(server, string) == [expected, expected], (host, options, certificate)


def test_environment_runs_on_a_tls_only_server(server: Postgres) -> None:
    string = server.create("encrypted").replace("127.0.0.1", "localhost")
    modal = LocalModal()
    modal.start()
    try:
        environment = Environment(modal, string)
        environment.settings["database"] = {"type": "postgres", "root_certificate": server.certificate}
        environment.deploy()
        environment.upload("encrypted.py", DAG)
        environment.command("e", kind="trigger", dag_id="encrypted", run_id="e")
        environment.call("run_tick", "test")
        sql = "SELECT state FROM dag_run WHERE run_id = $1"
        ended = wait_until(
            lambda: (rows := environment.call("query_metadata", sql, ["e"])) != [{"state": "running"}] and rows,
            "the end of the run",
            90,
        )
        assert ended == [{"state": "success"}]
        asked = environment.process("-c", ASYNC)
        assert asked.stdout.startswith("True\n"), asked.stdout + asked.stderr
        # The certificate of another server proves nothing about this one.
        environment.settings["database"]["root_certificate"] = self_made("localhost")[1]
        refused = environment.process("-c", ASYNC)
        assert refused.returncode != 0 and "CERTIFICATE_VERIFY_FAILED" in refused.stderr, refused.stderr
    finally:
        modal.close()
