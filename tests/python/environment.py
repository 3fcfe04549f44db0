"""An Airflow environment on a Local Modal of the test's own, deployed as the daemon deploys it."""

from __future__ import annotations

import atexit
import base64
import contextlib
import functools
import json
import os
import shutil
import subprocess
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import warm
from local_modal import REPOSITORY, LocalModal, wait_until
from postgres import Postgres, serving
from template import copy, fingerprint, template

FUNCTIONS = REPOSITORY / "modal_functions"
SETTINGS = {
    "environment": "test",
    "database": {"type": "sqlite"},
    "scheduler": {"interval_seconds": 3600},
    "executor": {"parallelism": 4, "task_timeout": 60},
}
GIVEN = {"SCHEDULE": "@daily"}
"""Variables of all environments, for DAG files that read them."""
VARIABLE = "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"
DATABASES = ("sqlite", "postgres")
GOLDEN = "golden"
"""The database of a server that is copied for each environment."""
PRISTINE = "pristine"
"""The folder with the Volumes of an environment that nobody has used."""
STOP_CONTAINERS = """
import asyncio
from modal.client import _Client
from modal_proto import api_pb2

async def stop_containers():
    client = await _Client.from_env()
    for task in (await client.stub.TaskList(api_pb2.TaskListRequest())).tasks:
        await client.stub.ContainerStop(api_pb2.ContainerStopRequest(task_id=task.task_id))

asyncio.run(stop_containers())
"""
_kept: defaultdict[tuple[str, ...], list[Environment]] = defaultdict(list)
"""Environments that nobody uses, by what they are like."""


@contextlib.contextmanager
def deployed(
    database: str,
    *arguments: str,
    executor: dict[str, int] | None = None,
    server: Postgres | None = None,
    functions: Path = FUNCTIONS,
    **variables: str,
) -> Iterator[Environment]:
    """An environment that is ready, as new, and in a database of its own.

    `arguments` are for Local Modal. What follows is for environments unlike others, which have a Local Modal of their
    own: `executor`, that part of the settings; `server`, one of `postgres_server`; `functions`, the folder of the
    package; `variables` for the functions. All others are kept for the next one who asks for the like: processes that
    have imported Airflow and are to be forked cost more than many a test.
    """
    is_own = executor or server or functions != FUNCTIONS or variables or "LOCAL_MODAL_RPCS" in os.environ
    # A server's containers inherit its programs.
    kept = _kept[database, os.environ["PATH"], *arguments]
    if is_own:
        with _made(database, *arguments, executor=executor, server=server, functions=functions, **variables) as made:
            yield made
        return
    if kept:
        environment = kept.pop()
        _renew(environment)
    else:
        stack = contextlib.ExitStack()
        environment = stack.enter_context(_made(database, *arguments))
        atexit.register(stack.close)
        copy(environment.modal.data / "volumes", environment.modal.root / PRISTINE)
    yield environment
    kept.append(environment)


@contextlib.contextmanager
def _made(
    database: str,
    *arguments: str,
    executor: dict[str, int] | None = None,
    server: Postgres | None = None,
    functions: Path = FUNCTIONS,
    **variables: str,
) -> Iterator[Environment]:
    """A new environment, on a Local Modal of its own: a copy of a template, where one can be."""
    if server is None and database == "postgres":
        server = _shared_server()
    with LocalModal() as modal:
        string = server.create(f"d{uuid4().hex}", GOLDEN) if server else None
        environment = Environment(modal, string, functions)
        if executor or functions != FUNCTIONS:
            environment.settings |= {"executor": executor or SETTINGS["executor"]}
            modal.start(*arguments)
            environment.deploy(**variables)
        else:
            copy(_template(database) / "modal", modal.data)
            modal.start(*arguments)
            environment.change_secret(variables | ({VARIABLE: string} if string else {}))
        yield environment


def _renew(environment: Environment) -> None:
    """Makes an environment that was used what it was when it was made, but for the processes that fork containers."""
    modal, string = environment.modal, environment.connection_string
    # First all is gone, so that what still runs, or is begun again, finds nothing to do.
    environment.clear_state()
    _empty_volumes(modal)
    if string:
        _shared_server().execute("postgres", f'DROP DATABASE "{string.rpartition("/")[2]}" WITH (FORCE)')
    environment.end_containers()
    for path in modal.root.iterdir():
        if path.name not in (PRISTINE, modal.data.name, modal.log.name, "home"):
            _remove(path)
    _empty_volumes(modal)
    copy(modal.root / PRISTINE, modal.data / "volumes")
    if string:
        _shared_server().create(string.rpartition("/")[2], GOLDEN)
    environment.clear_state()


def _empty_volumes(modal: LocalModal) -> None:
    """Removes all files; the folders of Volumes stay, as fork servers have them mounted."""
    for path in (modal.data / "volumes").glob("*/*"):
        _remove(path)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        # A container may add to it at the same time.
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


@contextlib.contextmanager
def postgres_server() -> Iterator[Postgres]:
    """A server for `deployed`: it has the database that it copies."""
    with serving(_template("postgres") / "cluster") as server:
        yield server


@functools.cache
def _shared_server() -> Postgres:
    stack = contextlib.ExitStack()
    atexit.register(stack.close)
    return stack.enter_context(postgres_server())


def _template(database: str) -> Path:
    """The folder with the data of Local Modal, in `modal`, and of PostgreSQL, in `cluster`."""

    def make(folder: Path) -> None:
        with contextlib.ExitStack() as stack:
            server = stack.enter_context(serving()) if database == "postgres" else None
            modal = stack.enter_context(LocalModal())
            modal.start()
            Environment(modal, server.create(GOLDEN) if server else None).deploy()
            modal.stop()
            copy(modal.data, folder / "modal")
            if server:
                server.stop()
                copy(server.data, folder / "cluster")

    return template(database, fingerprint(FUNCTIONS, SETTINGS, GIVEN), make)


