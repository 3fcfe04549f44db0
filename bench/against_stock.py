"""DAG runs here and on stock Airflow, in turns: `make bench`."""

from __future__ import annotations

import json
import tempfile
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

from first_light import REPOSITORY, Installation, show
from stock import StockAirflow

DAGS = """
import datetime
from airflow.sdk import DAG, task

def dag(name, **more):
    return DAG(name, schedule=None, start_date=datetime.datetime(2024, 1, 1), **more)

def nothing(name):
    @task(task_id=name)
    def no_op():
        pass
    return no_op()

with dag("chain"):
    tasks = [nothing(f"t{n}") for n in range(10)]
    for one, next_one in zip(tasks, tasks[1:]):
        one >> next_one

with dag("fan_out", max_active_tasks=50):
    for n in range(50):
        nothing(f"t{n}")
"""
ROUNDS = 3


def seconds(run: dict[str, Any], since: str = "queued_at") -> float:
    began, ended = (datetime.fromisoformat(run[name].replace("Z", "+00:00")) for name in (since, "end_date"))
    return (ended - began).total_seconds()


class Ours:
    def __init__(self, home: Path) -> None:
        self.installation = Installation(home)
        self.hops: list[float] = []

    def start(self, dags: Path) -> None:
        config = REPOSITORY / "examples" / "config.yaml"
        self.installation.cli("create", "--env", "bench", "--config", str(config))
        self.installation.cli("dags", "create", "--file", str(dags))

    def run(self, dag_id: str) -> float:
        run = json.loads(self.installation.cli("dags", "trigger", "--dag-id", dag_id, "--wait", "--json"))
        assert run["state"] == "success", run
        if dag_id == "chain":
            tasks = sorted(run["task_instances"], key=lambda task: str(task["start_date"]))
            moments = [
                tuple(datetime.fromisoformat(task[name]) for name in ("start_date", "end_date")) for task in tasks
            ]
            self.hops += [(later[0] - earlier[1]).total_seconds() for earlier, later in pairwise(moments)]
        return seconds(run)

    def stop(self) -> None:
        self.installation.cli("daemon", "stop")


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="asb-") as folder:
        file = Path(folder, "bench_dags.py")
        file.write_text(DAGS)
        stock, ours = StockAirflow(Path(folder, "stock")), Ours(Path(folder, "ours"))
        (stock.dags / file.name).write_text(DAGS)
        try:
            stock.start()
            ours.start(file)
            for dag_id in ("chain", "fan_out"):
                stock.wait_for_dag(dag_id)
                # Once without measuring: what is warm afterwards is what is compared.
                stock.wait(dag_id, stock.trigger(dag_id))
                ours.run(dag_id)
                theirs, mine = [], []
                for _ in range(ROUNDS):
                    theirs.append(seconds(stock.wait(dag_id, stock.trigger(dag_id))))
                    mine.append(ours.run(dag_id))
                show(f"{dag_id}: stock Airflow, LocalExecutor", median(theirs), "s")
                show(f"{dag_id}: here", median(mine), "s")
                show(f"{dag_id}: here / stock", median(mine) / median(theirs), "x")
            show("hop from task to task, warm", median(ours.hops), "s")
        finally:
            ours.stop()
            stock.stop()


if __name__ == "__main__":
    main()
