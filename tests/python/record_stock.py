"""Runs the corpus on stock Airflow and writes what came of it to tests/corpus/expected.json: `make record-corpus`.

Airflow's own commands run as they are, with LocalExecutor, in a temporary home, on PostgreSQL. (On SQLite its scheduler
dies as soon as two of its processes are in each other's way for too long.)
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import httpx

import corpus
import postgres

COMPONENTS = ("api-server", "scheduler", "dag-processor", "triggerer")
START_SECONDS = 180
RUN_SECONDS = 600
POLL_SECONDS = 0.5
QUIET_SECONDS = 5
"""For so long nothing may run before the corpus counts as over: assets and schedules may start more."""


def main() -> int:
    """Record, and return the exit status."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    with tempfile.TemporaryDirectory(prefix="stock-") as name, postgres.serving() as server:
        home = Path(name)
        notes = home / "notes"
        notes.mkdir()
        corpus.build_folder(home / "dags")
        database = server.create("airflow").replace("postgresql:", "postgresql+psycopg2:")
        environment = configuration(home, notes, database)
        query = partial(server.execute, "airflow")
        run = [sys.executable, "-m", "airflow"]
        subprocess.run([*run, "db", "migrate"], env=environment, check=True, stdout=subprocess.DEVNULL)
        with contextlib.ExitStack() as stack:
            for component in COMPONENTS:
                stack.enter_context(started([*run, component], environment, home / f"{component}.log"))
            try:
                run_all(environment["AIRFLOW__API__BASE_URL"], query)
                wait_until_quiet(query)
            except BaseException:
                for component in COMPONENTS:
                    print(f"--- {component}\n{(home / f'{component}.log').read_text()[-3000:]}", file=sys.stderr)
                raise
        places = {str(home / "dags"): "<dags>", str(notes): "<notes>", str(home): "<home>"}
        document = corpus.collect(query, lambda value: value, notes, places)
    corpus.EXPECTED.write_text(json.dumps(document, indent=1, sort_keys=True) + "\n")
    print(f"{len(document['dags'])} DAGs, {len(document['import_errors'])} import errors")
    return 0


def configuration(home: Path, notes: Path, database: str) -> dict[str, str]:
    """The environment of all components."""
    port, worker_port, trigger_port = free_ports(3)
    base = f"http://127.0.0.1:{port}"
    options = {
        "CORE__DAGS_FOLDER": str(home / "dags"),
        "CORE__PLUGINS_FOLDER": str(home / "dags/plugins"),
        "CORE__LOAD_EXAMPLES": "False",
        "CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
        "CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
        "CORE__EXECUTION_API_SERVER_URL": f"{base}/execution/",
        "CORE__EXECUTOR": "LocalExecutor",
        "CORE__PARALLELISM": "8",
        "API__HOST": "127.0.0.1",
        "API__PORT": str(port),
        "API__BASE_URL": base,
        "API__WORKERS": "1",
        "API__SECRET_KEY": secrets.token_hex(32),
        "API_AUTH__JWT_SECRET": secrets.token_hex(64),
        "DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "600",
        "DATABASE__SQL_ALCHEMY_CONN": database,
        "DATABASE__LOAD_DEFAULT_CONNECTIONS": "False",
        # A process that has told of its end may stay for so long, and a task that goes on meanwhile is failed.
        "WORKERS__MIN_HEARTBEAT_INTERVAL": "1",
        "LOGGING__WORKER_LOG_SERVER_PORT": str(worker_port),
        "LOGGING__TRIGGER_LOG_SERVER_PORT": str(trigger_port),
        "USAGE_DATA_COLLECTION__ENABLED": "False",
    }
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "AIRFLOW_HOME": str(home),
        "PYTHONWARNINGS": "ignore",
        # For callbacks of deadlines, which the triggerer imports by their names.
        "PYTHONPATH": str(home / "dags"),
        "CORPUS_NOTES": str(notes),
        **corpus.VARIABLES,
        **{f"AIRFLOW__{name}": value for name, value in options.items()},
    }


def free_ports(count: int) -> list[int]:
    """Different ports that nobody listens on."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


@contextlib.contextmanager
def started(command: list[str], environment: dict[str, str], log: Path) -> Iterator[None]:
    """A component in a group of its own, which ends with it."""
    with log.open("w") as output:
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=output, start_new_session=True)
    try:
        yield
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(20)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def run_all(base: str, query: corpus.Query) -> None:
    """Make the pools of the table and ask for all of its runs, once all of their DAGs are there."""
    wait_for(lambda: httpx.get(f"{base}/api/v2/version").is_success, "the API server", START_SECONDS)
    token = httpx.get(f"{base}/auth/token").raise_for_status().json()["access_token"]
    wanted = {trigger.dag_id for trigger in corpus.triggers()}
    absent: set[str] = set()

    def parsed() -> bool:
        absent.clear()
        absent.update(wanted - {row[0] for row in query("SELECT dag_id FROM serialized_dag")})
        return not absent

    wait_for(parsed, absent, START_SECONDS)
    with httpx.Client(base_url=base, headers={"authorization": f"Bearer {token}"}, timeout=60) as client:
        for name, slots in corpus.table()["pools"].items():
            client.post("/api/v2/pools", json={"name": name, "slots": slots}).raise_for_status()
        for run in corpus.triggers():
            wait_for(partial(trigger, client, run), run, START_SECONDS)


def trigger(client: httpx.Client, run: corpus.Trigger) -> bool:
    """False if it has to be tried again."""
    body = {
        "dag_run_id": run.run_id,
        "logical_date": run.logical_date,
        "conf": run.conf,
        "partition_key": run.partition_key,
    }
    answer = client.post(f"/api/v2/dags/{run.dag_id}/dagRuns", json=body)
    if answer.is_client_error:
        raise RuntimeError(f"{run} was refused: {answer.text}")
    return answer.is_success


def wait_until_quiet(query: corpus.Query) -> None:
    left: list[tuple[str, str]] = []
    since = time.monotonic()

    def quiet() -> bool:
        nonlocal since
        left[:] = corpus.unfinished(query)
        if left:
            since = time.monotonic()
        return time.monotonic() - since > QUIET_SECONDS

    wait_for(quiet, left, RUN_SECONDS)


def wait_for(holds: Callable[[], bool], what: object, limit: float) -> None:
    until = time.monotonic() + limit
    while True:
        with contextlib.suppress(httpx.TransportError):
            if holds():
                return
        if time.monotonic() > until:
            raise TimeoutError(f"waited {limit} s for {what}")
        time.sleep(POLL_SECONDS)


if __name__ == "__main__":
    sys.exit(main())
