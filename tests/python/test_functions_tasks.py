"""Tasks from command to committed result: every way to end, calls that come twice or vanish, changed DAG folders."""

from __future__ import annotations

import datetime
import io
import json
import time
import zipfile
from collections.abc import Iterator
from typing import Any

import pytest

from environment import DATABASES, Environment, deployed
from local_modal import wait_until

DAGS = """
import datetime, os, signal
from airflow.providers.standard.operators.bash import BashOperator
from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.providers.standard.operators.python import BranchPythonOperator, ShortCircuitOperator
from airflow.providers.standard.sensors.python import PythonSensor
from airflow.sdk import DAG, Param, get_current_context, task

def dag(name, **more):
    return DAG(name, schedule=None, start_date=datetime.datetime(2026, 1, 1), **more)

with dag("retried"):
    @task(retries=1, retry_delay=datetime.timedelta(seconds=2))
    def flaky():
        if get_current_context()["ti"].try_number == 1:
            raise RuntimeError("the first attempt fails")
    flaky()

with dag("failed"):
    @task
    def fails():
        raise ValueError("boom")
    fails() >> EmptyOperator(task_id="never")

with dag("killed"):
    @task
    def dies():
        os.kill(os.getpid(), signal.SIGKILL)
    dies()

with dag("skipping"):
    branch = BranchPythonOperator(task_id="branch", python_callable=lambda: "left")
    branch >> [BashOperator(task_id="left", bash_command="true"), BashOperator(task_id="right", bash_command="true")]
    cut = ShortCircuitOperator(task_id="cut", python_callable=lambda: False)
    cut >> BashOperator(task_id="after_cut", bash_command="true")

with dag("mapped"):
    @task
    def numbers():
        return [1, 2, 3]
    @task
    def square(number):
        return number * number
    @task
    def total(values):
        return sum(values)
    total(square.expand(number=numbers()))

with dag("waiting"):
    def poke(ti):
        book = get_current_context()["dag_run"].conf["book"]
        seen = os.path.exists(book)
        open(book, "a").close()
        return seen
    PythonSensor(task_id="sensor", python_callable=poke, mode="reschedule", poke_interval=1, timeout=60)

with dag("configured", params={"count": Param(1, type="integer", minimum=0)}):
    @task
    def show():
        return get_current_context()["params"]["count"]
    show()
"""

SKIPPED = {"branch": "success", "left": "success", "right": "skipped", "cut": "success", "after_cut": "skipped"}
ENDINGS: dict[str, tuple[str, dict[str, str]]] = {
    "retried": ("success", {"flaky": "success"}),
    "failed": ("failed", {"fails": "failed", "never": "upstream_failed"}),
    "killed": ("failed", {"dies": "failed"}),
    "skipping": ("success", SKIPPED),
    "mapped": ("success", {"numbers": "success", "square": "success", "total": "success"}),
    "waiting": ("success", {"sensor": "success"}),
    "configured": ("success", {"show": "success"}),
}


@pytest.fixture(scope="module", params=DATABASES)
def environment(request: pytest.FixtureRequest) -> Iterator[Environment]:
    with deployed(request.param) as environment:
        environment.upload("endings.py", DAGS)
        yield environment


def tick(environment: Environment) -> Any:
    """A tick that has to look, whatever the marker says."""
    environment.modal.sdk(
        'modal.Dict.from_name("airflow-state-test").put("wake", {"reason": "test", "at": 0.0}, skip_if_exists=True)'
    )
    return environment.call("run_tick", "test")


def reply(environment: Environment, identifier: str, **command: Any) -> dict[str, Any]:
    """The answer to one command."""
    environment.command(identifier, **command)
    environment.call("run_tick", "test")
    return wait_until(lambda: environment.state().get(f"reply:{identifier}"), f"the reply to {identifier}")


def ended(environment: Environment, run_id: str) -> str | None:
    states = environment.query("SELECT state FROM dag_run WHERE run_id = ?", run_id)
    return states[0][0] if states and states[0][0] in ("success", "failed") else None


