"""DAGs that stock Airflow would take, or take with other executors, and that are refused here."""

import datetime

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.providers.standard.triggers.file import FileDeleteTrigger
from airflow.sdk import DAG, Asset, AssetWatcher

WATCHER = AssetWatcher(name="watcher", trigger=FileDeleteTrigger(filepath="/tmp/event"))
WATCHED = Asset("refused://watched", watchers=[WATCHER])

with DAG("refused_watcher", schedule=[WATCHED]):
    EmptyOperator(task_id="event")

with DAG("refused_schedule", schedule=datetime.timedelta(milliseconds=10)):
    EmptyOperator(task_id="often")

with DAG("refused_executor", schedule=None):
    EmptyOperator(task_id="pod", executor="KubernetesExecutor")

with DAG("refused_user", schedule=None):
    EmptyOperator(task_id="sudo", run_as_user="joe")

with DAG("refused_timeout", schedule=None):
    EmptyOperator(task_id="days", execution_timeout=datetime.timedelta(days=2))

with DAG("accepted", schedule=None):
    EmptyOperator(task_id="fine")
