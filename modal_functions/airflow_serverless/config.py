"""Names, settings and paths of one environment."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
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
        """The name of the App."""
        return f"airflow-serverless-{self.environment}"

    @property
    def ui_app_name(self) -> str:
        """Of the app that is there only while somebody looks."""
        return f"{self.app_name}-ui"

    @property
    def volume_name(self) -> str:
        """The name of the Volume."""
        return f"airflow-dags-{self.environment}"

    @property
    def dict_name(self) -> str:
        """The name of the Dict."""
        return f"airflow-state-{self.environment}"

    @property
    def secret_name(self) -> str:
        """The name of the Secret."""
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
        """The DAG folder on the volume."""
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
        """The logs of tasks on the volume."""
        return self.volume / "logs"

    @cached_property
    def packages(self) -> Path:
        """What DAG files ask for beyond what Airflow runs with."""
        return Path(os.environ.get(PACKAGES_VARIABLE) or self.volume / "venvs")

    @cached_property
    def xcom(self) -> Path:
        """The payloads of XComs on the volume."""
        return self.volume / XCOM
