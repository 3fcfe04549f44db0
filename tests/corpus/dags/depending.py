"""DAGs that are made in a loop, by names from a helper in a package."""

from datetime import datetime

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG
from library.names import NAMES

for name in NAMES:
    with DAG(f"made_{name}", schedule=None, start_date=datetime(2026, 1, 1)) as made:
        EmptyOperator(task_id=name)
    globals()[f"made_{name}"] = made
