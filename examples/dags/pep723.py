# /// script
# requires-python = ">=3.11"
# dependencies = ["sortedcontainers==2.4.0"]
# ///
"""Packages of a DAG file's own: the block above, of PEP 723, says what to install for this file and no other."""

from airflow.sdk import dag, task


@dag(schedule=None, tags=["example"])
def pep723():
    @task
    def slowest(milliseconds: list[int]) -> list[int]:
        from sortedcontainers import SortedList

        found = list(SortedList(milliseconds)[-2:])
        print(f"slowest answers: {found} ms")
        return found

    slowest([120, 950, 80, 430])


pep723()
