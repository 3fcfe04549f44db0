from datetime import datetime

from airflow.providers.standard.operators.bash import BashOperator
from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.providers.standard.operators.python import PythonOperator
from airflow.sdk import DAG

with DAG("operators", schedule=None, start_date=datetime(2026, 1, 1), doc_md="# The classic operators"):
    start = EmptyOperator(task_id="start")
    last_line = BashOperator(task_id="last_line", bash_command="echo one; echo two", append_env=True)
    environment = BashOperator(
        task_id="environment", bash_command="echo $CORPUS_PLAIN-$MORE", env={"MORE": "{{ ds_nodash }}"}, append_env=True
    )
    silent = BashOperator(task_id="silent", bash_command="true", do_xcom_push=False)
    skipped = BashOperator(task_id="skipped", bash_command="exit 99")
    broken = BashOperator(task_id="broken", bash_command="echo lost; exit 3")
    called = PythonOperator(
        task_id="called", python_callable=lambda a, b, ds: [a, b, ds], op_args=[1], op_kwargs={"b": "{{ run_id }}"}
    )
    end = EmptyOperator(task_id="end", trigger_rule="all_done")
    start >> [last_line, environment, silent, skipped, broken, called] >> end
