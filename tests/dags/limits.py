"""What the configuration's limits keep in bounds."""

import time
from datetime import datetime

from airflow.sdk import DAG, get_current_context, task

START = datetime(2026, 1, 1)

with DAG("crowd", schedule=None, start_date=START):

    @task
    def member(number):
        with open(get_current_context()["dag_run"].conf["journal"], "a", buffering=1) as journal:
            journal.write("+")
            journal.flush()
            time.sleep(0.3)
            journal.write("-")

    member.expand(number=list(range(6)))

with DAG("endless", schedule=None, start_date=START):

    @task
    def never_ends():
        while True:
            time.sleep(0.1)

    never_ends()
