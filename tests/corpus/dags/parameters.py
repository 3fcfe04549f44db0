from datetime import datetime

from airflow.sdk import DAG, Param, task

PARAMS = {"count": Param(2, type="integer", minimum=0), "who": Param("you", type=["string", "null"]), "plain": [1]}

with DAG(
    "parameters", schedule=None, start_date=datetime(2026, 1, 1), params=PARAMS, render_template_as_native_obj=True
):

    @task
    def given(params=None, dag_run=None):
        return [dict(params), dag_run.conf]

    @task
    def native(count, who):
        return [count, who]

    given()
    native("{{ params.count }}", "{{ params.who }}")
