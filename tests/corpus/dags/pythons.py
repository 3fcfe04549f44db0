"""Tasks in another interpreter: the one that is there, as others would have to be installed."""

import sys
from datetime import datetime

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG, task

OTHER = {"python": sys.executable, "expect_airflow": False}

with DAG("pythons", schedule=None, start_date=datetime(2026, 1, 1)):

    @task
    def numbers():
        return [1, 2, 3]

    @task.external_python(**OTHER)
    def squares(values):
        return [value * value for value in values]

    @task.external_python(**OTHER)
    def fails():
        raise ValueError("in another interpreter")

    @task.external_python(skip_on_exit_code=[42], **OTHER)
    def skips():
        import sys

        sys.exit(42)

    @task.branch_external_python(**OTHER)
    def branch():
        return "left"

    squares(numbers())
    fails(), skips()
    branch() >> [EmptyOperator(task_id="left"), EmptyOperator(task_id="right")]
