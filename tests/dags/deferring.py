"""A task that waits for a file, beside the tasks."""

import datetime

from airflow.providers.standard.triggers.file import FileTrigger
from airflow.sdk import DAG, BaseOperator


class Waits(BaseOperator):
    def execute(self, context):
        print("before the file")
        trigger = FileTrigger(filepath=context["dag_run"].conf["file"], poke_interval=0.5)
        self.defer(trigger=trigger, method_name="resume")

    def resume(self, context, event):
        print("after the file")


with DAG("deferring", schedule=None, start_date=datetime.datetime(2026, 1, 1)):
    Waits(task_id="waits")
