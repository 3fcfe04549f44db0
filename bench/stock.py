"""Stock Airflow with its LocalExecutor in a temporary home: what everything here is compared with."""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

READY_SECONDS = 180.0
PARTS = ("api-server", "dag-processor", "scheduler", "triggerer")


class StockAirflow:
    """The four processes of an installation, in a folder that holds its `dags`."""

    def __init__(self, home: Path, **variables: str) -> None:
        self.home = home
        self.dags = home / "dags"
        self.dags.mkdir(parents=True, exist_ok=True)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")}
        options = {
            "CORE__DAGS_FOLDER": str(self.dags),
            "CORE__LOAD_EXAMPLES": "False",
            "CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
            "CORE__EXECUTOR": "LocalExecutor",
            "CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
            "CORE__EXECUTION_API_SERVER_URL": f"{self.url}/execution/",
            "API__HOST": "127.0.0.1",
            "API__PORT": str(port),
            "API__BASE_URL": self.url,
            "API__WORKERS": "1",
            "API__SECRET_KEY": secrets.token_hex(32),
            "API_AUTH__JWT_SECRET": secrets.token_hex(64),
            "USAGE_DATA_COLLECTION__ENABLED": "False",
            "DATABASE__LOAD_DEFAULT_CONNECTIONS": "False",
        }
        self.environment = {
            **inherited,
            "AIRFLOW_HOME": str(home),
            **{f"AIRFLOW__{name}": value for name, value in options.items()},
            **variables,
        }
        self._parts: list[subprocess.Popen[bytes]] = []
        self._token = ""

    def start(self) -> None:
        """Create the database, start all parts, and wait until the API answers and the scheduler is healthy."""
        self.airflow("db", "migrate")
        for part in PARTS:
            with (self.home / f"{part}.log").open("wb") as log:
                command = [sys.executable, "-m", "airflow", part]
                process = subprocess.Popen(
                    command,
                    env=self.environment,
                    stdout=log,
                    stderr=log,
                    stdin=subprocess.DEVNULL,
                    start_new_session=True,
                )
            self._parts.append(process)
        until = time.monotonic() + READY_SECONDS
        while not self._is_healthy():
            if time.monotonic() > until:
                raise TimeoutError(f"stock Airflow is not ready after {READY_SECONDS:g} s; see the logs in {self.home}")
            time.sleep(0.5)
        self._token = self.request("GET", "/auth/token")["access_token"]

    def airflow(self, *arguments: str) -> str:
        """What a command of Airflow's prints."""
        command = [sys.executable, "-m", "airflow", *arguments]
        return subprocess.run(command, env=self.environment, check=True, capture_output=True, text=True).stdout

    def _is_healthy(self) -> bool:
        try:
            health = self.request("GET", "/api/v2/monitor/health")
        except OSError:
            return False
        return bool(health["scheduler"]["status"] == "healthy")

    def request(self, method: str, path: str, body: Any = None) -> Any:
        """An answer of the REST API; raises urllib.error.HTTPError."""
        headers = {"content-type": "application/json"}
        if self._token:
            headers["authorization"] = f"Bearer {self._token}"
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, method=method, data=data, headers=headers)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.loads(answer.read() or b"{}")

    def wait_for_dag(self, dag_id: str) -> None:
        """Return when a DAG is known."""
        until = time.monotonic() + READY_SECONDS
        while True:
            try:
                self.request("GET", f"/api/v2/dags/{dag_id}")
                return
            except urllib.error.HTTPError as error:
                if error.code != 404 or time.monotonic() > until:
                    raise
            time.sleep(0.5)

    def trigger(self, dag_id: str, **more: Any) -> str:
        """Begin a run; returns its id."""
        run = self.request("POST", f"/api/v2/dags/{dag_id}/dagRuns", {"logical_date": None, **more})
        return str(run["dag_run_id"])

    def wait(self, dag_id: str, run_id: str, limit: float = 300.0) -> dict[str, Any]:
        """The run once it has ended."""
        path = f"/api/v2/dags/{dag_id}/dagRuns/{urllib.parse.quote(run_id)}"
        until = time.monotonic() + limit
        while True:
            run: dict[str, Any] = self.request("GET", path)
            if run["state"] in ("success", "failed"):
                return run
            if time.monotonic() > until:
                raise TimeoutError(f"{dag_id} has not ended after {limit:g} s")
            time.sleep(0.25)

    def stop(self) -> None:
        """End all parts and what they started."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            for process in self._parts:
                try:
                    os.killpg(process.pid, number)
                except ProcessLookupError:
                    continue
            for process in self._parts:
                try:
                    process.wait(10)
                except subprocess.TimeoutExpired:
                    continue
