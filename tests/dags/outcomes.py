"""The ways in which tasks end, a DAG for each."""

from datetime import datetime, timedelta

from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG, get_current_context, task

START = datetime(2026, 1, 1)

with DAG("retried", schedule=None, start_date=START):

    @task(retries=1, retry_delay=timedelta(seconds=1))
    def flaky():
        if get_current_context()["ti"].try_number == 1:
            raise RuntimeError("the first try fails")

    flaky()

with DAG("failing", schedule=None, start_date=START):

    @task
    def fails():
        raise ValueError("boom")

    fails() >> BashOperator(task_id="never", bash_command="true")

with DAG("branching", schedule=None, start_date=START):

    @task.branch
    def choose():
        return "left"

    choose() >> [
        BashOperator(task_id="left", bash_command="echo from the left"),
        BashOperator(task_id="right", bash_command="false"),
    ]

with DAG("mapped", schedule=None, start_date=START):

    @task
    def numbers():
        return [1, 2, 3]

    @task
    def square(number):
        return number * number

    @task
    def total(values):
        print(f"total {sum(values)} for {get_current_context()['dag_run'].conf}")

    total(square.expand(number=numbers()))
