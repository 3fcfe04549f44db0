"""PostgreSQL as the metadata database: the lock, lost sessions and servers, and who sees the connection string."""

from __future__ import annotations

import ast
import contextlib
import json
import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, cast

import psycopg2
import pytest

from airflow_serverless.db.backend import SCHEDULER_LOCK
from airflow_serverless.db.connection_string import DEFAULTS, ConnectionString, ConnectionStringError
from airflow_serverless.db.postgres_backend import PostgresBackend
from environment import FUNCTIONS, VARIABLE, Environment, deployed, postgres_server
from local_modal import wait_until
from postgres import ENCODED, PASSWORD, Postgres

if TYPE_CHECKING:
    import modal

DAG = """
import os, pathlib, time
from datetime import datetime
from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG, get_current_context, task

with DAG("patient", schedule=None, start_date=datetime(2026, 1, 1)):
    # Without a result of its own, its end is the first thing that it has to tell.
    @task(do_xcom_push=False)
    def waits():
        folder = pathlib.Path(get_current_context()["dag_run"].conf["folder"])
        (folder / "begun").touch()
        deadline = time.monotonic() + 60
        while not (folder / "go").exists() and time.monotonic() < deadline:
            time.sleep(0.02)

    @task
    def gives():
        return "the result"

    @task
    def takes(value):
        assert value == "the result"

    given = gives()
    waits() >> given
    takes(given) >> BashOperator(task_id="shows", bash_command="env")
"""


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    with postgres_server() as server:
        yield server


@pytest.fixture(scope="module")
def environment(server: Postgres) -> Iterator[Environment]:
    with deployed("postgres", server=server) as environment:
        environment.upload("patient.py", DAG)
        yield environment


# Prints what `answer` is given. The lock needs neither Airflow nor Modal, only the tables that tell whose this is.
BACKEND = """
import types
from airflow_serverless.db import tables
from airflow_serverless.db.backend import DatabaseError
from airflow_serverless.db.postgres_backend import PostgresBackend

class Backend(PostgresBackend):
    def __init__(self, name="test"):
        super().__init__(name, types.SimpleNamespace(reload=lambda: None, commit=lambda: None))
    def get_connection(self):
        return self._connect()

def fault(function, *arguments):
    try: function(*arguments)
    except DatabaseError as error: return f"{type(error).__name__}: {error}"

def cut(backend):
    pid = backend._locks["s"].exec_driver_sql("SELECT pg_backend_pid()").scalar()
    with backend._connect() as other:
        other.exec_driver_sql(f"SELECT pg_terminate_backend({pid}, 5000)")

def make(name):
    with Backend().get_connection() as connection:
        tables.create(connection, name)
        connection.exec_driver_sql("CREATE TABLE alembic_version (version_num text)")

def answer(value): print(repr(value))

one, two = Backend(), Backend()
"""


def run(server: Postgres, database: str, script: str) -> Any:
    """Runs a script with the backends `one` and `two` on a database that is created if it is not there."""
    known = server.execute("postgres", "SELECT 1 FROM pg_database WHERE datname = %s", database)
    url = server.url(database) if known else server.create(database)
    settings = json.dumps({"environment": "test", "database": {"type": "postgres"}})
    needed = {VARIABLE: url, "AIRFLOW_SERVERLESS_SETTINGS": settings}
    done = subprocess.run(
        [sys.executable, "-c", BACKEND + textwrap.dedent(script)],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(FUNCTIONS), **needed},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return ast.literal_eval(done.stdout)


def test_lock_has_one_holder(server: Postgres) -> None:
    script = """
    first = [one.acquire_lock("s", 0), two.acquire_lock("s", 0), two.acquire_lock("another", 0)]
    other = Backend("other").acquire_lock("s", 0)
    one.release_lock("s")
    one.release_lock("s")
    answer([first, other, two.acquire_lock("s", 5), one.acquire_lock("s", 1)])
    """
    assert run(server, "lock", script) == [[True, False, True], True, True, False]


def test_lost_session_loses_the_lock(server: Postgres) -> None:
    """Whoever has it next, and whatever the next statement of a driver that connects anew would say."""
    script = """
    make("test")
    one.acquire_lock("s", 0)
    one.load()
    before = one.publish()
    cut(one)
    lost = [fault(one.publish), fault(one.publish), fault(one.load)]
    taken = two.acquire_lock("s", 10)
    two.load()
    one.release_lock("s")
    answer([before, lost, taken, two.generation, two.publish(), fault(one.publish)])
    """
    before, lost, taken, loaded, published, released = run(server, "lost", script)
    assert all(fault.startswith("LockLost") for fault in [*lost, released])
    assert (before, taken, loaded, published) == (1, True, 1, 2)


def test_database_of_another_environment_is_refused(server: Postgres) -> None:
    script = """
    empty = [one.exists(), fault(one.load)]
    make("test")
    answer([empty, one.exists(), fault(Backend("other").exists)])
    """
    empty, exists, other = run(server, "owner", script)
    assert empty[0] is False and "not initialized" in empty[1] and exists is True
    assert "belongs to environment 'test'" in other
    server.execute("owner", "DROP TABLE airflow_serverless_environment")
    server.execute("postgres", 'CREATE DATABASE foreign_airflow TEMPLATE "owner"')
    assert "belongs to another Airflow" in run(server, "foreign_airflow", "answer(fault(one.exists))")


