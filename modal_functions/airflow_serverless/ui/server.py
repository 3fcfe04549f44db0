"""The Airflow UI as an ASGI app: Airflow's own, with what it needs around it to run for a while and for one user.

From the outside to the inside: who may see it, what may be done, being up to date, the values of XComs, Airflow.
"""

from __future__ import annotations

import os

import modal

from airflow_serverless.airflow_config import configure_airflow
from airflow_serverless.config import Paths, Settings
from airflow_serverless.ui.access import Access
from airflow_serverless.ui.asgi import App

TOKEN_VARIABLE = "AIRFLOW_SERVERLESS_UI_TOKEN"
"""The token of this session, which comes with a Secret of its own."""


def serve_ui() -> App:
    """The function that Modal calls once in a container for the app that answers its requests."""
    settings, paths = Settings.from_environment(), Paths.from_environment()
    # Nothing that runs in here has to know it.
    token = os.environ.pop(TOKEN_VARIABLE)
    volume = modal.Volume.from_name(settings.volume_name)
    volume.reload()
    build = _read_only if settings.database_type == "sqlite" else _writing
    return Access(build(settings, paths, volume), token)


def _read_only(settings: Settings, paths: Paths, volume: modal.Volume) -> App:
    from airflow_serverless.dags import plugins
    from airflow_serverless.ui import snapshot
    from airflow_serverless.ui.read_only import ReadOnly, drop_audit_log
    from airflow_serverless.ui.refresh import Refresh

    _configure(settings, paths, f"{settings.environment} (read-only)", snapshot.OPTIONS)
    copy = snapshot.Snapshot(paths)
    copy.refresh()
    copy.open_for_airflow()

    def refresh() -> None:
        volume.reload()
        copy.refresh()
        plugins.follow(paths.dags)

    app = _airflow(paths)
    drop_audit_log()
    return ReadOnly(Refresh(app, refresh), settings.environment)


def _writing(settings: Settings, paths: Paths, volume: modal.Volume) -> App:
    from airflow_serverless.dags import plugins
    from airflow_serverless.executor.launcher import Launcher
    from airflow_serverless.state import State
    from airflow_serverless.ui.refresh import Refresh
    from airflow_serverless.ui.wake import Wake

    # One process answers all requests, some of them side by side.
    _configure(settings, paths, settings.environment, {"AIRFLOW__DATABASE__SQL_ALCHEMY_POOL_SIZE": "5"})
    state, launcher = State.of_environment(settings.dict_name), Launcher(settings.app_name)

    def refresh() -> None:
        volume.reload()
        plugins.follow(paths.dags)

    def wake() -> None:
        state.wake("the UI")
        # Also if the mark was there: whoever left it may have died before the tick was called.
        launcher.spawn_tick("the UI")

    return Wake(Refresh(_airflow(paths), refresh), wake)


def _configure(settings: Settings, paths: Paths, name: str, more: dict[str, str]) -> None:
    from airflow_serverless.scheduler.due import FULL_TICK_SECONDS

    configure_airflow(settings, paths)
    os.environ.update(more)
    options = {
        # Wherever it is: nothing but the path of this counts, and it is reached at its root.
        "API__BASE_URL": "/",
        "API__INSTANCE_NAME": name,
        # A scheduler that has nothing to do is well all the same, and is heard of as seldom as this.
        "SCHEDULER__SCHEDULER_HEALTH_CHECK_THRESHOLD": str(int(FULL_TICK_SECONDS) + 2 * settings.interval_seconds + 60),
    }
    for option, value in options.items():
        os.environ[f"AIRFLOW__{option}"] = value


def _airflow(paths: Paths) -> App:
    from airflow.api_fastapi.app import create_app

    from airflow_serverless.dags import plugins, values
    from airflow_serverless.dags.lookups import Lookups
    from airflow_serverless.scheduler.dag_folder import LIMITS
    from airflow_serverless.ui.xcom import XComValues

    # They bring timetables, and may bring pages of their own. Those that end a process must not end this one.
    plugins.load(paths.dags, LIMITS, Lookups(values.load_values()))
    return XComValues(create_app(apps="core"))