class Environment:
    """Runs scripts against the environment; each is a process that may import Airflow.

    Its database is SQLite, or the one of PostgreSQL that `connection_string` names.
    """

    def __init__(self, modal: LocalModal, connection_string: str | None = None, functions: Path = FUNCTIONS) -> None:
        self.modal = modal
        self.connection_string = connection_string
        self.functions = functions
        self.settings = {**SETTINGS, "database": {"type": "postgres" if connection_string else "sqlite"}}

    def deploy(self, *, initialize: bool = True, **variables: str) -> None:
        """Secret, with more variables for the functions, functions and database."""
        keys: dict[str, str] = {
            name: base64.urlsafe_b64encode(os.urandom(32)).decode()
            for name in ("AIRFLOW__CORE__FERNET_KEY", "AIRFLOW__API_AUTH__JWT_SECRET", "AIRFLOW__API__SECRET_KEY")
        }
        if self.connection_string:
            keys[VARIABLE] = self.connection_string
        self.modal.sdk(f"""
        modal.Secret.objects.create("airflow-secrets-test", {keys | GIVEN | variables!r})
        modal.Dict.objects.create("airflow-state-test")
        """)
        done = self.process("-m", "airflow_serverless.deploy")
        assert done.returncode == 0, done.stderr
        if initialize:
            self.call("initialize_database")

    def change_secret(self, variables: dict[str, str]) -> None:
        """Gives the functions other variables."""
        if variables:
            self.modal.ask(f'modal.Secret.from_name("airflow-secrets-test").update({variables!r})')

    def process(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """A Python process with the package, its settings, and Local Modal as its Modal."""
        secrets = {VARIABLE: self.connection_string} if self.connection_string else {}
        environment = self.modal.environment(
            **secrets, AIRFLOW_SERVERLESS_SETTINGS=json.dumps(self.settings), PYTHONPATH=str(self.functions)
        )
        return warm.run(*arguments, env=environment, timeout=300)

    def call(self, function: str, *arguments: Any) -> Any:
        """Calls a deployed function and returns its result."""
        call = f"modal.Function.from_name('airflow-serverless-test', {function!r}).remote(*{arguments!r})"
        return self.modal.ask(f"answer({call})")

    def upload(self, name: str, source: str | bytes) -> None:
        """Puts a DAG file on the Volume."""
        path = self.modal.root / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(source if isinstance(source, bytes) else source.encode())
        self.modal.ask(f"""
        with modal.Volume.from_name("airflow-dags-test").batch_upload(force=True) as batch:
            batch.put_file({str(path)!r}, "/dags/{name}")
        """)

    def command(self, identifier: str, **command: Any) -> None:
        """Leaves a command for the next tick."""
        entry = {"id": identifier, "at": time.time(), **command}
        self.modal.ask(f"""
        d = modal.Dict.from_name("airflow-state-test")
        d["command:{identifier}"] = {entry!r}
        d.put("wake", {{"reason": "test", "at": 0.0}}, skip_if_exists=True)
        """)

    def state(self) -> dict[str, Any]:
        """Everything in the Dict."""
        return self.modal.ask('answer(dict(modal.Dict.from_name("airflow-state-test").items()))')

    def clear_state(self) -> None:
        """Leaves nothing in the Dict."""
        self.modal.ask('modal.Dict.from_name("airflow-state-test").clear()')

    def end_containers(self) -> None:
        """Ends all containers; their calls begin again in others, which end once they have nothing to do."""
        self.modal.sdk(STOP_CONTAINERS)

        def have_ended() -> bool:
            status = self.modal.status()
            containers = status["containers"]
            is_idle = not status["queued"] and all(container["state"] == "idle" for container in containers)
            if containers and is_idle:
                self.modal.sdk(STOP_CONTAINERS)
            return is_idle and not containers

        wait_until(have_ended, "the end of all containers", 60.0)

    def query(self, sql: str, *parameters: Any) -> list[tuple[Any, ...]]:
        """Reads the database that others see; parameters are `?`."""
        if self.connection_string:
            return self._query_postgres(sql.replace("%", "%%").replace("?", "%s"), parameters)
        import sqlite3

        [published] = self.volumes("data/airflow.db")
        with sqlite3.connect(f"file:{published}?mode=ro&immutable=1", uri=True) as connection:
            return connection.execute(sql, parameters).fetchall()

    def execute(self, sql: str) -> None:
        """Executes SQL on the published database directly, to simulate data of other versions."""
        if self.connection_string:
            import psycopg2

            with contextlib.closing(psycopg2.connect(self.connection_string)) as connection:
                with connection.cursor() as cursor:
                    cursor.execute(sql)
                connection.commit()
            return
        import sqlite3

        [published] = self.volumes("data/airflow.db")
        with contextlib.closing(sqlite3.connect(published)) as database:
            database.execute(sql)
            database.commit()

    def _query_postgres(self, sql: str, parameters: tuple[Any, ...]) -> list[tuple[Any, ...]]:
        import psycopg2

        connection = psycopg2.connect(self.connection_string)
        try:
            with connection.cursor() as cursor:
                cursor.execute(sql, parameters)
                return cursor.fetchall()
        finally:
            connection.close()

    def volumes(self, pattern: str) -> list[Path]:
        """Files on the Volume."""
        return sorted(self.modal.data.glob(f"volumes/*/{pattern}"))
