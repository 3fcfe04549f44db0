"""Looks are not frequent: stock Airflow fails a task that looks again before its executor has said that it waits."""

from datetime import datetime, timedelta

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.providers.standard.operators.python import PythonOperator
from airflow.providers.standard.sensors.external_task import ExternalTaskSensor
from airflow.sdk import DAG


def fail():
    raise ValueError("as it should be")


with DAG("watched", schedule=None, start_date=datetime(2026, 1, 1)):
    EmptyOperator(task_id="good")
    PythonOperator(task_id="bad", python_callable=fail)

with DAG("watching", schedule=None, start_date=datetime(2026, 1, 1), default_args={"poke_interval": 5, "timeout": 400}):
    watched = {"external_dag_id": "watched"}
    for mode in ("poke", "reschedule"):
        ExternalTaskSensor(task_id=f"task_{mode}", external_task_id="good", mode=mode, **watched)
    ExternalTaskSensor(task_id="deferrable", external_task_id="good", deferrable=True, **watched)
    ExternalTaskSensor(task_id="several", external_task_ids=["good"], execution_delta=timedelta(0), **watched)
    ExternalTaskSensor(task_id="whole_dag", allowed_states=["failed"], mode="reschedule", **watched)
    ExternalTaskSensor(task_id="fails", external_task_id="bad", failed_states=["failed"], mode="reschedule", **watched)
    ExternalTaskSensor(task_id="skips", external_task_id="bad", skipped_states=["failed"], mode="reschedule", **watched)
