import os
import signal
import sys
import time
from datetime import datetime, timedelta

from airflow.exceptions import AirflowException, AirflowFailException, AirflowSkipException
from airflow.sdk import DAG, task

RETRIED = {"retries": 1, "retry_delay": timedelta(seconds=0.1)}

with DAG("endings", schedule=None, start_date=datetime(2026, 1, 1), default_args=RETRIED):

    @task
    def skips():
        raise AirflowSkipException("skipped at once")

    @task
    def fails_for_good():
        raise AirflowFailException("no second try")

    @task
    def fails():
        raise AirflowException("both tries")

    @task
    def exits(code):
        sys.exit(code)

    @task
    def leaves():
        os._exit(3)

    @task
    def kills_itself():
        os.kill(os.getpid(), signal.SIGKILL)

    @task
    def is_terminated():
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(2)

    @task(execution_timeout=timedelta(seconds=1))
    def is_late():
        time.sleep(30)

    @task
    def interrupts():
        raise KeyboardInterrupt

    skips(), fails_for_good(), fails(), leaves(), kills_itself(), is_terminated(), is_late(), interrupts()
    exits(0), exits(1)

with DAG("fail_fast", schedule=None, start_date=datetime(2026, 1, 1), fail_fast=True):
    from airflow.providers.standard.operators.empty import EmptyOperator
    from airflow.providers.standard.operators.python import PythonOperator

    def fail():
        raise ValueError("the first")

    first = PythonOperator(task_id="first", python_callable=fail)
    ok = EmptyOperator(task_id="ok")
    ok >> first >> EmptyOperator(task_id="after")