def test_connection_strings_are_parsed_or_refused() -> None:
    parsed = ConnectionString.parse("postgres://u%40x:p%25%24%2F@[::1]:5433/my%20db?sslmode=require")
    assert parsed.for_libpq() == {
        **DEFAULTS,
        **{"host": "::1", "port": 5433, "user": "u@x", "password": "p%$/", "dbname": "my db", "sslmode": "require"},
    }
    assert parsed.for_sqlalchemy() == "postgresql+psycopg2://u%40x:p%25%24%2F@[::1]:5433/my db"
    socket = ConnectionString.parse("postgresql://u@/db?host=/run/pg")
    assert (socket.for_libpq()["host"], socket.server) == ("/run/pg", "/run/pg:5432")
    assert ConnectionString.parse("postgresql+psycopg2://u@%2Frun%2Fpg/db").for_libpq()["host"] == "/run/pg"
    for text in ("", "mysql://u:hunter2@h/d", "postgresql://u:hunt@er2@h/d", "postgresql://u:hunter2/@h/d", "hunter2"):
        with pytest.raises(ConnectionStringError) as raised:
            ConnectionString.parse(text)
        assert "hunt" not in str(raised.value) and "percent-encoding" in str(raised.value)
    assert "hunter2" not in repr(ConnectionString.parse("postgresql://u:hunter2@h/d"))


def test_server_restart_loses_no_results(environment: Environment, server: Postgres) -> None:
    """Neither the result of a task that ended meanwhile, nor what warm containers do next."""
    folder = environment.modal.root / "folder"
    folder.mkdir()
    environment.command("one", kind="trigger", dag_id="patient", run_id="one", conf={"folder": str(folder)})
    environment.call("run_tick", "test")
    wait_until((folder / "begun").exists, "the beginning of the task", 60)
    rows = environment.call("query_metadata", "SELECT state, start_date FROM dag_run WHERE run_id = $1", ["one"])
    assert rows[0]["state"] == "running" and rows[0]["start_date"].endswith("+00:00")

    server.stop()
    (folder / "go").touch()
    running = "task:patient:waits:one"
    wait_until(lambda: "ending_at" in environment.state()[running], "a result that cannot be told yet", 60)
    assert environment.state()[running]["status"] == "RUNNING"
    unreachable = environment.modal.sdk("""
    query = modal.Function.from_name("airflow-serverless-test", "query_metadata")
    try: query.remote("SELECT 1", [])
    except Exception as error: answer(str(error))
    """)
    assert "PostgreSQL at 127.0.0.1" in unreachable and PASSWORD not in unreachable
    failed = environment.modal.sdk("""
    modal.Dict.from_name("airflow-state-test").put("wake", {"reason": "test", "at": 0.0}, skip_if_exists=True)
    try: modal.Function.from_name("airflow-serverless-test", "run_tick").remote("test")
    except Exception as error: answer(str(error))
    """)
    assert "PostgreSQL at 127.0.0.1" in failed
    assert environment.state()["due"]["next_due"] <= time.time(), "what a failed tick took up is for the next"
    server.start()

    def ended() -> bool:
        return environment.query("SELECT state FROM dag_run WHERE run_id = 'one'") == [("success",)]

    wait_until(ended, "the end of the run", 120)
    tries = environment.query("SELECT task_id, state, try_number FROM task_instance WHERE run_id = 'one'")
    assert sorted(tries) == [(name, "success", 1) for name in ("gives", "shows", "takes", "waits")]
    assert environment.call("query_metadata", "SELECT count(*) AS n FROM dag_run", []) == [{"n": 1}]
    assert "read-only" in environment.modal.sdk("""
    query = modal.Function.from_name("airflow-serverless-test", "query_metadata")
    try: query.remote("DELETE FROM dag_run", [])
    except Exception as error: answer(str(error))
    """)


def test_tick_skips_a_locked_database(environment: Environment, server: Postgres) -> None:
    key = PostgresBackend("test", cast("modal.Volume", None))._key(SCHEDULER_LOCK)
    with (
        contextlib.closing(psycopg2.connect(cast("str", environment.connection_string))) as session,
        session.cursor() as cursor,
    ):
        cursor.execute("SELECT pg_advisory_lock(%s)", (key,))
        before = environment.query("SELECT generation FROM airflow_serverless_version")
        environment.command("refresh", kind="refresh")
        assert environment.call("run_tick", "test") == {"busy": True}
        assert environment.query("SELECT generation FROM airflow_serverless_version") == before
    environment.call("run_tick", "test")
    assert environment.state()["reply:refresh"]["ok"]


def test_obsolete_launch_is_refused_by_the_database(environment: Environment) -> None:
    """Before the Dict does: the next launch of a task that was cleared is committed there first."""
    entry = environment.state()["task:patient:gives:one"]
    late = {**entry, "status": "QUEUED", "launch": "late", "dag_id": "ghost"}
    environment.modal.sdk(f"""modal.Dict.from_name("airflow-state-test")["task:ghost"] = {late!r}""")
    payload = {"key": "task:ghost", "launch": "late", "generation": 1, "workload": {}}
    assert environment.call("execute_task", payload) == {"status": "obsolete"}
    assert environment.state()["task:ghost"]["status"] == "QUEUED"


def test_connection_string_is_in_no_file_or_log(environment: Environment) -> None:
    """A task that prints its environment, and all that containers printed."""
    written = [*environment.volumes("**/*"), *environment.modal.data.glob("logs/**/*")]
    texts = [path.read_text(errors="replace") for path in written if path.is_file()]
    assert any("AIRFLOW_CTX_DAG_ID" in text for text in texts)
    for text in texts:
        assert PASSWORD not in text and ENCODED not in text
