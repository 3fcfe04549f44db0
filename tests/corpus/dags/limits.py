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

with DAG("crowded_pool", schedule=None, start_date=START):
    # Two slots for six tasks.

    @task(pool="corpus_pair")
    def crowded(n, dag_run=None):
        place = folder(dag_run.dag_id, dag_run.run_id)
        mark = place / f"crowded {n}"
        mark.touch()
        beside = len(list(place.iterdir()))
        time.sleep(0.3)
        mark.unlink()
        return beside <= 2

    crowded.expand(n=list(range(6)))

with DAG("queue_at_a_pool", schedule=None, start_date=START):
    # One slot: the heavier first, and those that others wait for are heavier by these.

    @task(pool="corpus_single")
    def in_turn(name, dag_run=None):
        place = folder(dag_run.dag_id, dag_run.run_id)
        earlier = sorted(file.name for file in place.iterdir())
        (place / name).touch()
        return earlier

    turn = {
        name: in_turn.override(task_id=name, priority_weight=weight)(name)
        for name, weight in {"first": 50, "fourth": 10, "third": 20, "second": 15, "fifth": 5, "last": 1}.items()
    }
    turn["second"] >> EmptyOperator(task_id="weight", priority_weight=30)

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
