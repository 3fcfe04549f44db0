from datetime import datetime

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.providers.standard.operators.python import BranchPythonOperator, ShortCircuitOperator
from airflow.sdk import DAG, TaskGroup, task

with DAG("branching", schedule=None, start_date=datetime(2026, 1, 1)):

    @task.branch
    def choose(params=None, dag_run=None):
        return dag_run.conf.get("to", "left")

    chosen = choose()
    left, right, both = EmptyOperator(task_id="left"), EmptyOperator(task_id="right"), EmptyOperator(task_id="both")
    join = EmptyOperator(task_id="join", trigger_rule="none_failed_min_one_success")
    strict = EmptyOperator(task_id="strict")
    chosen >> [left, right, both] >> join
    [left, right] >> strict
    with TaskGroup("group") as group:
        EmptyOperator(task_id="one") >> EmptyOperator(task_id="two")
    chosen >> group >> join

with DAG("short_circuit", schedule=None, start_date=datetime(2026, 1, 1)):
    for name, value, ignore in (("closed", False, True), ("mild", False, False), ("open", True, True)):
        cut = ShortCircuitOperator(
            task_id=name, python_callable=lambda value=value: value, ignore_downstream_trigger_rules=ignore
        )
        after = EmptyOperator(task_id=f"after_{name}")
        cut >> after >> EmptyOperator(task_id=f"end_{name}", trigger_rule="all_done")

with DAG("branch_to_nowhere", schedule=None, start_date=datetime(2026, 1, 1)):
    none = BranchPythonOperator(task_id="none", python_callable=lambda: None)
    wrong = BranchPythonOperator(task_id="wrong", python_callable=lambda: "absent")
    none >> EmptyOperator(task_id="after_none")
    wrong >> EmptyOperator(task_id="after_wrong")
