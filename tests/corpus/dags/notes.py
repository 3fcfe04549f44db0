"""Leaves a mark outside of Airflow, for what Airflow's database does not tell: callbacks, and what ran beside what."""

import os
from pathlib import Path


def folder(dag_id, run_id):
    path = Path(os.environ["CORPUS_NOTES"]) / dag_id / run_id
    path.mkdir(parents=True, exist_ok=True)
    return path


def note(dag_id, run_id, text):
    (folder(dag_id, run_id) / text).touch()


def noting(event):
    """A callback that notes `event` for the task, or for the run if it is the DAG's."""

    def callback(context):
        run = context["dag_run"]
        ti = context.get("ti")
        name = f"{event} {ti.task_id} {ti.try_number}" if ti is not None else event
        note(run.dag_id, run.run_id, name)

    return callback


def noting_run(event):
    """A callback of a DAG."""

    def callback(context):
        run = context["dag_run"]
        note(run.dag_id, run.run_id, event)

    return callback


async def missed(context, text):
    """A callback of a deadline: these are found by the name of their module, which that of a DAG file is not."""
    run = context["dag_run"]
    note(run["dag_id"], run["dag_run_id"], text)
