from datetime import datetime

from airflow.exceptions import AirflowSkipException
from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG, Asset, task
from shifts import Heavier, Shifts

START = datetime(2026, 1, 1)

with DAG("plugin_shifts", schedule=Shifts(days=2), start_date=START, catchup=True, max_active_runs=2):

    @task
    def reported(text):
        return text

    reported("{{ macros.shifts.shift(data_interval_start) }} {{ data_interval_start }} {{ data_interval_end }}")

with DAG("plugin_triggered", schedule=Shifts(days=0), start_date=START):

    @task(weight_rule=Heavier(), outlets=[Asset("plugin_told")])
    def told(text):
        return text

    @task
    def skips():
        raise AirflowSkipException

    @task
    def fails():
        raise ValueError("broken")

    text = "{{ macros.shifts.shift(data_interval_start) }} {{ data_interval_start }}"
    told(text) >> EmptyOperator(task_id="empty") >> [skips(), fails()]
