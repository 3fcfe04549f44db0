"""What the daemon takes to start, to answer, and to do nothing: `make bench`.

Each figure is a median; machines are shared and noisy, so compare figures of one run only. Figures of a debug build say
little.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from first_light import BIN, RESTING_CONFIG, Installation, family_pss_megabytes, show, show_idle, timed

IDLE_SECONDS = float(os.environ.get("IDLE_SECONDS", "60"))
STARTS = 9
DAGS_LIST_MILLISECONDS = 20
ANSWERED = b"GET /v1/version HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"
START_LIMIT_SECONDS = 30.0


def answers(path: Path) -> bool:
    """Whether the daemon behind a socket answers a request."""
    with socket.socket(socket.AF_UNIX) as client:
        try:
            client.connect(str(path))
            client.sendall(ANSWERED)
            return client.recv(64).startswith(b"HTTP/1.1 200")
        except OSError:
            return False


def start_to_ready(it: Installation) -> float:
    """Seconds from the start of the process to the first answer."""
    home = Path(it.environment["AIRFLOW_SERVERLESS_HOME"])
    started = time.perf_counter()
    daemon = subprocess.Popen([BIN / "airflowd"], env=it.environment, stderr=subprocess.DEVNULL)
    try:
        while not answers(home / "run" / "airflowd.sock"):
            assert time.perf_counter() - started < START_LIMIT_SECONDS, "the daemon does not start"
            time.sleep(0.0005)
        return time.perf_counter() - started
    finally:
        daemon.send_signal(signal.SIGTERM)
        daemon.wait()


def modal_environment(it: Installation) -> dict[str, str]:
    home = it.environment["AIRFLOW_SERVERLESS_HOME"]
    # On a socket any token does.
    token = {"MODAL_TOKEN_ID": "ak-local", "MODAL_TOKEN_SECRET": "as-local"}
    return {**os.environ, "MODAL_SERVER_URL": f"unix://{home}/run/modal.sock", **token}


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="asb-") as folder:
        it = Installation(Path(folder))
        try:
            show("start to ready, an empty home", 1000 * start_to_ready(it), "ms")
            config = Path(folder, "config.yaml")
            config.write_text(RESTING_CONFIG)
            it.cli("create", "--config", str(config))
            it.cli("daemon", "stop")
            starts = [start_to_ready(it) for _ in range(STARTS)]
            show("start to ready, one environment", 1000 * median(starts), "ms")
            show("the slowest of them", 1000 * max(starts), "ms")

            it.cli("daemon", "start")
            # No container is there, as nothing is due.
            show_idle("idle", it.pid(), IDLE_SECONDS)
            listed = timed(lambda: it.cli("dags", "list"), 30)
            show("dags list, whole process", 1000 * listed, "ms", DAGS_LIST_MILLISECONDS)
            volume = [sys.executable, "-m", "modal", "volume", "ls", "airflow-dags-bench"]
            environment = modal_environment(it)
            theirs = timed(lambda: subprocess.run(volume, env=environment, check=True, capture_output=True), 5)
            show("modal volume ls, whole process", 1000 * theirs, "ms")
            show("that is, times dags list", theirs / listed, "x")

            load = [BIN / "examples" / "load_daemon", Path(folder, "run", "airflowd.sock"), "/v1/environments/bench"]
            rates = [json.loads(subprocess.check_output(load))["requests_per_second"] for _ in range(3)]
            show("GET environment, 16 connections", median(rates), "/s")
            show("memory after all this (PSS)", family_pss_megabytes(it.pid()), "MB")
        finally:
            it.cli("daemon", "stop")


if __name__ == "__main__":
    main()
