"""One task that says hello; tests replace what it says."""

from datetime import datetime

from airflow.sdk import DAG, task

with DAG("greeting", schedule=None, start_date=datetime(2026, 1, 1)):

    @task
    def greet():
        print("hello")

    greet()
