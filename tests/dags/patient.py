"""A task that waits until a file appears, so that a test can interrupt it; it has one retry."""

import time
from datetime import datetime, timedelta
from pathlib import Path

from airflow.sdk import DAG, get_current_context, task

with DAG("patient", schedule=None, start_date=datetime(2026, 1, 1)):

    @task(retries=1, retry_delay=timedelta(seconds=1))
    def wait():
        conf = get_current_context()["dag_run"].conf
        Path(conf["started"]).touch()
        while not Path(conf["go"]).exists():
            time.sleep(0.05)

    wait()
