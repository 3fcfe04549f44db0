import time
from datetime import datetime, timedelta

from airflow.sdk import DAG, AsyncCallback, DeadlineAlert, DeadlineReference, task
from notes import missed

with DAG(
    "deadlines",
    schedule=None,
    start_date=datetime(2026, 1, 1),
    deadline=[
        DeadlineAlert(
            reference=DeadlineReference.DAGRUN_QUEUED_AT,
            interval=timedelta(seconds=3),
            callback=AsyncCallback(missed, {"text": "deadline missed"}),
        ),
        DeadlineAlert(
            reference=DeadlineReference.DAGRUN_QUEUED_AT,
            interval=timedelta(hours=1),
            callback=AsyncCallback(missed, {"text": "deadline that is kept"}),
        ),
    ],
):

    @task
    def slow():
        time.sleep(6)

    slow()
