"""A warm validator of DAG files: `python -m airflow_serverless.dags.validator [--workers N]`.

Airflow is imported once; each file is then imported in a forked child, as the scheduler would do it, with the plugins
that are in the folder `plugins` of its root. A file in there is loaded as a plugin. Up to N files are dealt with at the
same time. The end of standard input is the end of all of it.
Standard output first carries {"ready": true, "seconds": …}, then one JSON line for each JSON line read, in the order in
which they are ready:
request  {"id": 1, "path": "/…/my_dag.py", "timeout_seconds": 30, "memory_mb": 2048, "root": "/…", "names": ["A"],
          "values": {"variables", "connections", "environment"}, "imports_all": false} (all but the path optional)
answer   {"id", "path", "dags": [{"dag_id", "schedule", "task_count"}], "import_errors": [{"file", "line", "message",
          "traceback"}], "warnings": [], "seconds", "needs_values"} or {"id", "error": "…"} for a line that is no
          request.
The settings in the environment, if there are any, have the options with which Airflow is imported.
`imports_all`: whether a file is imported that does not mention DAGs, which the scheduler does not import.
`values`: Variables, Connections and environment variables (`dags.values.Values`). `names`: the names of the environment
variables that the user has set. If `values` is missing and an import reads one, the answer has "needs_values": true;
send the request again with `values`.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import shutil
import signal
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

from airflow_serverless.airflow_config import configure_airflow
from airflow_serverless.config import (
    PACKAGES_VARIABLE,
    PARSE_TIMEOUT_SECONDS,
    SETTINGS_VARIABLE,
    Paths,
    Settings,
)
from airflow_serverless.dags import plugins, requirements
from airflow_serverless.dags.isolation import Limits
from airflow_serverless.dags.lookups import Lookups
from airflow_serverless.dags.storage import (
    ParsedFile,
    check_plugin,
    mentions_dags,
    not_imported,
    parse_isolated,
    refused,
    warm_up,
)
from airflow_serverless.dags.trial import Trial
from airflow_serverless.dags.workers import Pool
from airflow_serverless.imports import quick_imports

DEFAULT_MEMORY_MB = 2048
LONGEST_TEXT = 16_000
"""Of a message or a traceback; the ends of it are kept."""
MOST_ITEMS = 1_000


def main() -> int:
    """Serve until standard input ends; returns the exit status."""
    started = time.monotonic()
    arguments = argparse.ArgumentParser(prog="airflow_serverless.dags.validator")
    arguments.add_argument("--workers", type=int, default=1, help="how many files to import at the same time")
    workers = max(1, arguments.parse_args().workers)
    output = _claim_stdout()
    work = Path(tempfile.mkdtemp(prefix="airflow-serverless-validator-"))
    signal.signal(signal.SIGTERM, _leave)
    try:
        trial = _prepare_airflow(work)
        ready = {"ready": True, "seconds": round(time.monotonic() - started, 2)}
        os.write(output, json.dumps(ready).encode() + b"\n")
        Pool(partial(answer, trial), workers, output).serve(sys.stdin.fileno())
    except (BrokenPipeError, KeyboardInterrupt):
        return 0
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return 0


def _leave(number: int, frame: Any) -> None:
    raise SystemExit(0)


def answer(trial: Trial, line: str) -> dict[str, Any]:
    """Validate the file that one request line names."""
    started = time.monotonic()
    name: dict[str, Any] = {}
    try:
        request = json.loads(line)
        name = {"id": request["id"]} if "id" in request else {}
        path = Path(request["path"])
        root = Path(request.get("root") or path.parent)
        limits = Limits(
            seconds=float(request.get("timeout_seconds") or PARSE_TIMEOUT_SECONDS),
            memory_mb=int(request.get("memory_mb") or DEFAULT_MEMORY_MB),
        )
        lookups = Lookups(request.get("values"), frozenset(request.get("names") or ()))
        path.relative_to(root)
    except (ValueError, KeyError, TypeError) as error:
        return name | {"error": f"not a valid request: {type(error).__name__}: {error}"}
    if not path.is_file():
        return name | {"error": f"no such file: {path}"}
    is_plugin = plugins.is_plugin(path.relative_to(root).as_posix())
    if is_plugin or request.get("imports_all") or mentions_dags(path):
        parsed = _parse(path, root, limits, lookups, trial)
    else:
        parsed = not_imported()
    return name | {
        "path": str(path),
        "dags": [{key: dag[key] for key in ("dag_id", "schedule", "task_count")} for dag in parsed["dags"]],
        "import_errors": [
            {**error, "message": _short(error["message"]), "traceback": _short(error["traceback"])}
            for error in parsed["import_errors"][:MOST_ITEMS]
        ],
        "warnings": [_short(warning) for warning in parsed["warnings"][:MOST_ITEMS]],
        "seconds": round(time.monotonic() - started, 3),
        "needs_values": parsed["needs_values"],
    }


def _short(text: str) -> str:
    half = LONGEST_TEXT // 2
    return text if len(text) <= LONGEST_TEXT else f"{text[:half]}\n[…]\n{text[-half:]}"


def _parse(path: Path, root: Path, limits: Limits, lookups: Lookups, trial: Trial) -> ParsedFile:
    if plugins.is_plugin(path.relative_to(root).as_posix()):
        return check_plugin(path, root, limits, lookups)
    try:
        asked = requirements.declared(path, root)
        packages = requirements.Environments(Paths.from_environment().packages).provide(asked) if asked else None
    except requirements.RequirementsError as error:
        return refused(path, root, f"its requirements cannot be installed: {error}")
    return parse_isolated(path, root, limits, lookups, packages, trial)


def _claim_stdout() -> int:
    """Keep the real standard output for the protocol; whatever else prints there ends up on standard error."""
    output = os.dup(1)
    os.dup2(2, 1)
    return output


def _prepare_airflow(work: Path) -> Trial:
    """Airflow with an empty private home and no database: validation must not see or touch the user's own.

    Returns the database in which parsed DAGs are stored on trial.
    """
    os.environ.setdefault(PACKAGES_VARIABLE, str(work / "venvs"))
    has_settings = SETTINGS_VARIABLE in os.environ
    settings = Settings.from_environment() if has_settings else Settings(environment="validator")
    configure_airflow(settings, Paths(volume=work, work=work))
    os.environ["_AIRFLOW_PROCESS_CONTEXT"] = "client"
    os.environ["AIRFLOW__LOGGING__LOGGING_LEVEL"] = "CRITICAL"
    with quick_imports():
        warm_up()
        trial = Trial()
    logging.disable(logging.CRITICAL)
    return trial


if __name__ == "__main__":
    sys.exit(main())
