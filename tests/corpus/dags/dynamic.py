"""More of TaskFlow: tasks that are generators or coroutines, bash and decorators by their attributes."""

import asyncio
from datetime import datetime, timedelta

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG, chain, cross_downstream, task

with DAG("decorators", schedule=None, start_date=datetime(2026, 1, 1)):

    @task.bash
    def shell():
        return "echo from bash"

    @task.bash(retries=1, retry_delay=timedelta(seconds=0.1))
    def shell_that_fails():
        return "exit {{ 2 - ti.try_number }}"

    @task
    async def coroutine():
        await asyncio.sleep(0.01)
        return "awaited"

    @task.short_circuit
    def cut():
        return False

    @task.run_if(lambda context: context["dag_run"].run_id == "another")
    @task
    def only_for_another():
        return 1

    @task.skip_if(lambda context: context["dag_run"].run_id == "another")
    @task
    def not_for_another():
        return 2

    @task.branch
    def many():
        return ["x", "y"]

    shell(), shell_that_fails(), coroutine(), only_for_another(), not_for_another()
    cut() >> EmptyOperator(task_id="cut_off")
    many() >> [EmptyOperator(task_id=name) for name in "xyz"]

with DAG("shapes", schedule=None, start_date=datetime(2026, 1, 1)):
    tasks = {name: EmptyOperator(task_id=name) for name in "abcdefg"}
    chain(tasks["a"], [tasks["b"], tasks["c"]], [tasks["d"], tasks["e"]])
    cross_downstream([tasks["d"], tasks["e"]], [tasks["f"], tasks["g"]])
