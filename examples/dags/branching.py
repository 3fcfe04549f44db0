"""Branching: a task chooses which of the next ones run, by the parameter `amount` of the run."""

from airflow.sdk import Param, dag, task


@dag(schedule=None, params={"amount": Param(50, type="number")}, tags=["example"])
def branching():
    @task.branch
    def choose(params) -> str:
        return "approve" if params["amount"] <= 100 else "ask_manager"

    @task
    def approve() -> None:
        print("approved")

    @task
    def ask_manager() -> None:
        print("a manager decides")

    # It runs although one of the tasks before it is skipped.
    @task(trigger_rule="none_failed_min_one_success")
    def archive() -> None:
        print("archived")

    choose() >> [approve(), ask_manager()] >> archive()


branching()
