import pendulum
from airflow.sdk import DAG, task
from quarterly import Quarterly

start, end = pendulum.datetime(2026, 1, 1), pendulum.datetime(2026, 3, 31)

with DAG("report", schedule=Quarterly(), start_date=start, end_date=end, catchup=True):

    @task
    def sum_up(start, end):
        print(f"from {start} to {end}")

    sum_up("{{ data_interval_start | ds }}", "{{ data_interval_end | ds }}")
