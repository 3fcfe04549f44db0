"""The values that DAG files may read while they are imported, for the validator on the user's machine."""

from __future__ import annotations

import os

from airflow_serverless.commands.command import Request, Result
from airflow_serverless.config import Settings
from airflow_serverless.dags import values


def get(request: Request) -> Result:
    """→ `variables`, `connections` and `environment`, decrypted: see `dags.values.Values`."""
    names = Settings.from_environment().environment_names
    environment = {name: os.environ[name] for name in names if name in os.environ}
    return {**values.load_values(), "environment": environment}
