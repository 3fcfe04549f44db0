"""Deploying, apart from what all other tests do with it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys

from environment import Environment
from local_modal import REPOSITORY, LocalModal


def test_attached_deployment_ends_when_its_stdin_closes() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        environment = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(REPOSITORY / "modal_functions"),
            "MODAL_SERVER_URL": f"http://127.0.0.1:{silent.getsockname()[1]}",
            "MODAL_TOKEN_ID": "ak-local",
            "MODAL_TOKEN_SECRET": "as-local",
            "MODAL_CONFIG_PATH": os.devnull,
            "AIRFLOW_SERVERLESS_SETTINGS": json.dumps({"environment": "dev"}),
        }
        command = [sys.executable, "-m", "airflow_serverless.deploy", "--attached"]
        pipe = subprocess.PIPE
        process = subprocess.Popen(command, env=environment, stdin=pipe, stderr=pipe, text=True)
        try:
            assert process.stdin is not None and process.stderr is not None
            assert "Deploying" in process.stderr.readline()
            # It has reached the server, which says nothing.
            silent.accept()[0].close()
            silent.settimeout(30)
            connection, _ = silent.accept()
            assert process.poll() is None
            process.stdin.close()
            assert process.wait(timeout=20) == 1
            connection.close()
        finally:
            process.kill()
            process.wait()


def test_tick_without_a_database_fails_only_after_initialization() -> None:
    with LocalModal() as modal:
        modal.start()
        environment = Environment(modal)
        environment.deploy(initialize=False)
        assert environment.call("run_tick", "cron") == {"not_initialized": True}
        assert environment.call("initialize_database")["created"]
        assert environment.call("run_tick", "cron")["rounds"] == 1
        [database] = environment.volumes("data/airflow.db")
        database.unlink()
        environment.command("refresh", kind="refresh")
        lost = modal.sdk("""
        try: modal.Function.from_name("airflow-serverless-test", "run_tick").remote("cron")
        except Exception as error: answer(str(error))
        """)
        assert "is missing on the Volume" in lost
