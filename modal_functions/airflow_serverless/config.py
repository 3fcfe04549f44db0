"""Names, settings and paths of one environment, and the Airflow configuration that follows from them."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

SETTINGS_VARIABLE = "AIRFLOW_SERVERLESS_SETTINGS"
"""JSON document with the settings of the environment; required wherever this package runs."""
VOLUME_VARIABLE = "AIRFLOW_SERVERLESS_VOLUME"
"""Directory of the volume, if it is not mounted at `MOUNT_PATH`."""
LOCAL_VOLUMES_VARIABLE = "MODAL_LOCAL_VOLUMES"
"""JSON object {mount path: directory}, set by Local Modal, which does not bind volumes at absolute paths."""
WORK_VARIABLE = "AIRFLOW_SERVERLESS_WORK"
"""Directory for private files of this process; a temporary one by default."""
PACKAGES_VARIABLE = "AIRFLOW_SERVERLESS_VENVS"
"""Directory of the packages that DAG files ask for, if it is not on the volume."""
MOUNT_PATH = "/vol"
DATABASE = "data/airflow.db"
"""Where the published database is on the volume."""
BUNDLE = "dags-folder"
"""Airflow's name for the bundle that is the DAG folder."""
PLUGINS = "plugins"
"""Where Airflow's plugins are in the DAG folder."""
PARSE_TIMEOUT_SECONDS = 30
DATABASE_TYPES = ("sqlite", "postgres")
LONGEST_TIMEOUT_SECONDS = 24 * 3600
"""Of a Modal Function."""


class SettingsError(ValueError):
    """The settings document is absent or does not have the expected form."""


@dataclass(frozen=True)
class Settings:
    """Settings of one environment, as the daemon writes them.

    `interval_seconds` between cron ticks, `parallelism` concurrent tasks, `task_timeout` in seconds, `root_certificate`
    of PostgreSQL in PEM.
    """

    environment: str
    database_type: str = "sqlite"
    root_certificate: str | None = None
    interval_seconds: int = 60
    parallelism: int = 16
    task_timeout: int = 3600
    dags_are_paused_at_creation: bool = False

    @classmethod
    def from_json(cls, text: str) -> Settings:
        """Read the document; raises SettingsError that names what is wrong with it."""
        try:
            document = json.loads(text)
            settings = cls(
                environment=str(document["environment"]),
                database_type=str(_part(document, "database").get("type", cls.database_type)),
                root_certificate=_part(document, "database").get("root_certificate"),
                interval_seconds=int(_part(document, "scheduler").get("interval_seconds", cls.interval_seconds)),
                parallelism=int(_part(document, "executor").get("parallelism", cls.parallelism)),
                task_timeout=int(_part(document, "executor").get("task_timeout", cls.task_timeout)),
                dags_are_paused_at_creation=bool(_part(document, "airflow").get("dags_are_paused_at_creation", False)),
            )
        except KeyError as error:
            raise SettingsError(f"{SETTINGS_VARIABLE} lacks the key {error}") from error
        except (TypeError, ValueError, AttributeError) as error:
            raise SettingsError(f"{SETTINGS_VARIABLE} is not valid: {error}") from error
        if settings.database_type not in DATABASE_TYPES:
            raise SettingsError(f"database type {settings.database_type!r} is none of {', '.join(DATABASE_TYPES)}")
        return settings

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> Settings:
        """The settings of the process; raises SettingsError if there are none."""
        text = environ.get(SETTINGS_VARIABLE)
        if not text:
            raise SettingsError(f"{SETTINGS_VARIABLE} is not set")
        return cls.from_json(text)

    @property
    def app_name(self) -> str:
        return f"airflow-serverless-{self.environment}"

    @property
    def ui_app_name(self) -> str:
        """Of the app that is there only while somebody looks."""
        return f"{self.app_name}-ui"

    @property
    def volume_name(self) -> str:
        return f"airflow-dags-{self.environment}"

    @property
    def dict_name(self) -> str:
        return f"airflow-state-{self.environment}"

    @property
    def secret_name(self) -> str:
        return f"airflow-secrets-{self.environment}"


