"""A sensor that waits for a Variable. Between two looks it occupies no container and costs nothing."""

from airflow.sdk import Variable, dag, task


@dag(schedule=None, tags=["example"])
def sensor():
    @task.sensor(mode="reschedule", poke_interval=5, timeout=3600)
    def wait_for_approval() -> bool:
        return Variable.get("approved", default=None) == "yes"

    @task
    def publish() -> None:
        print("approved and published")

    wait_for_approval() >> publish()


sensor()
