"""The versions of libraries whose private parts are replaced here: with another one, a patch could silently do harm."""

from __future__ import annotations

from importlib.metadata import version

CHECKED = {
    "apache-airflow-core": "3.3.2",
    "apache-airflow-task-sdk": "1.3.2",
    "anyio": "4.16.0",
    "cadwyn": "7.0.0",
    "fastapi": "0.136.3",
}
"""The versions that the patches were checked with. Those of Airflow are in `execution_api/`, `scheduler/runner.py`,
`worker/` and `xcom/exact.py`, the others in `execution_api/in_process.py`."""


def check_versions() -> None:
    """Check that the installed versions are those that the patches were made for.

    Raises:
        RuntimeError: Another version is installed.
    """
    others = [
        f"{name} {found} instead of {checked}"
        for name, checked in CHECKED.items()
        if (found := version(name)) != checked
    ]
    if others:
        raise RuntimeError(f"airflow-serverless replaces private parts of libraries, and finds {', '.join(others)}")
