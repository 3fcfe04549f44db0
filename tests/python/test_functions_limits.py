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


@pytest.fixture(scope="module")
def environment() -> Iterator[Environment]:
    with deployed("sqlite", executor={"parallelism": 4, "task_timeout": TASK_TIMEOUT}) as environment:
        environment.upload("long.py", DAG)
        yield environment


def test_a_file_that_was_written_to_the_volume_is_refused_as_at_its_upload(environment: Environment) -> None:
    environment.upload("refused.py", (REPOSITORY / "tests/corpus/refused.py").read_text())
    environment.command("refresh", kind="refresh")
    environment.call("run_tick", "test")
    reply = wait_until(lambda: environment.state().get("reply:refresh"), "the reply")["result"]
    [error] = reply["import_errors"]
    assert error["filename"] == "refused.py"
    reasons = error["stack_trace"].split("\n\n")
    assert len(reasons) == len(REFUSED)
    assert all(any(words in reason for reason in reasons) for words in REFUSED.values()), reasons
    assert {dag["dag_id"] for dag in reply["dags"]} == {"long"}


def test_a_task_that_takes_longer_than_the_environment_allows_is_told_so(environment: Environment) -> None:
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
