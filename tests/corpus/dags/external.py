"""What looks often stays in its process, and what is deferred finds nothing at first: stock Airflow fails a task that
is to go on before its executor has said that it waits, which may take as long as its machine is slow."""

from datetime import datetime, timedelta

from airflow.providers.standard.operators.bash import BashOperator
from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.providers.standard.operators.python import PythonOperator
from airflow.providers.standard.operators.trigger_dagrun import TriggerDagRunOperator
from airflow.providers.standard.sensors.external_task import ExternalTaskSensor
from airflow.sdk import DAG


def fail():
    raise ValueError("as it should be")


with DAG("watched", schedule=None, start_date=datetime(2026, 1, 1)):
    EmptyOperator(task_id="good")
    PythonOperator(task_id="bad", python_callable=fail)

with DAG("watched_later", schedule=None, start_date=datetime(2026, 1, 1)):
    EmptyOperator(task_id="good")

with DAG("watching", schedule=None, start_date=datetime(2026, 1, 1), default_args={"timeout": 400}):
    watched = {"external_dag_id": "watched", "poke_interval": 1}
    ExternalTaskSensor(task_id="poke", external_task_id="good", **watched)
    ExternalTaskSensor(task_id="several", external_task_ids=["good"], execution_delta=timedelta(0), **watched)
    ExternalTaskSensor(task_id="whole_dag", allowed_states=["failed"], **watched)
    ExternalTaskSensor(task_id="fails", external_task_id="bad", failed_states=["failed"], **watched)
    ExternalTaskSensor(task_id="skips", external_task_id="bad", skipped_states=["failed"], **watched)
    watched["poke_interval"] = 15
    ExternalTaskSensor(task_id="reschedule", external_task_id="good", mode="reschedule", **watched)
    watched["external_dag_id"] = "watched_later"
    ExternalTaskSensor(task_id="deferrable", external_task_id="good", deferrable=True, priority_weight=1000, **watched)
    BashOperator(task_id="first", bash_command="sleep 12") >> TriggerDagRunOperator(
        task_id="later", trigger_dag_id="watched_later", trigger_run_id="later", logical_date="{{ logical_date }}"
    )
