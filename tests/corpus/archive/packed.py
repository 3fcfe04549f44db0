"""A DAG in an archive, with a helper module beside it."""

from datetime import datetime

from airflow.sdk import DAG, task
from packed_helper import WORD

with DAG("packed", schedule=None, start_date=datetime(2026, 1, 1)):

    @task
    def unpacked():
        return WORD

    unpacked()
