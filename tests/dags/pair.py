"""Two DAGs in one file."""

from datetime import datetime

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG

for name in ("left_of_pair", "right_of_pair"):
    with DAG(name, schedule=None, start_date=datetime(2026, 1, 1)) as dag:
        EmptyOperator(task_id="nothing")
    globals()[name] = dag
