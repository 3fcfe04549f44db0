"""DAGs that run by themselves, for a few days that are long past."""

from datetime import UTC, datetime, timedelta

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.providers.standard.operators.latest_only import LatestOnlyOperator
from airflow.sdk import DAG, CronDataIntervalTimetable, CronTriggerTimetable, MultipleCronTriggerTimetable, task

START = datetime(2026, 1, 5, tzinfo=UTC)
DAYS = {"start_date": START, "end_date": datetime(2026, 1, 7, tzinfo=UTC), "catchup": True}
ZONE = "Europe/Zurich"

SCHEDULES = {
    "cron": "30 6 * * *",
    "preset": "@daily",
    "delta": timedelta(days=1),
    "trigger_cron": CronTriggerTimetable("0 0 * * *", timezone=ZONE),
    "interval_cron": CronDataIntervalTimetable("0 12 * * *", timezone=ZONE),
    "two_crons": MultipleCronTriggerTimetable("0 3 * * *", "0 4 6 * *", timezone="UTC"),
    "once": "@once",
}
for name, schedule in SCHEDULES.items():
    with DAG(f"scheduled_{name}", schedule=schedule, **DAYS):

        @task
        def times(data_interval_start=None, data_interval_end=None, logical_date=None, dag_run=None):
            return [str(time) for time in (logical_date, data_interval_start, data_interval_end, dag_run.run_type)]

        times()

with DAG("scheduled_latest_only", schedule="@daily", **DAYS):
    LatestOnlyOperator(task_id="latest") >> EmptyOperator(task_id="only_now")

with DAG("scheduled_in_the_future", schedule="@daily", start_date=datetime(2100, 1, 1, tzinfo=UTC)):
    EmptyOperator(task_id="not_yet")
