"""What Modal cannot do for a DAG: said in the same words wherever a file comes from, and where a task runs into it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from environment import Environment, deployed
from local_modal import REPOSITORY, wait_until
from test_functions_validator import REFUSED

TASK_TIMEOUT = 2
LATE_SECONDS = 15
DAG = """
import datetime, signal, time
from airflow.sdk import DAG, task

with DAG("long", schedule=None, start_date=datetime.datetime(2026, 1, 1)):
    @task(execution_timeout=datetime.timedelta(hours=1), retries=1, retry_delay=datetime.timedelta(0))
    def hopes(ti=None):
        if ti.try_number == 1:
            time.sleep(600)

    @task(execution_timeout=datetime.timedelta(hours=1))
    def stays():
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        while True:
            time.sleep(1)

    hopes(), stays()
"""

WAITING = """
import datetime, pathlib, time
from airflow.providers.standard.operators.hitl import (
    ApprovalOperator, HITLBranchOperator, HITLEntryOperator, HITLOperator)
from airflow.providers.standard.operators.python import PythonOperator
from airflow.providers.standard.triggers.temporal import DateTimeTrigger
from airflow.sdk import DAG, BaseOperator
from airflow.triggers.base import StartTriggerArgs

FAR = datetime.datetime(2100, 1, 1, tzinfo=datetime.timezone.utc)

class Defers(BaseOperator):
    def execute(self, context):
        self.defer(trigger=DateTimeTrigger(moment=FAR), method_name="execute", timeout=self.execution_timeout)

class StartsDeferred(BaseOperator):
    start_from_trigger = True
    start_trigger_args = StartTriggerArgs(
        trigger_cls="airflow.providers.standard.triggers.temporal.DateTimeTrigger",
        trigger_kwargs={"moment": FAR}, next_method="execute")
    def execute(self, context):
        pass

class Sleeps(PythonOperator):
    def on_kill(self):
        print("killed after its time")

with DAG("waits", schedule=None):
    question = {"subject": "?", "options": ["after"]}
    HITLOperator(task_id="asks", **question)
    HITLOperator.partial(task_id="asks_twice", options=["after"]).expand(subject=["?", "!"])
    ApprovalOperator(task_id="approves", subject="?")
    HITLBranchOperator(task_id="branches", **question) >> PythonOperator(task_id="after", python_callable=print)
    HITLEntryOperator(task_id="enters", subject="?", params={"x": 1})
    HITLOperator(task_id="limited", response_timeout=datetime.timedelta(days=3), **question)
    Defers(task_id="defers")
    StartsDeferred(task_id="starts_deferred")

with DAG("sleeps", schedule=None):
    Sleeps(task_id="sleeps", python_callable=lambda: time.sleep(60), retries=1, retry_delay=datetime.timedelta(0))
"""


@pytest.fixture(scope="module")
def environment() -> Iterator[Environment]:
    with deployed("sqlite", executor={"parallelism": 4, "task_timeout": TASK_TIMEOUT}) as environment:
        environment.upload("long.py", DAG)
        environment.upload("waiting.py", WAITING)
        yield environment


def test_file_written_to_the_volume_is_refused_like_an_upload(environment: Environment) -> None:
    environment.upload("refused.py", (REPOSITORY / "tests/corpus/refused.py").read_text())
    environment.command("refresh", kind="refresh")
    environment.call("run_tick", "test")
    reply = wait_until(lambda: environment.state().get("reply:refresh"), "the reply")["result"]
    [error] = reply["import_errors"]
    assert error["filename"] == "refused.py"
    reasons = error["stack_trace"].split("\n\n")
    assert len(reasons) == len(REFUSED)
    assert all(any(words in reason for reason in reasons) for words in REFUSED.values()), reasons
    assert {dag["dag_id"] for dag in reply["dags"]} == {"long", "waits", "sleeps"}


def test_task_beyond_the_environment_timeout_fails_with_a_reason(environment: Environment) -> None:
    environment.command("long", kind="trigger", dag_id="long", run_id="long")
    environment.call("run_tick", "test")

    def ended() -> bool:
        return environment.query("SELECT state FROM dag_run WHERE run_id = 'long'") == [("failed",)]

    wait_until(ended, "the end of the run", 120)
    tasks = environment.query("SELECT task_id, state, try_number FROM task_instance WHERE run_id = 'long'")
    assert sorted(tasks) == [("hopes", "success", 2), ("stays", "failed", 1)]
    words = f"Ended after {TASK_TIMEOUT + LATE_SECONDS} s, whatever the task's execution_timeout"
    for task_id in ("hopes", "stays"):
        [log] = environment.volumes(f"logs/dag_id=long/run_id=long/task_id={task_id}/attempt=1.log")
        assert words in log.read_text()
    assert words in environment.state()["task:long:stays:long"]["error"]


def test_waiting_without_a_process_has_no_timeout(environment: Environment) -> None:
    environment.command("waits", kind="trigger", dag_id="waits", run_id="waits")
    environment.call("run_tick", "test")
    query = "SELECT task_id, state, trigger_timeout IS NULL FROM task_instance WHERE run_id = 'waits'"

    def are_waiting() -> bool:
        found = environment.query(query)
        return bool(found) and all(
            state in ("deferred", "awaiting_input") for task, state, _ in found if task != "after"
        )

    wait_until(are_waiting, "the tasks that wait", 60)
    assert [task for task, _, is_unlimited in environment.query(query) if not is_unlimited] == ["limited"]


def test_task_without_a_timeout_gets_that_of_the_environment(environment: Environment) -> None:
    environment.command("sleeps", kind="trigger", dag_id="sleeps", run_id="sleeps")
    environment.call("run_tick", "test")
    ended = "SELECT try_number FROM task_instance WHERE run_id = 'sleeps' AND state = 'failed'"
    [(tries,)] = wait_until(lambda: environment.query(ended), "the end of the task", 60)
    assert tries == 2
    [log] = environment.volumes("logs/dag_id=sleeps/run_id=sleeps/task_id=sleeps/attempt=1.log")
    assert f"Timed out after {TASK_TIMEOUT} s, executor.task_timeout of this environment" in log.read_text()
    assert "killed after its time" in log.read_text()
