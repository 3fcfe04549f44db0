"""DAG files see the environment while they are imported, and are parsed again when what they have read changes."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from environment import DATABASES, Environment, deployed
from local_modal import wait_until

VALUES = """
import os
from airflow.sdk import DAG, Connection, Variable, task

with DAG(
    "values",
    schedule=os.environ.get("SCHEDULE"),
    tags=[Connection.get("warehouse").host],
    description=Variable.get("title", default="none"),
):
    for name in Variable.get("tasks", deserialize_json=True):
        @task(task_id=name)
        def nothing(): ...
        nothing()
"""
OTHERS = {
    "plain.py": """
from airflow.sdk import DAG, Variable
Variable.set("set at import", "1")
dag = DAG("plain", schedule=None, description=Variable.get("set at import"))
""",
    "keys.py": """
from airflow.sdk import DAG, Variable
dag = DAG("keys", schedule=None, description=" ".join(Variable.keys(prefix="team_")))
""",
    "old.py": """
from airflow.models import Variable
from airflow.sdk import DAG
from airflow.sdk.bases.hook import BaseHook
dag = DAG("old", schedule=None, description=Variable.get("title") + BaseHook.get_connection("warehouse").login)
""",
    "orm.py": """
from airflow.utils.session import create_session
with create_session() as session:
    session.execute("SELECT 1")
""",
    "broken.py": """
from airflow.sdk import DAG, Variable
dag = DAG("broken", schedule=None, description=Variable.get("missing"))
""",
    "both.py": """
import shared
from airflow.sdk import DAG
dag = DAG("both", schedule=None, description=shared.TEXT)
""",
    "shared.py": """
from airflow.sdk import DAG
TEXT = "alpha"
dag = DAG("shared", schedule=None)
""",
    "generated.py": """
from pathlib import Path
from airflow.sdk import DAG
for file in sorted(Path(__file__).parent.glob("configs/*.txt")):
    globals()[file.stem] = DAG(file.stem, schedule=None, description=file.read_text())
""",
    "configs/first.txt": "first",
    "clock.py": """
import datetime
from airflow.sdk import DAG
dag = DAG("clock", schedule=None, description=datetime.datetime.now().isoformat())
""",
    "calm.py": """
import datetime
from airflow.sdk import DAG, task
with DAG("calm", schedule=None, description=datetime.datetime(2026, 1, 1).isoformat()):
    @task
    def now():
        return datetime.datetime.now()
    now()
""",
}


@pytest.fixture(scope="module", params=DATABASES)
def environment(request: pytest.FixtureRequest) -> Iterator[Environment]:
    with deployed(request.param) as environment:
        put(environment, "1", tasks='["a", "b"]', team_a="1")
        connection = {"connection_id": "warehouse", "conn_type": "http", "host": "one.internal", "login": "me"}
        environment.command("c1", kind="put_connections", connections=[connection])
        environment.upload("values.py", VALUES)
        environment.call("run_tick", "test")
        yield environment


def put(environment: Environment, identifier: str, **variables: str) -> None:
    """Sets Variables with the next tick."""
    entries = [{"key": key, "value": value} for key, value in variables.items()]
    environment.command(identifier, kind="put_variables", variables=entries, action_on_existing_key="overwrite")


def tick(environment: Environment) -> None:
    environment.command("look", kind="refresh")
    environment.call("run_tick", "test")


def description(environment: Environment, dag_id: str) -> str | None:
    """Of a DAG that is not stale."""
    rows = environment.query("SELECT description FROM dag WHERE dag_id = ? AND NOT is_stale", dag_id)
    return rows[0][0] if rows else None


def wait_for_description(environment: Environment, dag_id: str, text: str | None) -> None:
    def matches() -> bool:
        tick(environment)
        return description(environment, dag_id) == text

    wait_until(matches, f"{dag_id}: {text}", 60)


def upload(environment: Environment, *names: str) -> None:
    for name in names:
        environment.upload(name, OTHERS[name])


def tasks(environment: Environment, dag_id: str) -> set[str]:
    """Triggers a run and returns its task ids."""
    run_id = f"{dag_id}-{len(environment.query('SELECT 1 FROM dag_run'))}"
    environment.command(run_id, kind="trigger", dag_id=dag_id, run_id=run_id)
    found = "SELECT task_id FROM task_instance WHERE run_id = ?"
    wait_until(lambda: environment.call("run_tick", "test") and environment.query(found, run_id), run_id, 60)
    return {task_id for (task_id,) in environment.query(found, run_id)}


def test_changed_variables_and_connections_update_the_dag(environment: Environment) -> None:
    wait_for_description(environment, "values", "none")
    assert environment.query("SELECT name FROM dag_tag WHERE dag_id = 'values'") == [("one.internal",)]
    assert environment.query("SELECT timetable_summary FROM dag WHERE dag_id = 'values'") == [("0 0 * * *",)]
    assert tasks(environment, "values") == {"a", "b"}

    put(environment, "2", tasks='["a", "c"]', title="a title")
    wait_for_description(environment, "values", "a title")
    assert tasks(environment, "values") == {"a", "c"}
    connection = {"connection_id": "warehouse", "conn_type": "http", "host": "two.internal", "login": "me"}
    environment.command("c2", kind="put_connections", connections=[connection], action_on_existing_key="overwrite")
    tag = "SELECT name FROM dag_tag WHERE dag_id = 'values'"
    tick(environment)
    wait_until(lambda: environment.query(tag) == [("two.internal",)], "the other host", 60)
    environment.command("3", kind="delete_variable", key="title")
    wait_for_description(environment, "values", "none")


def test_all_lookups_work_at_import(environment: Environment) -> None:
    put(environment, "4", title="t")
    upload(environment, "plain.py", "keys.py", "old.py", "orm.py", "broken.py")
    wait_for_description(environment, "plain", "1")
    tick(environment)
    parsed = "SELECT last_parsed_time FROM dag WHERE dag_id = 'plain'"
    before = environment.query(parsed)
    tick(environment)
    assert environment.query(parsed) == before, "a file must not change what it reads with each parse"
    wait_for_description(environment, "keys", "team_a")
    wait_for_description(environment, "old", "tme")
    errors = dict(environment.query("SELECT filename, stacktrace FROM import_error"))
    assert "Variable missing not found" in errors["broken.py"]
    assert "atabase" in errors["orm.py"]
    put(environment, "5", team_b="2", missing="found")
    wait_for_description(environment, "keys", "team_a team_b")
    wait_for_description(environment, "broken", "found")


def test_names_that_are_not_text_and_lost_keys_do_not_block_other_files(environment: Environment) -> None:
    read = """
