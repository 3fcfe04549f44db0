"""Commands about task instances, with Airflow's own functions, so that states end as on stock Airflow.

A running task that is cleared becomes `restarting`, one that is marked gets its state at once; its call is found
unwanted by the next look at the Dict and is cancelled.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from airflow_serverless.commands.command import CommandError, Request, Result, run_with_dag

if TYPE_CHECKING:
    from airflow.models.taskinstance import TaskInstance
    from airflow.serialization.definitions.dag import SerializedDAG
    from sqlalchemy.orm import Session

MARKS = ("success", "failed", "skipped")


def clear(request: Request) -> Result:
    """Clear tasks so that they rerun.

    Request: `dag_id`, `run_id`, `task_id`; optional `map_index`, `include_upstream`, `include_downstream`,
    `only_failed`. Returns the cleared tasks.
    """
    from airflow.utils.session import create_session

    with create_session() as session:
        run, dag = run_with_dag(request["dag_id"], request["run_id"], session)
        check_exists(request, dag, session)
        options: dict[str, Any] = {
            "task_ids": _with_relatives(request, dag, session),
            "run_id": run.run_id,
            "only_failed": bool(request.get("only_failed")),
            "session": session,
        }
        cleared = instances(dag.clear(dry_run=True, **options))
        dag.clear(run_on_latest_version=reruns_latest(dag), **options)
    return {"task_instances": cleared}


def mark(request: Request) -> Result:
    """Set the state of tasks; failed tasks downstream of them rerun.

    Request: `dag_id`, `run_id`, `task_id`, `new_state`; optional `map_index`, `include_upstream`,
    `include_downstream`. Returns the tasks whose state was set.
    """
    from airflow.utils.session import create_session
    from airflow.utils.state import TaskInstanceState

    task_id, state, map_index = request["task_id"], request["new_state"], request.get("map_index")
    if state not in MARKS:
        raise CommandError(f"a task cannot be marked {state!r}: use {', '.join(MARKS)}")
    with create_session() as session:
        run, dag = run_with_dag(request["dag_id"], request["run_id"], session)
        check_exists(request, dag, session)
        changed = dag.set_task_instance_state(
            task_id=task_id,
            map_indexes=None if map_index is None else [map_index],
            run_id=run.run_id,
            state=TaskInstanceState(state),
            upstream=bool(request.get("include_upstream")),
            downstream=bool(request.get("include_downstream")),
            commit=True,
            session=session,
        )
        if not changed:
            raise CommandError(f"task {task_id!r} of run {run.run_id!r} is {state} already", "conflict")
        return {"task_instances": instances(changed)}


def instances(found: Iterable[TaskInstance]) -> list[Result]:
    """How a reply names task instances: [{"task_id", "map_index"}]."""
    return [{"task_id": ti.task_id, "map_index": ti.map_index} for ti in found]


def reruns_latest(dag: SerializedDAG, fallback: bool = False) -> bool:
    """Whether cleared tasks run in the newest version of the DAG, as the DAG or the configuration wants it."""
    from airflow.configuration import conf

    wanted = dag.rerun_with_latest_version
    return conf.getboolean("core", "rerun_with_latest_version", fallback=fallback) if wanted is None else bool(wanted)


def check_exists(request: Request, dag: SerializedDAG, session: Session) -> None:
    """Refuse a request for a task, or an index of a mapped one, that is not there."""
    from airflow.models.taskinstance import TaskInstance
    from sqlalchemy import select

    task_id, map_index = request["task_id"], request.get("map_index")
    if not dag.has_task(task_id):
        known = ", ".join(sorted(dag.task_ids))
        raise CommandError(f"DAG {dag.dag_id!r} has no task {task_id!r}; its tasks: {known}", "not_found")
    query = select(TaskInstance.map_index).where(
        TaskInstance.dag_id == dag.dag_id, TaskInstance.run_id == request["run_id"], TaskInstance.task_id == task_id
    )
    found = sorted(session.scalars(query))
    if map_index is not None and map_index not in found:
        known = "it is not mapped" if found == [-1] else f"it has the indexes {', '.join(map(str, found)) or '(none)'}"
        raise CommandError(f"task {task_id!r} has no map index {map_index} in this run: {known}", "not_found")


def _with_relatives(request: Request, dag: SerializedDAG, session: Session) -> list[str | tuple[str, int]]:
    """The task, with those above and below it that are asked for; of mapped ones the indexes that belong to it."""
    from airflow.models.taskinstance import find_relevant_relatives

    task_id, map_index = request["task_id"], request.get("map_index")
    normal: set[str] = {task_id} if map_index is None else set()
    mapped: set[tuple[str, int]] = set() if map_index is None else {(task_id, map_index)}
    for direction in ("upstream", "downstream"):
        if not request.get(f"include_{direction}"):
            continue
        for relative in find_relevant_relatives(
            normal,
            mapped,
            dag=dag,
            run_id=request["run_id"],
            direction=direction,
            session=session,
        ):
            if isinstance(relative, tuple):
                mapped.add(relative)
            else:
                normal.add(relative)
    return [*normal, *(pair for pair in mapped if pair[0] not in normal)]
