"""Airflow's configuration, as it follows from the settings and paths of an environment."""

from __future__ import annotations

import os
import sys
from collections.abc import MutableMapping
from pathlib import Path

from airflow_serverless.config import PARSE_TIMEOUT_SECONDS, PLUGINS, Paths, Settings, SettingsError

SECRETS_BACKEND = "AIRFLOW__SECRETS__BACKEND"
SECRETS_BACKEND_VARIABLE = "AIRFLOW_SERVERLESS_SECRETS_BACKEND"
"""What `SECRETS_BACKEND` is in processes that run what users wrote, see `use_secrets_backend`."""


def configure_airflow(settings: Settings, paths: Paths, environ: dict[str, str] | None = None) -> None:
    """Write Airflow's configuration into the process environment; call it before Airflow is first used.

    The environment's own options come first: an option that this package depends on cannot be another one.
    Keys and the connection string of PostgreSQL are there already: they come with the environment's Secret. Raises
    SettingsError if the connection string is not usable.
    """
    target = os.environ if environ is None else environ
    paths.work.mkdir(parents=True, exist_ok=True)
    options = {
        "CORE__DAGS_FOLDER": str(paths.dags),
        "CORE__PLUGINS_FOLDER": str(paths.dags / PLUGINS),
        "CORE__LOAD_EXAMPLES": "False",
        "CORE__DAGS_ARE_PAUSED_AT_CREATION": str(settings.dags_are_paused_at_creation),
        "CORE__PARALLELISM": str(settings.parallelism),
        "CORE__EXECUTOR": "airflow_serverless.executor.modal_executor.ModalExecutor",
        "CORE__XCOM_BACKEND": "airflow_serverless.xcom.backend.VolumeXComBackend",
        "CORE__AUTH_MANAGER": "airflow.api_fastapi.auth.managers.simple.simple_auth_manager.SimpleAuthManager",
        "CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
        # `mentions_dags` tells DAG files from others. Airflow's heuristic asks for more words, and so leaves out files
        # that get their DAGs from a helper module.
        "CORE__DAG_DISCOVERY_SAFE_MODE": "False",
        # A file is parsed because it changed: a skipped write would never be repeated. The interval is negative, as
        # clocks differ, and are set back.
        "CORE__MIN_SERIALIZED_DAG_UPDATE_INTERVAL": "-86400",
        "CORE__DAGBAG_IMPORT_TIMEOUT": str(PARSE_TIMEOUT_SECONDS),
        "CORE__DAGBAG_IMPORT_ERROR_TRACEBACK_DEPTH": "1000",
        "CORE__LAZY_DISCOVER_PROVIDERS": "True",
        "LOGGING__BASE_LOG_FOLDER": str(paths.logs),
        "USAGE_DATA_COLLECTION__ENABLED": "False",
        # A tick ends when a pass changes nothing, so that a pass has to look at all active runs, not at the next 20.
        "SCHEDULER__MAX_DAGRUNS_PER_LOOP_TO_SCHEDULE": "10000",
        "DATABASE__LOAD_DEFAULT_CONNECTIONS": "False",
        # A task is not over before its output is, which background processes of it may keep open.
        "WORKERS__SOCKET_CLEANUP_TIMEOUT": "3",
    }
    options.update(_postgres_options() if settings.database_type == "postgres" else _sqlite_options(paths))
    target["AIRFLOW_HOME"] = str(paths.work)
    _put_python_on_path(paths, target)
    # Airflow resolves connections and variables in the database only in processes that say they are servers.
    target["_AIRFLOW_PROCESS_CONTEXT"] = "server"
    target.update({name: value for name, value in settings.airflow_options.items() if value is not None})
    if backend := target.pop(SECRETS_BACKEND, None):
        target[SECRETS_BACKEND_VARIABLE] = backend
    for name, value in options.items():
        target[f"AIRFLOW__{name}"] = value
    if environ is None and "airflow.settings" in sys.modules:
        _configure_orm_anew()


def use_secrets_backend() -> bool:
    """Have this process, which runs what users wrote, ask the environment's secrets backend; tells if there is one.

    The backend can be a module in the DAG folder. Processes that live on must not depend on that: they neither keep an
    old one nor fail with a broken one. Whoever asks them for a value has asked the backend first.
    """
    backend = os.environ.get(SECRETS_BACKEND_VARIABLE)
    if backend:
        os.environ[SECRETS_BACKEND] = backend
    return bool(backend)


def _put_python_on_path(paths: Paths, environ: MutableMapping[str, str]) -> None:
    """Put `python` on PATH for tasks, as in an active virtual environment.

    Operators that create environments use it, and those that do so with uv need one outside of a virtual environment.
    """
    base = Path(getattr(sys, "_base_executable", sys.executable))
    if not base.with_name("python").exists():
        link = paths.work / "bin" / "python"
        link.parent.mkdir(exist_ok=True)
        link.unlink(missing_ok=True)
        link.symlink_to(base)
        base = link
    first = list(dict.fromkeys([str(Path(sys.executable).parent), str(base.parent)]))
    others = [folder for folder in (environ.get("PATH") or os.defpath).split(os.pathsep) if folder not in first]
    environ["PATH"] = os.pathsep.join([*first, *others])


def _configure_orm_anew() -> None:
    """Airflow chose its database when it was imported, and this process was forked, or restored, since."""
    from airflow import settings

    settings.dispose_orm()
    settings.configure_vars()
    settings.configure_orm()


def _sqlite_options(paths: Paths) -> dict[str, str]:
    return {"DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{paths.local_database}"}


def _postgres_options() -> dict[str, str]:
    from airflow_serverless.db import connection_string

    try:
        url = connection_string.ConnectionString.of_process().for_sqlalchemy()
    except connection_string.ConnectionStringError as error:
        raise SettingsError(str(error)) from None
    return {
        "DATABASE__SQL_ALCHEMY_CONN": url,
        "DATABASE__SQL_ALCHEMY_CONNECT_ARGS": f"{connection_string.__name__}.SYNC_ARGUMENTS",
        "DATABASE__SQL_ALCHEMY_CONNECT_ARGS_ASYNC": f"{connection_string.__name__}.ASYNC_ARGUMENTS",
        # There are many small processes: each keeps few connections, and finds out if they ended while it slept.
        "DATABASE__SQL_ALCHEMY_POOL_SIZE": "2",
        "DATABASE__SQL_ALCHEMY_POOL_PRE_PING": "True",
        # Tasks outlast a restart of the server: these waits add up to two minutes.
        "WORKERS__EXECUTION_API_RETRIES": "8",
    }
