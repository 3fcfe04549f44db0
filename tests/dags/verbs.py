"""Tasks that fail until they are told not to, a task that never ends by itself, and one that says secrets."""

import datetime
import os
import time

from airflow.sdk import DAG, BaseHook, Variable, get_current_context, task

START = datetime.datetime(2026, 1, 1)


def conf(key):
    return get_current_context()["dag_run"].conf[key]


with DAG(
    "mended",
    schedule="@daily",
    start_date=START,
    catchup=False,
    is_paused_upon_creation=False,
    description="Fails until it is mended",
    tags=["nightly", "books"],
    default_args={"owner": "ada"},
):

    @task
    def first():
        return [1, 2]

    @task
    def fragile(number):
        conf_of_run = get_current_context()["dag_run"].conf
        if number == 2 and not os.path.exists(conf_of_run.get("mended", "/")):
            raise RuntimeError("broken")

    @task
    def last(numbers):
        return len(list(numbers))

    last(fragile.expand(number=first()))

with DAG("endless", schedule=None, start_date=START):

    @task
    def sleeps():
        if not os.path.exists(conf("go")):
            time.sleep(900)

    sleeps()

with DAG("secretive", schedule=None, start_date=START):

    @task
    def speaks():
        connection = BaseHook.get_connection("warehouse")
        print("variables:", Variable.get("api_token"), Variable.get("plain"))
        print("connection:", connection.host, connection.password)
        print("region:", Variable.get("region", default="unknown"))
        print("environment:", os.environ.get("PARTNER_API_KEY"), os.environ.get("PARTNER_NAME"))

    speaks()