def test_tasks_and_runs_end_in_the_expected_states(environment: Environment) -> None:
    """All at once: commands do not get in each other's way, and results wake the scheduler by themselves."""
    book = environment.modal.root / "book"
    for dag_id in ENDINGS:
        environment.command(dag_id, kind="trigger", dag_id=dag_id, run_id=dag_id, conf={"book": str(book)})
    environment.call("run_tick", "test")
    for dag_id, (state, tasks) in ENDINGS.items():
        assert wait_until(lambda run=dag_id: ended(environment, run), f"the end of {dag_id}", 60) == state, dag_id
        found = environment.query("SELECT task_id, state FROM task_instance WHERE run_id = ?", dag_id)
        assert dict(found) == tasks, dag_id
    assert environment.query("SELECT try_number FROM task_instance WHERE run_id = 'retried'") == [(2,)]
    [(started, retried)] = environment.query("""
        SELECT h.end_date, t.start_date FROM task_instance t
        JOIN task_instance_history h USING (dag_id, task_id, run_id) WHERE run_id = 'retried'""")
    assert seconds(retried) - seconds(started) < 300, "the retry waited for the next cron tick"

    [payload] = environment.volumes("xcom/mapped/mapped/total/return_value")
    assert json.loads(payload.read_text()) == 14
    assert len(environment.volumes("xcom/mapped/mapped/square/*/return_value")) == 3
    query = "SELECT CAST(value AS TEXT) FROM xcom WHERE run_id = 'mapped' AND task_id = 'total'"
    [(stored,)] = environment.query(query)
    assert "mapped/mapped/total/return_value" in stored
    assert environment.query("SELECT key FROM xcom WHERE run_id = 'skipping' AND CAST(value AS TEXT) LIKE '%left%'")
    [log] = environment.volumes("logs/dag_id=failed/run_id=failed/task_id=fails/attempt=1.log")
    assert "boom" in log.read_text()

    entries = environment.state()
    success, failure = entries["task:configured:show:configured"], entries["task:failed:fails:failed"]
    assert (success["status"], failure["status"]) == ("SUCCESS", "FAILED")
    assert success["call_id"].startswith("fc-") and success["queued_at"] < success["completed_at"]
    assert entries["task:mapped:square:mapped:2"]["map_index"] == 2
    left = ("journal:", "command:")
    wait_until(
        lambda: not [key for key in environment.state() if key.startswith(left)], "the end of what was dealt with"
    )


def seconds(moment: str | datetime.datetime) -> float:
    """SQLite has text, in UTC."""
    if isinstance(moment, str):
        moment = datetime.datetime.fromisoformat(moment).replace(tzinfo=datetime.UTC)
    return moment.timestamp()


def test_invalid_commands_are_refused_with_a_reason(environment: Environment) -> None:
    cases: dict[str, tuple[dict[str, Any], str, str]] = {
        "unknown": ({"dag_id": "absent"}, "not_found", "no DAG 'absent'"),
        "twice": ({"dag_id": "configured", "run_id": "configured"}, "conflict", "already"),
        "conf": ({"dag_id": "configured", "conf": {"count": -1}}, "invalid", "minimum"),
        "list": ({"dag_id": "configured", "conf": [1]}, "invalid", "object"),
        "date": ({"dag_id": "configured", "logical_date": "yesterday"}, "invalid", "ISO 8601"),
        "reserved": ({"dag_id": "configured", "run_id": "scheduled__x"}, "invalid", "reserved"),
        "lacking": ({}, "invalid", "lacks 'dag_id'"),
    }
    for identifier, (command, _, _) in cases.items():
        environment.command(identifier, kind="trigger", **command)
    environment.command("nonsense", kind="nonsense")
    environment.call("run_tick", "test")
    replies = wait_until(lambda: (s := environment.state()) and "reply:nonsense" in s and s, "the replies")
    for identifier, (_, reason, words) in cases.items():
        answer = replies[f"reply:{identifier}"]
        assert (answer["ok"], answer["reason"]) == (False, reason), answer
        assert words in answer["error"], answer
    assert "unknown command" in replies["reply:nonsense"]["error"]
    dated = reply(environment, "dated", kind="trigger", dag_id="configured", logical_date="2026-02-03T04:05:06+00:00")
    assert dated["result"]["logical_date"] == "2026-02-03T04:05:06+00:00"


def test_redelivered_call_runs_nothing(environment: Environment) -> None:
    """Of a launch that has ended, and of one that another call has claimed."""
    key = "task:configured:show:configured"
    entry = environment.state()[key]
    payload = {"key": key, "launch": entry["launch"], "generation": 1, "workload": {}}
    assert environment.call("execute_task", payload) == {"status": "obsolete"}
    assert environment.call("execute_task", {**payload, "launch": "another"}) == {"status": "obsolete"}
    claimed = {**entry, "status": "QUEUED", "launch": "claimed", "dag_id": "ghost"}
    claim = {"ti_id": entry["ti_id"], "launch": "claimed", "call_id": "fc-other", "at": time.time()}
    environment.modal.sdk(f"""
    d = modal.Dict.from_name("airflow-state-test")
    d["task:ghost"], d["claim:{entry["ti_id"]}:claimed"] = {claimed!r}, {claim!r}
    """)
    answer = environment.call("execute_task", {**payload, "key": "task:ghost", "launch": "claimed"})
    assert answer == {"status": "claimed by another call"}
    tick(environment)
    ghost = environment.state()["task:ghost"]
    assert ghost["status"] == "FAILED", "the database does not want this launch, so it is stopped"
    assert environment.state()[key] == entry


