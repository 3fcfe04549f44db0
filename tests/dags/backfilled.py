"""A DAG whose schedule has ended, so that all of its runs are those of backfills; one that has none; one that defers."""

import datetime

from airflow.providers.standard.sensors.date_time import DateTimeSensorAsync
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

with DAG("deferring", schedule=None, start_date=START):
    DateTimeSensorAsync(task_id="moment", target_time="{{ dag_run.conf['until'] }}")
