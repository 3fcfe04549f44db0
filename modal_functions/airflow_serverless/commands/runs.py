"""Commands about DAG runs."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING

from airflow_serverless.commands.command import CommandError, Request, Result, date, live_dag, run_with_dag
from airflow_serverless.commands.tasks import instances, reruns_latest

if TYPE_CHECKING:
    from airflow.models.dagrun import DagRun
    from sqlalchemy.orm import Session


def trigger(request: Request) -> Result:
    """`dag_id`, and optionally `run_id`, `logical_date` (ISO 8601), `conf`, `partition_key` → the run that is new."""
    from airflow.exceptions import AirflowException
    from airflow.models.dag import DagModel
    from airflow.utils.session import create_session
    from airflow.utils.types import DagRunType

    logical_date = None if request.get("logical_date") is None else date(request["logical_date"])
    with create_session() as session:
        dag: DagModel = live_dag(request["dag_id"], session)
        if dag.has_import_errors:
            raise CommandError(f"the file of DAG {dag.dag_id!r} does not import; see its import errors")
        if dag.allowed_run_types is not None and DagRunType.MANUAL not in dag.allowed_run_types:
            raise CommandError(f"DAG {dag.dag_id!r} does not allow manual runs")
        _refuse_duplicate(dag.dag_id, request.get("run_id"), logical_date, session)
        is_paused = bool(dag.is_paused)
    try:
        with create_session() as session:
            run = _create(request, logical_date, session)
            return {
                "dag_id": run.dag_id,
                "dag_run_id": run.run_id,
                "state": str(run.state),
                "logical_date": run.logical_date.isoformat() if run.logical_date else None,
                "dag_is_paused": is_paused,
            }
    except (AirflowException, ValueError, TypeError) as error:
        raise CommandError(f"DAG {request['dag_id']!r} was not triggered: {error}") from error


def _create(request: Request, logical_date: datetime.datetime | None, session: Session) -> DagRun:
    """Create a run as Airflow's REST API does.

    The function behind Airflow's CLI gives a run of another day the data interval of today.
    """
    from airflow._shared.timezones import timezone
    from airflow.models.dagbag import DBDagBag
    from airflow.utils.state import DagRunState
    from airflow.utils.types import DagRunTriggeredByType, DagRunType

    dag = DBDagBag(load_op_links=False).get_latest_version_of_dag(request["dag_id"], session=session)
    if dag is None:
        raise CommandError(f"DAG {request['dag_id']!r} has no version in the database: upload its file again")
    at = timezone.coerce_datetime(logical_date)
    # SQLite compares whole seconds: a run of "now" would stay invisible until the next one.
    run_after = timezone.coerce_datetime(timezone.utcnow() - datetime.timedelta(seconds=1))
    interval = dag.timetable.infer_manual_data_interval(run_after=at) if at else None
    run_id = request.get("run_id") or dag.timetable.generate_run_id(
        run_type=DagRunType.MANUAL, run_after=run_after, data_interval=interval
    )
    partition_key = request.get("partition_key")
    return dag.create_dagrun(
        run_id=run_id,
        logical_date=at,
        data_interval=interval,
        run_after=run_after,
        conf=request.get("conf"),
        run_type=DagRunType.MANUAL,
        triggered_by=DagRunTriggeredByType.CLI,
        state=DagRunState.QUEUED,
        partition_key=partition_key,
        partition_date=dag.timetable.resolve_partition_date(partition_key),
        session=session,
    )


def clear(request: Request) -> Result:
    """`dag_id`, `run_id`, optionally `only_failed`: let tasks of the run run again → those that will."""
    from airflow.utils.session import create_session

    with create_session() as session:
        run, dag = run_with_dag(request["dag_id"], request["run_id"], session)
        only_failed = bool(request.get("only_failed"))
        found = dag.clear(run_id=run.run_id, only_failed=only_failed, dry_run=True, session=session)
        cleared = instances(found)
        dag.clear(
            run_id=run.run_id,
            only_failed=only_failed,
            run_on_latest_version=reruns_latest(dag),
            session=session,
        )
    return {"task_instances": cleared}


def mark(request: Request) -> Result:
    """`dag_id`, `run_id`, `state` (success, failed or queued) → the tasks whose state changed with that of the run."""
    from airflow.api.common import mark_tasks
    from airflow.utils.session import create_session

    with create_session() as session:
        run, dag = run_with_dag(request["dag_id"], request["run_id"], session)
        if request["state"] == "success":
            changed, _ = mark_tasks.set_dag_run_state_to_success(
                dag=dag, run_id=run.run_id, commit=True, session=session
            )
        elif request["state"] == "failed":
            changed, _ = mark_tasks.set_dag_run_state_to_failed(
                dag=dag, run_id=run.run_id, commit=True, session=session
            )
        elif request["state"] == "queued":
            changed = mark_tasks.set_dag_run_state_to_queued(dag=dag, run_id=run.run_id, commit=True, session=session)
        else:
            raise CommandError(f"a run cannot be marked {request['state']!r}: use success, failed or queued")
        return {"task_instances": instances(changed)}


def _refuse_duplicate(
    dag_id: str, run_id: str | None, logical_date: datetime.datetime | None, session: Session
) -> None:
    from airflow.models.dagrun import DagRun
    from sqlalchemy import select

    for column, value in ((DagRun.run_id, run_id), (DagRun.logical_date, logical_date)):
        query = select(DagRun.run_id).where(DagRun.dag_id == dag_id, column == value)
        if value is not None and (existing := session.scalar(query)):
            message = f"DAG {dag_id!r} has a run {existing!r} with this id or logical date already"
            raise CommandError(message, "conflict")
