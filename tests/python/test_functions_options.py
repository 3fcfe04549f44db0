"""Airflow's options of an environment reach everything that runs Airflow code, and take effect with an update."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_options import known_options
from environment import DATABASES, Environment, deployed
from local_modal import REPOSITORY, wait_until

OPTIONS = REPOSITORY / "api/src/airflow_options"
KWARGS = "AIRFLOW__SECRETS__BACKEND_KWARGS"
AIRFLOW = {
    "core": {
        "allowed_deserialization_classes": "airflow.* shapes.*",
        "default_task_retries": "2",
        "default_task_retry_delay": "0",
        "max_map_length": "3",
        # Whatever comes through is not heeded.
        "parallelism": "1",
    },
    "secrets": {"backend": "vault.Vault", "backend_kwargs": None},
    "sensors": {"default_timeout": "77"},
}
SHAPES = """
class Point:
    def __init__(self, x, y):
        self.x, self.y = x, y

    def serialize(self):
        return {"x": self.x, "y": self.y}

    @staticmethod
    def deserialize(data, version):
        return Point(**data)
"""
VAULT = """
from airflow.secrets import BaseSecretsBackend


class Vault(BaseSecretsBackend):
    def __init__(self, owner):
        super().__init__()
        self.owner = owner

    def get_variable(self, key, team_name=None):
        return f"{key} of {self.owner}" if key.startswith("vaulted") else None

    def get_conn_value(self, conn_id, team_name=None):
        return f"http://{self.owner}@vault.internal" if conn_id == "vaulted" else None
"""
DAG = """
import json
from datetime import datetime
from pathlib import Path
from airflow.sdk import DAG, Connection, Variable, conf, get_current_context, task
from shapes import Point


def book(name, value):
    Path(f"{get_current_context()['dag_run'].conf['book']}.{name}").write_text(json.dumps(value))


with DAG("options", schedule=None, start_date=datetime(2026, 1, 1), description=Variable.get("vaulted", "none")):
    @task
    def makes():
        if get_current_context()["ti"].try_number < 3:
            raise ValueError("not yet")
        return Point(1, 2)

    @task
    def takes(point):
        Variable.set("own", "1")
        book("takes", {
            "point": [type(point).__name__, point.x, point.y],
            "variables": [Variable.get(key, None) for key in ("vaulted too", "own", "missing")],
            "connection": [Connection.get("vaulted").host, Connection.get("vaulted").login],
            "options": [conf.get("sensors", "default_timeout"), conf.get("core", "parallelism")],
        })

    @task(retries=0)
    def lists(count):
        return list(range(count))

    @task
    def maps(number):
        pass

    takes(makes())
    maps.expand(number=lists(3))
    maps.override(task_id="maps_more").expand(number=lists.override(task_id="lists_more")(4))
"""


def test_known_options_match_the_pinned_airflow() -> None:
    known = json.loads((OPTIONS / "known.json").read_text())
    assert known == known_options(), "run `make airflow-options`"


def test_options_set_by_the_product_are_reserved() -> None:
    reserved = json.loads((OPTIONS / "reserved.json").read_text())
    source = "".join(path.read_text() for path in (REPOSITORY / "modal_functions").rglob("*.py"))
    source += (REPOSITORY / "daemon/src/vault.rs").read_text()
    names = re.findall(r'"(?:AIRFLOW__)?([A-Z_]+[A-Z]__[A-Z][A-Z_]+)"', source)
    # The validator reports by its answers, and its logs are nobody's.
    options = {tuple(name.lower().split("__")) for name in names} - {
        ("logging", "logging_level"),
        ("secrets", "backend"),
    }
    assert len(options) > 20
    assert {f"{section}.{name}" for section, name in options if not _is_reserved(reserved, section, name)} == set()


def _is_reserved(reserved: dict[str, str | None], section: str, name: str) -> bool:
    return bool(reserved.get(f"{section}.{name}", reserved.get(f"{section}.*")))


@pytest.fixture(scope="module", params=DATABASES)
def environment(request: pytest.FixtureRequest) -> Iterator[Environment]:
    with deployed(request.param) as environment:
        for name, source in {"shapes.py": SHAPES, "vault.py": VAULT, "options.py": DAG}.items():
            environment.upload(name, source)
        environment.call("run_tick", "test")
        yield environment


def serialized(environment: Environment) -> dict[str, Any]:
    [(data,)] = environment.query(
        "SELECT data FROM serialized_dag WHERE dag_id = 'options' ORDER BY created_at DESC LIMIT 1"
    )
    return dict(json.loads(data) if isinstance(data, str) else data)


def update(environment: Environment, airflow: dict[str, Any], **secret: str) -> None:
    environment.settings = {**environment.settings, "airflow": airflow, "env": list(secret)}
    environment.change_secret(secret)
    done = environment.process("-m", "airflow_serverless.deploy")
    assert done.returncode == 0, done.stderr
    environment.call("initialize_database")


def description(environment: Environment) -> str | None:
    """Of the DAG, as of its last parse."""
    found = serialized(environment)["dag"].get("description")
    return None if found is None else str(found)


def test_options_take_effect_after_an_update(environment: Environment) -> None:
    assert serialized(environment)["dag"].get("description") == "none"
    update(environment, AIRFLOW, **{KWARGS: '{"owner": "me"}'})
    wait_until(lambda: description(environment) == "vaulted of me", "the tick that parses the DAG file again", 60)
    assert '"retries": 2' in json.dumps(serialized(environment))

    book = environment.modal.root / "options"
    environment.command("trigger", kind="trigger", dag_id="options", run_id="one", conf={"book": str(book)})

    def state() -> str | None:
        environment.call("run_tick", "test")
        [(found,)] = environment.query("SELECT state FROM dag_run WHERE run_id = 'one'") or [(None,)]
        return str(found) if found in ("success", "failed") else None

    wait_until(state, "the end of the run", 180)
    rows = environment.query("SELECT task_id, map_index, state, try_number FROM task_instance WHERE run_id = 'one'")
    logs = "".join(path.read_text() for path in environment.volumes("logs/dag_id=options/**/*.log"))
    assert sorted(rows) == [
        ("lists", -1, "success", 1),
        ("lists_more", -1, "failed", 1),
        ("makes", -1, "success", 3),
        *(("maps", index, "success", 1) for index in range(3)),
        ("maps_more", -1, "upstream_failed", 0),
        ("takes", -1, "success", 1),
    ], logs
    found = json.loads(Path(f"{book}.takes").read_text())
    assert found["point"] == ["Point", 1, 2]
    assert found["variables"] == ["vaulted too of me", "1", None]
    assert found["connection"] == ["vault.internal", "me"]
    assert found["options"] == ["77", "4"], "an option that the product depends on was another one"


def test_broken_secrets_backend_does_not_stop_ticks(environment: Environment) -> None:
    update(environment, {"secrets": {"backend": "nowhere.Vault"}})
    environment.command("v", kind="put_variables", variables=[{"key": "set", "value": "1"}])
    environment.call("run_tick", "test")
    assert environment.state()["reply:v"]["ok"], environment.state()
    [(error,)] = environment.query("SELECT stacktrace FROM import_error")
    assert "nowhere.Vault" in error
    update(environment, {})
    wait_until(lambda: environment.query("SELECT stacktrace FROM import_error") == [], "another parse", 60)
    wait_until(lambda: description(environment) == "none", "the description without the backend", 60)