def _part(document: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    return document.get(name) or {}


@dataclass(frozen=True)
class Paths:
    """Where things are in this container."""

    volume: Path
    work: Path

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> Paths:
        """Paths of the process. Private files go to a directory of its own, so that containers may share a disk."""
        mapped = json.loads(environ.get(LOCAL_VOLUMES_VARIABLE) or "{}")
        volume = environ.get(VOLUME_VARIABLE) or mapped.get(MOUNT_PATH) or MOUNT_PATH
        temporary = Path(environ.get("TMPDIR") or "/tmp") / f"airflow-serverless-{os.getpid()}"
        return cls(Path(volume), Path(environ.get(WORK_VARIABLE) or temporary))

    @cached_property
    def dags(self) -> Path:
        return self.volume / "dags"

    @cached_property
    def published_database(self) -> Path:
        """The snapshot that all containers share; only the holder of the scheduler lock replaces it."""
        return self.volume / DATABASE

    @cached_property
    def local_database(self) -> Path:
        """The private copy that Airflow's ORM of this process works on."""
        return self.work / "airflow.db"

    @cached_property
    def logs(self) -> Path:
        return self.volume / "logs"

    @cached_property
    def packages(self) -> Path:
        """What DAG files ask for beyond what Airflow runs with."""
        return Path(os.environ.get(PACKAGES_VARIABLE) or self.volume / "venvs")

    @cached_property
    def xcom(self) -> Path:
        return self.volume / "xcom"


def configure_airflow(settings: Settings, paths: Paths, environ: dict[str, str] | None = None) -> None:
    """Write Airflow's configuration into the process environment; call it before Airflow is first used.

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
        "CORE__DEFAULT_TASK_EXECUTION_TIMEOUT": str(settings.task_timeout),
        "CORE__EXECUTOR": "airflow_serverless.executor.modal_executor.ModalExecutor",
        "CORE__XCOM_BACKEND": "airflow_serverless.xcom.backend.VolumeXComBackend",
        "CORE__AUTH_MANAGER": "airflow.api_fastapi.auth.managers.simple.simple_auth_manager.SimpleAuthManager",
        "CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
        # What the validator accepted must appear, also when a file gets its DAGs from a helper module and so
        # lacks the words by which Airflow's heuristic tells DAG files from others.
        "CORE__DAG_DISCOVERY_SAFE_MODE": "False",
        "CORE__DAGBAG_IMPORT_TIMEOUT": str(PARSE_TIMEOUT_SECONDS),
        "CORE__DAGBAG_IMPORT_ERROR_TRACEBACK_DEPTH": "20",
        "CORE__LAZY_DISCOVER_PROVIDERS": "True",
        "LOGGING__BASE_LOG_FOLDER": str(paths.logs),
        "USAGE_DATA_COLLECTION__ENABLED": "False",
        # A tick ends when a pass changes nothing, so that a pass has to look at all active runs, not at the next 20.
        "SCHEDULER__MAX_DAGRUNS_PER_LOOP_TO_SCHEDULE": "10000",
        "SCHEDULER__CATCHUP_BY_DEFAULT": "False",
        "DATABASE__LOAD_DEFAULT_CONNECTIONS": "False",
    }
    options.update(_postgres_options() if settings.database_type == "postgres" else _sqlite_options(paths))
    target["AIRFLOW_HOME"] = str(paths.work)
    # Airflow resolves connections and variables in the database only in processes that say they are servers.
    target["_AIRFLOW_PROCESS_CONTEXT"] = "server"
    for name, value in options.items():
        target[f"AIRFLOW__{name}"] = value
    if environ is None and "airflow.settings" in sys.modules:
        _configure_orm_anew()


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
