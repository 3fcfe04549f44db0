"""A warm validator of DAG files: `python -m airflow_serverless.dags.validator`.

Airflow is imported once; each file is then imported in a forked child, as the scheduler would do it, with the plugins
that are in the folder `plugins` of its root. A file in there is loaded as a plugin.
Standard output first carries {"ready": true, "seconds": …}, then one JSON line for each JSON line read:
request  {"path": "/…/my_dag.py", "timeout_seconds": 30, "memory_mb": 2048, "root": "/…"} (all but the path optional)
answer   {"path", "dags": [{"dag_id", "schedule", "task_count"}], "import_errors": [{"file", "line", "message",
          "traceback"}], "warnings": [], "seconds"} or {"error": "…"} for a line that is no request.
"""

from __future__ import annotations

import gc
import json
import logging
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import IO, Any

from airflow_serverless.config import PACKAGES_VARIABLE, PARSE_TIMEOUT_SECONDS, Paths, Settings, configure_airflow
from airflow_serverless.dags import plugins, requirements
from airflow_serverless.dags.isolation import Limits
from airflow_serverless.dags.storage import ParsedFile, check_plugin, parse_isolated, refused, warm_up

DEFAULT_MEMORY_MB = 2048


def main() -> int:
    """Serve until standard input ends; returns the exit status."""
    started = time.monotonic()
    protocol = _claim_stdout()
    work = Path(tempfile.mkdtemp(prefix="airflow-serverless-validator-"))
    try:
        _prepare_airflow(work)
        _send(protocol, {"ready": True, "seconds": round(time.monotonic() - started, 2)})
        for line in sys.stdin:
            _send(protocol, answer(line))
    except (BrokenPipeError, KeyboardInterrupt):
        return 0
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return 0


def answer(line: str) -> dict[str, Any]:
    """Validate the file that one request line names."""
    started = time.monotonic()
    try:
        request = json.loads(line)
        path = Path(request["path"])
        root = Path(request.get("root") or path.parent)
        limits = Limits(
            seconds=float(request.get("timeout_seconds") or PARSE_TIMEOUT_SECONDS),
            memory_mb=int(request.get("memory_mb") or DEFAULT_MEMORY_MB),
        )
        path.relative_to(root)
    except (ValueError, KeyError, TypeError) as error:
        return {"error": f"not a valid request: {type(error).__name__}: {error}"}
    if not path.is_file():
        return {"error": f"no such file: {path}"}
    parsed = _parse(path, root, limits)
    return {
        "path": str(path),
        "dags": [{key: dag[key] for key in ("dag_id", "schedule", "task_count")} for dag in parsed["dags"]],
        "import_errors": parsed["import_errors"],
        "warnings": parsed["warnings"],
        "seconds": round(time.monotonic() - started, 3),
    }


def _parse(path: Path, root: Path, limits: Limits) -> ParsedFile:
    if plugins.is_plugin(path.relative_to(root).as_posix()):
        return check_plugin(path, root, limits)
    try:
        asked = requirements.declared(path, root)
        packages = requirements.Environments(Paths.from_environment().packages).provide(asked) if asked else None
    except requirements.RequirementsError as error:
        return refused(path, root, f"its requirements cannot be installed: {error}")
    return parse_isolated(path, root, limits, packages)


def _claim_stdout() -> IO[str]:
    """Keep the real standard output for the protocol; whatever else prints there ends up on standard error."""
    stream = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return stream


def _send(stream: IO[str], message: dict[str, Any]) -> None:
    stream.write(json.dumps(message) + "\n")
    stream.flush()


def _prepare_airflow(work: Path) -> None:
    """Airflow with an empty private home and no database: validation must not see or touch the user's own."""
    os.environ.setdefault(PACKAGES_VARIABLE, str(work / "venvs"))
    configure_airflow(Settings(environment="validator"), Paths(volume=work, work=work))
    os.environ["_AIRFLOW_PROCESS_CONTEXT"] = "client"
    os.environ["AIRFLOW__LOGGING__LOGGING_LEVEL"] = "CRITICAL"
    warm_up()
    logging.disable(logging.CRITICAL)
    # The loaded modules never become garbage; leaving them out of collections keeps their pages shared.
    gc.freeze()


if __name__ == "__main__":
    sys.exit(main())
