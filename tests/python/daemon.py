"""A daemon for tests: `airflowd` in a temporary folder, with a port and its token."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from local_modal import REPOSITORY, wait_until
from template import copy, fingerprint, template

START_LIMIT = 30.0
STOP_LIMIT = 60.0
OF_PACKAGES = ("UV_", "PIP_", "SSL_CERT_", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")
"""Beginnings of variables that lead to packages, for the daemon that makes the Python runtime for all tests."""
RUNTIMES = os.environ.get("AIRFLOW_SERVERLESS_RUNTIMES", str(REPOSITORY / "target/runtimes"))


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=120)
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self.path))


class Daemon:
    """A running daemon, ended with what it started when the test is over."""

    def __init__(self, settings: str = "", home: Path | None = None) -> None:
        """`settings`: what is in its airflowd.yaml; `home`: that of a stopped daemon, to be copied."""
        # A short path: the socket's has to fit an address.
        self.root = Path(tempfile.mkdtemp(prefix="ad-"))
        self.home = self.root / "home"
        self.socket = self.home / "run/airflowd.sock"
        self.log = self.root / "airflowd.log"
        packages = {name: value for name, value in os.environ.items() if name.startswith(OF_PACKAGES)}
        variables = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.root / "user"),
            "AIRFLOW_SERVERLESS_RUNTIMES": RUNTIMES,
        }
        python = {"AIRFLOW_SERVERLESS_PYTHON": sys.executable}
        self.environment = {**packages, **variables, **python, "AIRFLOW_SERVERLESS_HOME": str(self.home)}
        if home:
            copy(home, self.home)
        (self.root / "user").mkdir()
        (self.home / "config").mkdir(parents=True, mode=0o700, exist_ok=True)
        (self.home / "config/airflowd.yaml").write_text(settings)
        self.start()

    @classmethod
    def with_dev(cls, settings: str = "") -> Daemon:
        """A daemon with environment `dev`, ready, whose metadata are in SQLite."""

        def make(folder: Path) -> None:
            running = cls()
            running.create_environment("dev")
            running.stop()
            copy(running.home, folder / "home")
            shutil.rmtree(running.root)

        daemon = (REPOSITORY / "target/debug/airflowd").stat()
        return cls(settings, template("daemon", fingerprint(daemon.st_mtime_ns, daemon.st_size), make) / "home")

    def start(self) -> None:
        """Starts it, on the data that are there."""
        command: list[str | Path] = [REPOSITORY / "target/debug/airflowd", "--listen", "127.0.0.1:0"]
        with self.log.open("a") as log:
            self.process = subprocess.Popen(command, env=self.environment, stdout=log, stderr=log)
        wait_until(self._serves, "the daemon", START_LIMIT)
        self.address = (self.home / "run/airflowd.addr").read_text().strip()
        self.url = f"http://{self.address}"
        self.token = (self.home / "data/token").read_text().strip()

    def _serves(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        try:
            return self.ask("GET", "/v1/health")[0] == 200
        except OSError:
            return False

    def ask(self, method: str, path: str, body: Any = None, content_type: str = "application/json") -> tuple[int, Any]:
        """The status and the content of an answer over the Unix socket."""
        connection = UnixConnection(self.socket)
        content = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        connection.request(method, path, content, {"Content-Type": content_type} if content is not None else {})
        response = connection.getresponse()
        text = response.read()
        connection.close()
        return response.status, json.loads(text) if text else None

    def create_environment(self, name: str, connection_string: str | None = None) -> None:
        """Creates an environment, in PostgreSQL if there is a connection string, and waits until it is ready."""
        postgres = {"type": "postgres", "connection_string": connection_string}
        database = postgres if connection_string else {"type": "sqlite"}
        config = {"database": database, "scheduler": {"interval_seconds": 3600}}
        status, change = self.ask("POST", "/v1/environments", {"name": name, "config": config})
        assert status == 202, change
        operation = change["operation"]

        def ended() -> bool:
            path = f"/v1/operations/{operation['id']}?after={operation['revision']}&wait_seconds=20"
            operation.update(self.ask("GET", path)[1])
            return operation["state"] != "running"

        wait_until(ended, f"environment {name}", 240.0)
        assert operation["state"] == "succeeded", operation

    def stop(self) -> None:
        """Ends it; what it keeps stays."""
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(STOP_LIMIT)
        assert code == 0, self.log.read_text()

    def close(self) -> None:
        """Ends the daemon and removes its data."""
        self.stop()
        shutil.rmtree(self.root)
