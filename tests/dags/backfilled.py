"""A DAG whose schedule has ended, so that all of its runs are those of backfills; one that has none."""

import datetime

from airflow.sdk import DAG, get_current_context, task

START, END = datetime.datetime(2026, 1, 1), datetime.datetime(2026, 1, 31)

with DAG("backfilled", schedule="@daily", start_date=START, end_date=END, is_paused_upon_creation=False):

    @task
    def counts():
        context = get_current_context()
        if context["ds"] == context["dag_run"].conf.get("bad"):
            raise RuntimeError("a bad day")

    counts()

with DAG("unscheduled", schedule=None, start_date=START):

    @task
    def nothing():
        pass

    nothing()
