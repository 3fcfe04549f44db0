"""Names, settings and paths of one environment, and the Airflow configuration that follows from them."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass, field
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
SECRETS_BACKEND = "AIRFLOW__SECRETS__BACKEND"
SECRETS_BACKEND_VARIABLE = "AIRFLOW_SERVERLESS_SECRETS_BACKEND"
"""What `SECRETS_BACKEND` is in processes that run what users wrote, see `use_secrets_backend`."""
MOUNT_PATH = "/vol"
DATABASE = "data/airflow.db"
"""Where the published database is on the volume."""
XCOM = "xcom"
"""Where the payloads of XComs are on the volume."""
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
    of PostgreSQL in PEM, `environment_names` of the variables that the user has set for the functions,
    `airflow_options` {variable: value of an option of Airflow, or None if the Secret has it}.
    """

    environment: str
    database_type: str = "sqlite"
    root_certificate: str | None = None
    interval_seconds: int = 60
    parallelism: int = 16
    task_timeout: int = 3600
    dags_are_paused_at_creation: bool = False
    environment_names: tuple[str, ...] = ()
    airflow_options: Mapping[str, str | None] = field(default_factory=dict)

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
                environment_names=tuple(map(str, document.get("env") or ())),
                airflow_options=_options(_part(document, "airflow")),
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


def _options(sections: Mapping[str, Any]) -> dict[str, str | None]:
    """{variable: value} of {section: {option: value}}, named as Airflow does."""
    return {
        f"AIRFLOW__{section.replace('.', '_')}__{option}".upper(): value
        for section, options in sections.items()
        if isinstance(options, Mapping)
        for option, value in options.items()
    }


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
        return self.volume / XCOM


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
        # A file is parsed because it changed: a write that is skipped would never be repeated. Less than none, as
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
    """Let tasks find `python`, as in an active virtual environment. Operators that make environments of their own use
    it, and those that do so with uv need one that is not in a virtual environment."""
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
