"""Shortcuts into the Execution API answer as the API does, and have the same effects."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import environment

DAG = """
from airflow.sdk import DAG
from airflow.providers.standard.operators.bash import BashOperator

with DAG("asks", schedule=None):
    BashOperator(task_id="asks", bash_command="true")
"""
# In one process, as most of each command's time is the import of Airflow.
COMMANDS = """
import sys
from airflow.__main__ import main
for line in "db migrate", "dags reserialize", "dags trigger asks":
    sys.argv = ["airflow", *line.split()]
    main()
"""
SCRIPT = Path(__file__).parent / "apps" / "ask_execution_api.py"


def python(home: Path, *arguments: str) -> str:
    options = {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__DAGS_FOLDER": str(home / "dags"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home}/airflow.db",
        "PYTHONPATH": str(environment.FUNCTIONS),
    }
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")}
    command = [sys.executable, *arguments]
    done = subprocess.run(command, env={**inherited, **options}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def asked(original: Path, how: str) -> Any:
    with tempfile.TemporaryDirectory(prefix="asks-") as name:
        home = shutil.copytree(original, Path(name, "home"))
        return json.loads(python(home, str(SCRIPT), how).partition("RESULT")[2])


def test_shortcuts_answer_like_the_api() -> None:
    with tempfile.TemporaryDirectory(prefix="asks-") as name:
        home = Path(name)
        (home / "dags").mkdir()
        (home / "dags" / "asks.py").write_text(DAG)
        python(home, "-c", COMMANDS)
        stock, layers, shortcuts = (asked(home, how) for how in ("stock", "layers", "shortcuts"))
    # All but bodies that are refused, for which the API is asked itself.
    assert [one.pop("quick") for one in (stock, layers, shortcuts)] == [0, 0, 20]
    assert shortcuts == layers == stock
    assert {status for _, status, _ in layers["others"]} >= {200, 201, 404, 409, 422}, layers["others"]
    unknown, known = layers["answers"][:13], layers["answers"][13:]
    assert {status for status, _ in unknown} == {404, 422}
    assert [status for status, _ in known] == [409, 422, 200, 200, 409, 204, 409, 201, 422, 422, 204, 200, 409]
    assert layers["effects"][0] == "success"