from pathlib import Path
from airflow.sdk import DAG, Connection, Variable
try:
    Path(__file__).with_name("no-\\udc80").read_bytes()
except FileNotFoundError:
    pass
dag = DAG("odd", schedule=None, description=Variable.get("\\udc80", default="none"))
"""
    environment.upload("odd.py", read)
    environment.upload("sets.py", 'from airflow.sdk import Variable\nVariable.set("\\udc80", "1")\n')
    environment.upload("lost.py", 'from airflow.sdk import Connection\nConnection.get("lost")\n')
    lost = {"connection_id": "lost", "conn_type": "http", "password": "x"}
    environment.command("lost", kind="put_connections", connections=[lost])
    wait_for_description(environment, "odd", "none")
    environment.execute("UPDATE connection SET password = 'of another key' WHERE conn_id = 'lost'")
    environment.execute("UPDATE airflow_serverless_version SET generation = generation + 1")
    environment.upload("odd.py", read.replace('"none"', '"still read"'))
    wait_for_description(environment, "odd", "still read")
    errors = dict(environment.query("SELECT filename, stacktrace FROM import_error"))
    assert "UnicodeEncodeError" in errors["sets.py"]
    assert "`lost` isn't defined" in errors["lost.py"]


def test_changed_file_causes_a_parse_of_the_files_that_read_it(environment: Environment) -> None:
    upload(environment, "both.py", "shared.py", "generated.py", "configs/first.txt", "calm.py")
    wait_for_description(environment, "both", "alpha")
    wait_for_description(environment, "first", "first")
    parsed = "SELECT dag_id, last_parsed_time FROM dag"
    before = dict(environment.query(parsed))
    environment.upload("shared.py", OTHERS["shared.py"].replace("alpha", "beta"))
    wait_for_description(environment, "both", "beta")
    environment.upload("configs/second.txt", "second")
    wait_for_description(environment, "second", "second")
    environment.upload("configs/first.txt", "changed")
    wait_for_description(environment, "first", "changed")
    [dags] = environment.volumes("dags")
    (dags / "configs" / "first.txt").unlink()
    wait_for_description(environment, "first", None)
    after = dict(environment.query(parsed))
    assert after["calm"] == before["calm"]
    assert after["both"] != before["both"]
    environment.upload("read_by_nobody.txt", "1")
    tick(environment)
    assert dict(environment.query(parsed))["calm"] != after["calm"]


def test_changed_content_with_the_same_mtime_is_parsed(environment: Environment) -> None:
    environment.upload(
        "times.py", 'from airflow.sdk import DAG\ndag = DAG("times", schedule=None, description="first")\n'
    )
    wait_for_description(environment, "times", "first")
    [dags] = environment.volumes("dags")
    script = f"""
    import os
    path = {str(dags / "times.py")!r}
    status = os.stat(path)
    with open(path, "r+") as file:
        text = file.read().replace("first", "other")
        file.seek(0)
        file.write(text)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    """
    environment.modal.sdk(script)
    wait_for_description(environment, "times", "other")


def test_only_files_that_read_the_clock_are_parsed_periodically(environment: Environment) -> None:
    upload(environment, "clock.py", "calm.py")
    tick(environment)
    first = description(environment, "clock")
    reads = environment.query("SELECT path FROM airflow_serverless_read WHERE kind = 'clock'")
    assert first is not None
    assert reads == [("clock.py",)]
    due = environment.state()["due"]["full_tick_at"]
    parsed = "SELECT last_parsed_time FROM dag WHERE dag_id = 'clock'"
    before = environment.query(parsed)
    tick(environment)
    assert environment.query(parsed) == before
    environment.execute("UPDATE airflow_serverless_read SET state = '0' WHERE kind = 'clock'")
    environment.execute("UPDATE airflow_serverless_version SET generation = generation + 1")
    becomes_other = f"a later time than {first}"
    wait_until(lambda: tick(environment) or description(environment, "clock") != first, becomes_other, 60)
    assert due < time.time() + 60, "no cron looks again soon"
