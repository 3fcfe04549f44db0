"""A deferrable task: while it waits, a trigger waits for it, together with those of all other deferred tasks."""

from airflow.providers.standard.sensors.date_time import DateTimeSensorAsync
from airflow.sdk import dag, task

SOON = "{{ (macros.datetime.now().astimezone() + macros.timedelta(seconds=5)).isoformat() }}"


@dag(schedule=None, tags=["example"])
def deferrable():
    @task
    def go_on() -> None:
        print("the wait is over")

    DateTimeSensorAsync(task_id="wait", target_time=SOON) >> go_on()


deferrable()
