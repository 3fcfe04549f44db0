"""Mapped API calls: one task for each city of a list, known only when the run is under way.

The Variable `weather_api` is the base URL of the API; `examples/api` has one to try.
"""

import json
from urllib.request import urlopen

from airflow.sdk import Variable, dag, task


@dag(schedule=None, tags=["example"])
def mapped_api_calls():
    @task
    def list_cities() -> list[str]:
        return get("cities.json")

    # At most four calls at once; a call that fails is tried again.
    @task(retries=2, max_active_tis_per_dagrun=4)
    def fetch_temperature(city: str) -> float:
        return get(f"weather/{city}.json")["temperature"]

    @task
    def report(temperatures: list[float]) -> None:
        found = list(temperatures)
        print(f"{len(found)} cities, {sum(found) / len(found):.1f} degrees on average")

    report(fetch_temperature.expand(city=list_cities()))


def get(path: str):
    with urlopen(f"{Variable.get('weather_api')}/{path}", timeout=30) as answer:
        return json.load(answer)


mapped_api_calls()
