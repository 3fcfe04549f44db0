from datetime import datetime, timedelta

from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG, get_current_context, task

with DAG("retries", schedule=None, start_date=datetime(2026, 1, 1)):

    @task(retries=2, retry_delay=timedelta(seconds=0.1))
    def third_time():
        ti = get_current_context()["ti"]
        ti.xcom_push(key="try", value=ti.try_number)
        if ti.try_number < 3:
            raise RuntimeError("not yet")
        return "at last"

    @task(
        retries=2, retry_delay=timedelta(seconds=0.2), retry_exponential_backoff=2, max_retry_delay=timedelta(seconds=1)
    )
    def backing_off():
        raise RuntimeError("never")

    third_time()
    backing_off()
    BashOperator(
        task_id="by_try",
        bash_command="echo {{ ti.try_number }}; test {{ ti.try_number }} = 2",
        retries=1,
        retry_delay=timedelta(0),
    )
