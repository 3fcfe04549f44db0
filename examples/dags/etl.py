"""Extract, transform, load: three TaskFlow tasks that hand on their results by XCom, and a shell command."""

from datetime import datetime

from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import dag, task


@dag(schedule="@daily", start_date=datetime(2026, 1, 1), catchup=False, tags=["example"])
def etl():
    @task
    def extract() -> dict[str, float]:
        return {"1001": 301.27, "1002": 433.21, "1003": 502.22}

    @task
    def transform(orders: dict[str, float]) -> float:
        return round(sum(orders.values()), 2)

    @task
    def load(total: float) -> None:
        print(f"Total order value is {total:.2f}")

    report = BashOperator(
        task_id="report",
        bash_command="echo \"run {{ run_id }}: total {{ ti.xcom_pull(task_ids='transform') }}\"",
    )
    load(transform(extract())) >> report


etl()
