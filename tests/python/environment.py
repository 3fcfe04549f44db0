"""An Airflow environment on a Local Modal of the test's own, deployed as the daemon deploys it."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from local_modal import REPOSITORY, LocalModal
from postgres import serving

FUNCTIONS = REPOSITORY / "modal_functions"
SETTINGS = {
    "environment": "test",
    "database": {"type": "sqlite"},
    "scheduler": {"interval_seconds": 3600},
    "executor": {"parallelism": 4, "task_timeout": 60},
}
VARIABLE = "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"
DATABASES = ("sqlite", "postgres")


@contextlib.contextmanager
def deployed(
    database: str, *arguments: str, executor: dict[str, int] | None = None, **variables: str
) -> Iterator[Environment]:
    """An environment that is ready, on a Local Modal and, if it is to be that, on a PostgreSQL of its own.

    `arguments` are for Local Modal, `variables` for the functions; `executor` is that part of the settings.
    """
    with contextlib.ExitStack() as stack:
        string = stack.enter_context(serving()).create("airflow") if database == "postgres" else None
        modal = LocalModal()
        stack.callback(modal.close)
        modal.start(*arguments)
        environment = Environment(modal, string)
        environment.settings |= {"executor": executor or SETTINGS["executor"]}
        environment.deploy(**variables)
        yield environment


class Environment:
    """Runs scripts against the environment; each is a process that may import Airflow.

    Its database is SQLite, or the one of PostgreSQL that `connection_string` names.
    """

    def __init__(self, modal: LocalModal, connection_string: str | None = None) -> None:
        self.modal = modal
        self.connection_string = connection_string
        self.settings = {**SETTINGS, "database": {"type": "postgres" if connection_string else "sqlite"}}

    def deploy(self, **variables: str) -> None:
        """Secret, with more variables for the functions, functions and database."""
        keys = {
            name: base64.urlsafe_b64encode(os.urandom(32)).decode()
            for name in ("AIRFLOW__CORE__FERNET_KEY", "AIRFLOW__API_AUTH__JWT_SECRET", "AIRFLOW__API__SECRET_KEY")
        }
        if self.connection_string:
            keys[VARIABLE] = self.connection_string
        self.modal.sdk(f"""
        modal.Secret.objects.create("airflow-secrets-test", {keys | variables!r})
        modal.Dict.objects.create("airflow-state-test")
        """)
        done = self.process("-m", "airflow_serverless.deploy")
        assert done.returncode == 0, done.stderr
        self.call("initialize_database")

    def process(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """A Python process with the package, its settings, and Local Modal as its Modal."""
        secrets = {VARIABLE: self.connection_string} if self.connection_string else {}
        environment = self.modal.environment(
            **secrets, AIRFLOW_SERVERLESS_SETTINGS=json.dumps(self.settings), PYTHONPATH=str(FUNCTIONS)
        )
        return subprocess.run(
            [sys.executable, *arguments], env=environment, capture_output=True, text=True, timeout=300, check=False
        )

    def call(self, function: str, *arguments: Any) -> Any:
        """Calls a deployed function and returns its result."""
        call = f"modal.Function.from_name('airflow-serverless-test', {function!r}).remote(*{arguments!r})"
        return self.modal.sdk(f"answer({call})")

    def upload(self, name: str, source: str | bytes) -> None:
        """Puts a DAG file on the Volume."""
        path = self.modal.root / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(source if isinstance(source, bytes) else source.encode())
        self.modal.sdk(f"""
        with modal.Volume.from_name("airflow-dags-test").batch_upload(force=True) as batch:
            batch.put_file({str(path)!r}, "/dags/{name}")
        """)

    def command(self, identifier: str, **command: Any) -> None:
        """Leaves a command for the next tick."""
        entry = {"id": identifier, "at": time.time(), **command}
        self.modal.sdk(f"""
        d = modal.Dict.from_name("airflow-state-test")
        d["command:{identifier}"] = {entry!r}
        d.put("wake", {{"reason": "test", "at": 0.0}}, skip_if_exists=True)
        """)

    def state(self) -> dict[str, Any]:
        """Everything in the Dict."""
        return self.modal.sdk('answer(dict(modal.Dict.from_name("airflow-state-test").items()))')

    def query(self, sql: str, *parameters: Any) -> list[tuple[Any, ...]]:
        """Reads the database that others see; parameters are `?`."""
        if self.connection_string:
            return self._query_postgres(sql.replace("%", "%%").replace("?", "%s"), parameters)
        import sqlite3

        [published] = self.volumes("data/airflow.db")
        with sqlite3.connect(f"file:{published}?mode=ro&immutable=1", uri=True) as connection:
            return connection.execute(sql, parameters).fetchall()

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
