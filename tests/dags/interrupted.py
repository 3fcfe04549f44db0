"""Tasks that a test interrupts: each writes down its try, then waits until it may go on."""

import time
from datetime import datetime, timedelta
from pathlib import Path

from airflow.sdk import DAG, get_current_context, task

START = datetime(2026, 1, 1)


def wait():
    context = get_current_context()
    conf, attempt = context["dag_run"].conf, context["ti"]
    with open(conf["journal"], "a") as journal:
        journal.write(f"{attempt.task_id} {attempt.try_number}\n")
    while not Path(conf["go"]).exists():
        time.sleep(0.05)


with DAG("durable", schedule=None, start_date=START):
    lasting = {"retries": 9, "retry_delay": timedelta(seconds=1)}
    first = task(task_id="first", **lasting)(wait)()
    first >> task(task_id="second", **lasting)(wait)()

with DAG("fragile", schedule=None, start_date=START):
    task(task_id="only")(wait)()
