"""Where tasks are short, more are queued than can run; those that wait for a long one then are not taken for stuck."""

from __future__ import annotations

import shutil
from pathlib import Path

from environment import FUNCTIONS, deployed
from local_modal import wait_until

DAG = """
from datetime import datetime
from pathlib import Path
from time import monotonic, sleep
from airflow.sdk import DAG, get_current_context, task

with DAG("ahead", schedule=None, start_date=datetime(2026, 1, 1)):
    @task(priority_weight=2)
    def short():
        pass

    @task
    def long():
        end = Path(get_current_context()["dag_run"].conf["end"])
        until = monotonic() + 100
        while not end.exists() and monotonic() < until:
            sleep(0.1)

    short(), long()

with DAG("later", schedule=None, start_date=datetime(2026, 1, 1)):
    @task
    def waits():
        pass

    waits()
"""
QUEUED_TIMEOUT = 15
STATES = "SELECT task_id, state FROM task_instance ORDER BY task_id"


def test_task_queued_behind_the_parallelism_limit_is_not_stuck(tmp_path: Path) -> None:
    functions = shutil.copytree(FUNCTIONS, tmp_path / "functions")
    with (functions / "airflow_serverless/scheduler/reconcile.py").open("a") as reconcile:
        # On a busy machine the next tick comes later than that.
        reconcile.write("\nLATELY_SECONDS = 600.0\n")
    one_at_a_time = {"parallelism": 1, "task_timeout": 120}
    timeout = {"AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT": str(QUEUED_TIMEOUT)}
    with deployed("sqlite", executor=one_at_a_time, functions=functions, **timeout) as environment:
        end = environment.modal.root / "end"
        environment.upload("ahead.py", DAG)
        environment.command("run", kind="trigger", dag_id="ahead", run_id="run", conf={"end": str(end)})

        def look(sql: str) -> list[tuple[object, ...]]:
            environment.call("run_tick", "test")
            return environment.query(sql)

        wait_until(lambda: look(STATES) == [("long", "running"), ("short", "success")], "the long task", 90)
        environment.command("later", kind="trigger", dag_id="later", run_id="later")
        ahead = [("long", "running"), ("short", "success"), ("waits", "queued")]
        wait_until(lambda: look(STATES) == ahead, "a task that is queued beyond the one that runs", 90)
        waited = "SELECT count(*) FROM task_instance WHERE queued_dttm < datetime('now', ?)"
        longer = f"-{QUEUED_TIMEOUT + 5} seconds"
        wait_until(lambda: environment.query(waited, longer) == [(3,)], "the timeout of what is queued to pass")
        assert look(STATES) == ahead
        end.touch()
        wait_until(lambda: look(STATES) == [("long", "success"), ("short", "success"), ("waits", "success")], "the end")
        assert environment.query("SELECT event FROM log WHERE event LIKE 'stuck%'") == []
