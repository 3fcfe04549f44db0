"""What a warm tick takes when there is nothing to do, and what 200 unchanged DAG files add to it: `make bench`."""

from __future__ import annotations

import json
from statistics import median

from first_light import show

from environment import deployed

FILES = 200
ROUNDS = 20
DAG = """
import datetime
from airflow.sdk import DAG
from airflow.providers.standard.operators.empty import EmptyOperator
with DAG({name!r}, schedule=None, start_date=datetime.datetime(2024, 1, 1)):
    EmptyOperator(task_id="nothing")
"""
# What is due runs a tick even if no news has come. The seconds are those of the function, without the call.
TICKS = f"""
state = modal.Dict.from_name("airflow-state-test")
tick = modal.Function.from_name("airflow-serverless-test", "run_tick")
seconds = []
for _ in range({ROUNDS}):
    state["due"] = {{**state["due"], "next_due": 0.0}}
    done = tick.remote("bench")
    assert done["rounds"] == 1 and done["launched"] == done["parsed"] == 0, done
    seconds.append(done["seconds"])
answer(seconds)
"""


def main() -> None:
    medians = {}
    for files in (1, FILES):
        with deployed("sqlite") as environment:
            sources = {f"dag_{number}.py": DAG.format(name=f"dag_{number}") for number in range(files)}
            environment.modal.sdk(f"""
            import io
            with modal.Volume.from_name("airflow-dags-test").batch_upload() as batch:
                for name, source in json.loads({json.dumps(sources)!r}).items():
                    batch.put_file(io.BytesIO(source.encode()), "/dags/" + name)
            """)
            parsed = environment.call("run_tick", "bench")["parsed"]
            assert parsed == files, parsed
            medians[files] = median(environment.modal.sdk(TICKS))
    show("tick with nothing to do, warm", medians[1], "s")
    show(f"what {FILES} unchanged DAG files add to it", medians[FILES] - medians[1], "s")


if __name__ == "__main__":
    main()
