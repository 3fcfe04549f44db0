from datetime import datetime

from airflow.providers.standard.operators.bash import BashOperator
from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG, TaskGroup, setup, task, task_group, teardown

with DAG("task_groups", schedule=None, start_date=datetime(2026, 1, 1)):
    with TaskGroup("outer", default_args={"retries": 0}) as outer:
        first = EmptyOperator(task_id="first")
        with TaskGroup("inner", prefix_group_id=False) as inner:
            EmptyOperator(task_id="bare")
        first >> inner

    @task_group
    def flow(value):
        @task
        def double(x):
            return 2 * x

        @task
        def show(x):
            return f"got {x}"

        return show(double(value))

    EmptyOperator(task_id="start") >> outer >> flow(21)

with DAG("setup_teardown", schedule=None, start_date=datetime(2026, 1, 1)):

    @setup
    def make():
        return "cluster"

    @teardown
    def remove(what):
        return f"removed {what}"

    @task
    def fails():
        raise ValueError("the work fails, the teardown does not")

    cluster = make()
    cluster >> fails() >> EmptyOperator(task_id="not_reached") >> remove(cluster)

with DAG("failing_teardown", schedule=None, start_date=datetime(2026, 1, 1)):
    before = EmptyOperator(task_id="setup").as_setup()
    work = EmptyOperator(task_id="work")
    after = BashOperator(task_id="teardown", bash_command="exit 1").as_teardown(setups=before)
    before >> work >> after

with DAG("teardown_that_counts", schedule=None, start_date=datetime(2026, 1, 1)):
    before = EmptyOperator(task_id="setup").as_setup()
    after = BashOperator(task_id="teardown", bash_command="exit 1")
    before >> EmptyOperator(task_id="work") >> after.as_teardown(setups=before, on_failure_fail_dagrun=True)

with DAG("failing_setup", schedule=None, start_date=datetime(2026, 1, 1)):
    before = BashOperator(task_id="setup", bash_command="exit 1").as_setup()
    before >> EmptyOperator(task_id="work") >> EmptyOperator(task_id="teardown").as_teardown(setups=before)
