import time
from datetime import datetime, timedelta

from airflow.exceptions import AirflowSkipException
from airflow.sdk import DAG, task
from notes import noting, noting_run

EVENTS = ("execute", "success", "failure", "retry", "skipped")
CALLBACKS = {f"on_{event}_callback": noting(event) for event in EVENTS}
START = datetime(2026, 1, 1)


def broken(context):
    raise RuntimeError("a callback that fails changes nothing")


with DAG(
    "callbacks", schedule=None, start_date=START, default_args={**CALLBACKS, "retry_delay": timedelta(seconds=0.1)}
):

    @task(retries=1)
    def second_time(ti=None):
        if ti.try_number == 1:
            raise RuntimeError("not yet")

    @task
    def skips():
        raise AirflowSkipException("skipped")

    @task
    def fails():
        raise ValueError("failed")

    @task(on_success_callback=[noting("first"), broken, noting("last")])
    def several():
        return 1

    second_time(), skips(), fails(), several()

for name in ("success", "failure"):
    with DAG(
        f"run_callbacks_{name}",
        schedule=None,
        start_date=START,
        on_success_callback=noting_run("run success"),
        on_failure_callback=[noting_run("run failure"), noting_run("run failure too")],
    ):

        @task
        def ends(name):
            if name == "failure":
                raise ValueError("failed")

        ends(name)

with DAG(
    "run_callbacks_timeout",
    schedule=None,
    start_date=START,
    dagrun_timeout=timedelta(seconds=15),
    on_failure_callback=noting_run("run failure"),
):

    @task(priority_weight=1000)
    def long():
        time.sleep(50)

    long()
