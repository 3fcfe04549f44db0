from datetime import datetime

from airflow.sdk import dag, task


@dag(schedule=None, start_date=datetime(2026, 1, 1))
def taskflow():
    """TaskFlow: values from task to task, several outputs, keyword arguments, a task used twice."""

    @task
    def extract():
        return {"a": 1, "b": [2, 3], "c": {"d": None}}

    @task(multiple_outputs=True)
    def split(data: dict):
        return {"left": data["a"], "right": data["b"], "none": None}

    @task
    def add(x, y=0):
        return x + y

    @task
    def text(template, **context):
        return f"{template} {context['ti'].task_id} {context['dag_run'].run_id}"

    parts = split(extract())
    first = add(parts["left"], y=10)
    text(template="{{ ds }} {{ ti.xcom_pull(task_ids='add') }}").set_upstream(add.override(task_id="again")(first, 5))


taskflow()
