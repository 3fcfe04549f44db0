"""Limits on what runs at once: a task notes it when it finds another beside it."""

import contextlib
import time
from datetime import UTC, datetime, timedelta

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG, task
from notes import folder


def alone(name, dag_run):
    place = folder(dag_run.dag_id, dag_run.run_id)
    beside = [file.name for file in place.iterdir()]
    mark = place / name
    mark.touch()
    time.sleep(0.3)
    with contextlib.suppress(FileNotFoundError):
        mark.unlink()
    return not beside


START = datetime(2026, 1, 1, tzinfo=UTC)

with DAG("max_active_tasks", schedule=None, start_date=START, max_active_tasks=1):

    @task
    def work(n, dag_run=None):
        return alone(f"work {n}", dag_run)

    work.expand(n=[1, 2, 3])

with DAG("max_active_tis", schedule=None, start_date=START):
    work.override(max_active_tis_per_dag=1).expand(n=[1, 2, 3])
    work.override(task_id="per_run", max_active_tis_per_dagrun=1)(4)

with DAG("pools", schedule=None, start_date=START):
    # As many slots as the default pool has: alone, whatever else there is.
    for name, weight in (("low", 1), ("high", 10)):

        @task(task_id=name, pool_slots=2, priority_weight=weight)
        def pooled(name, dag_run=None):
            return name

        pooled(name)

with DAG("pool_that_is_absent", schedule=None, start_date=START, dagrun_timeout=timedelta(seconds=5)):
    EmptyOperator(task_id="fine")

    @task(pool="absent")
    def waits():
        return "never"

    waits()

with DAG("run_timeout", schedule=None, start_date=START, dagrun_timeout=timedelta(seconds=15)):

    @task(priority_weight=1000)
    def long():
        time.sleep(50)

    long() >> EmptyOperator(task_id="never")
