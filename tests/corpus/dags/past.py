"""What one run has to do with the run before it."""

from datetime import UTC, datetime

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG, task
from notes import folder

DAYS = {"start_date": datetime(2026, 1, 5, tzinfo=UTC), "end_date": datetime(2026, 1, 7, tzinfo=UTC), "catchup": True}


def ordered(name):
    """A task that says whether the runs came one after the other, as they should."""

    @task
    def in_order(dag_run=None):
        place = folder(dag_run.dag_id, "")
        day = dag_run.logical_date.day
        (place / f"day {day}").touch()
        return [file.name for file in sorted(place.iterdir())]

    return in_order()


with DAG("depends_on_past", schedule="@daily", default_args={"depends_on_past": True}, **DAYS):
    ordered("depends_on_past") >> EmptyOperator(task_id="after")

with DAG("depends_on_a_failed_past", schedule="@daily", max_active_runs=1, **DAYS):

    @task(depends_on_past=True)
    def fails_on_the_sixth(dag_run=None):
        if dag_run.logical_date.day == 6:
            raise ValueError("as it should be")

    @task(trigger_rule="all_done")
    def regardless():
        return "regardless"

    fails_on_the_sixth() >> regardless()

with DAG("wait_for_downstream", schedule="@daily", default_args={"wait_for_downstream": True}, **DAYS):
    EmptyOperator(task_id="before") >> ordered("wait_for_downstream")

with DAG("max_active_runs", schedule="@daily", max_active_runs=1, **DAYS):
    ordered("max_active_runs")
