"""A DAG that the scheduler starts by itself."""

from datetime import datetime, timedelta

from airflow.sdk import DAG, task

with DAG("steady", schedule=timedelta(seconds=1), start_date=datetime(2026, 1, 1), catchup=False, max_active_runs=1):

    @task
    def beat():
        print("beat")

    beat()
