"""What a running task waits for each write, and how soon other running tasks see it: `make bench`."""

from __future__ import annotations

import json
from statistics import median

from first_light import show

from environment import DATABASES, Environment, deployed
from local_modal import wait_until

WRITES = 200
SIGHTS = 5
DAG = f"""
import json, time
from datetime import datetime
from pathlib import Path
from airflow.sdk import DAG, Variable, get_current_context, task

with DAG("costs", schedule=None, start_date=datetime(2026, 1, 1)):
    @task
    def writes():
        context = get_current_context()
        kinds = {{
            "task state": lambda number: context["task_state_store"].set("key", number),
            "variable": lambda number: Variable.set("key", str(number)),
            "XCom": lambda number: context["ti"].xcom_push("key", number),
        }}
        seconds = {{kind: [] for kind in kinds}}
        for kind, write in kinds.items():
            for number in range({WRITES}):
                began = time.monotonic()
                write(number)
                seconds[kind].append(time.monotonic() - began)
        Path(context["dag_run"].conf["book"]).write_text(json.dumps(seconds))

    writes()

with DAG("sights", schedule=None, start_date=datetime(2026, 1, 1)):
    @task
    def tells():
        for number in range({SIGHTS}):
            Variable.set("told", f"{{number}} {{time.time()}}")
            while not Variable.get(f"seen_{{number}}", None):
                time.sleep(0.05)

    @task
    def sees():
        seconds = []
        for number in range({SIGHTS}):
            while not (told := Variable.get("told", "")).startswith(f"{{number}} "):
                time.sleep(0.05)
            seconds.append(time.time() - float(told.split()[1]))
            Variable.set(f"seen_{{number}}", "yes")
        Path(get_current_context()["dag_run"].conf["book"]).write_text(json.dumps(seconds))

    tells(), sees()
"""
ENDED = "SELECT 1 FROM dag_run WHERE run_id = ? AND state = 'success'"


def run(environment: Environment, dag_id: str) -> None:
    book = environment.modal.root / dag_id
    environment.command(dag_id, kind="trigger", dag_id=dag_id, run_id=dag_id, conf={"book": str(book)})
    environment.call("run_tick", "bench")
    wait_until(book.exists, "the tasks", 120)
    wait_until(lambda: environment.query(ENDED, dag_id), "the end of the run", 60)


def main() -> None:
    for database in DATABASES:
        with deployed(database) as environment:
            environment.upload("writes.py", DAG)
            for dag_id in ("costs", "sights"):
                run(environment, dag_id)
            books = [json.loads((environment.modal.root / dag_id).read_text()) for dag_id in ("costs", "sights")]
            for kind, seconds in books[0].items():
                show(f"a write of a running task ({kind}), {database}", 1000 * median(seconds), "ms")
            show(f"until another running task sees it, {database}", median(books[1]), "s")


if __name__ == "__main__":
    main()