def test_replayed_journal_changes_nothing(environment: Environment) -> None:
    """A tick may die after it has published and before it has removed the journal that it published."""
    if environment.connection_string:
        pytest.skip("no journals are written with PostgreSQL")
    key = "task:configured:show:configured"
    entry = environment.state()[key]
    where = "WHERE run_id = 'configured' AND dag_id = 'configured'"
    before = environment.query(f"SELECT state, start_date, end_date, try_number FROM task_instance {where}")
    request = {
        "at": time.time(),
        "method": "PATCH",
        "path": f"/task-instances/{entry['ti_id']}/state",
        "body": json.dumps({"state": "failed", "end_date": "2026-01-01T00:00:00Z"}),
        "content_type": "application/json",
        "api_version": None,
        "status": 204,
    }
    record = {"ti_id": entry["ti_id"], "launch": entry["launch"], "sequence": 0, "requests": [request]}
    environment.modal.sdk(f'modal.Dict.from_name("airflow-state-test")["journal:again"] = {record!r}')
    assert tick(environment)["replayed"] == 0
    assert environment.query(f"SELECT state, start_date, end_date, try_number FROM task_instance {where}") == before
    assert "journal:again" not in environment.state()


def test_dag_folder_and_database_agree(environment: Environment) -> None:
    good = (
        "from airflow.sdk import DAG\nfrom helper import NAMES\nDAGS = [globals().update({n: DAG(n)}) for n in NAMES]"
    )
    environment.upload("fleet.py", good)
    first = reply(environment, "refresh-1", kind="refresh")["result"]
    assert [error["filename"] for error in first["import_errors"]] == ["fleet.py"]

    environment.upload("helper.py", "NAMES = ['one', 'two']")
    assert names(environment, "refresh-2") >= {"one", "two"}
    assert reply(environment, "refresh-3", kind="refresh")["result"]["import_errors"] == []

    environment.upload("helper.py", "NAMES = ['two', 'three']")
    found = names(environment, "refresh-4")
    assert found >= {"two", "three"} and "one" not in found

    environment.upload("hostile.py", "import os  # for a DAG\nos._exit(0)")
    errors = reply(environment, "refresh-5", kind="refresh")["result"]["import_errors"]
    assert [(error["filename"], "exit code 0" in error["stack_trace"]) for error in errors] == [("hostile.py", True)]

    environment.upload("archive.zip", archive(first=good, helper="NAMES = ['packed', 'wrapped']"))
    assert names(environment, "refresh-6") >= {"packed", "wrapped", "two"}
    environment.upload("archive.zip", archive(first=good, helper="NAMES = ['packed']"))
    found = names(environment, "refresh-7")
    assert found >= {"packed", "two"} and "wrapped" not in found

    environment.modal.sdk("""
    volume = modal.Volume.from_name("airflow-dags-test")
    for name in ("fleet.py", "hostile.py", "archive.zip"): volume.remove_file(f"/dags/{name}")
    """)
    found = names(environment, "refresh-8")
    assert not found & {"one", "two", "three", "packed"} and "retried" in found
    assert reply(environment, "refresh-9", kind="refresh")["result"]["import_errors"] == []


def archive(**modules: str) -> bytes:
    """A zip file with these modules."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name, source in modules.items():
            file.writestr(f"{name}.py", source)
    return buffer.getvalue()


def names(environment: Environment, identifier: str) -> set[str]:
    return {dag["dag_id"] for dag in reply(environment, identifier, kind="refresh")["result"]["dags"]}


def test_idle_tick_does_nothing(environment: Environment) -> None:
    tick(environment)
    wait_until(lambda: not environment.state()["due"]["active"], "quiet")
    environment.modal.sdk('modal.Dict.from_name("airflow-state-test").pop("wake", None)')
    before = environment.query("SELECT generation FROM airflow_serverless_version")
    assert environment.call("run_tick", "test") == {"idle": True}
    assert environment.call("scheduler_tick") == {"spawned": False, "reason": None}
    assert environment.query("SELECT generation FROM airflow_serverless_version") == before
    assert environment.call("initialize_database")["migrated"] is False
