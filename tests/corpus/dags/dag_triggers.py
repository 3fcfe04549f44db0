from datetime import datetime

from airflow.providers.standard.operators.trigger_dagrun import TriggerDagRunOperator
from airflow.sdk import DAG, task

with DAG("triggered", schedule=None, start_date=datetime(2026, 1, 1)):

    @task
    def works(dag_run=None):
        if dag_run.conf.get("fail"):
            raise ValueError("as asked for")
        return dag_run.conf

    works()

with DAG("triggering", schedule=None, start_date=datetime(2026, 1, 1)):
    for name, more in {
        "leaves": {},
        "waits": {"wait_for_completion": True, "poke_interval": 1},
        # Not soon, as in external.py.
        "defers": {"wait_for_completion": True, "poke_interval": 15, "deferrable": True},
        "waits_for_failure": {"wait_for_completion": True, "poke_interval": 1, "conf": {"fail": True}},
        "accepts_failure": {
            "wait_for_completion": True,
            "poke_interval": 1,
            "conf": {"fail": True},
            "allowed_states": ["failed"],
            "failed_states": ["success"],
        },
    }.items():
        TriggerDagRunOperator(
            task_id=name,
            trigger_dag_id="triggered",
            trigger_run_id=f"by_{name}",
            logical_date=None,
            **{"conf": {"by": "{{ run_id }}"}, **more},
        )
    first = TriggerDagRunOperator(task_id="first", trigger_dag_id="triggered", trigger_run_id="twice")
    second = TriggerDagRunOperator(task_id="second", trigger_dag_id="triggered", trigger_run_id="twice")
    kind = TriggerDagRunOperator(
        task_id="kind", trigger_dag_id="triggered", trigger_run_id="twice", skip_when_already_exists=True
    )
    first >> [second, kind]
    TriggerDagRunOperator(task_id="nowhere", trigger_dag_id="absent")
