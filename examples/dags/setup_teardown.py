"""Setup and teardown: the cluster is deleted whether or not the work on it has succeeded."""

from airflow.sdk import dag, setup, task, teardown


@dag(schedule=None, params={"fail": False}, tags=["example"])
def setup_teardown():
    @setup
    def create_cluster(run_id: str) -> str:
        print("cluster created")
        return f"cluster of {run_id}"

    @task
    def compute(cluster: str, params) -> int:
        if params["fail"]:
            raise ValueError(f"the work on the {cluster} failed")
        return 42

    @teardown
    def delete_cluster(cluster: str) -> None:
        print(f"{cluster} deleted")

    cluster = create_cluster()
    compute(cluster) >> delete_cluster(cluster)


setup_teardown()
