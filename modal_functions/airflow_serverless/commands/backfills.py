"""Commands about backfills, with Airflow's own functions, so that the same runs come of them as on stock Airflow."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from airflow_serverless.commands.command import CommandError, Request, Result, date, live_dag
from airflow_serverless.commands.tasks import reruns_latest

if TYPE_CHECKING:
    from airflow.models.backfill import Backfill
    from sqlalchemy.orm import Session

MOST_RUNS = 1000
"""All runs of a backfill are made in one tick, which others wait for."""
DEFAULT_ACTIVE_RUNS = 10


def create(request: Request) -> Result:
    """Create a backfill and queue its runs.

    Request: `dag_id`, `from_date`, `to_date` (ISO 8601, inclusive); optional `run_backwards`, `dag_run_conf`,
    `reprocess_behavior` (none, failed or completed), `max_active_runs`, `run_on_latest_version`.

    Returns the `id` of the backfill.
    """
    from airflow.models.backfill import _create_backfill
    from airflow.models.serialized_dag import SerializedDagModel
    from airflow.utils.session import create_session

    wanted = _wanted(request)
    most_active = DEFAULT_ACTIVE_RUNS if request.get("max_active_runs") is None else int(request["max_active_runs"])
    if most_active < 1:
        raise CommandError("max_active_runs must be 1 or more")
    latest = request.get("run_on_latest_version")
    if latest is None:
        with create_session() as session:
            dag = SerializedDagModel.get_dag(wanted["dag_id"], session=session)
            latest = dag is None or reruns_latest(dag, fallback=True)
    with _explained():
        backfill = _create_backfill(
            **wanted, max_active_runs=most_active, triggering_user_name=None, run_on_latest_version=bool(latest)
        )
    return {"id": backfill.id}


def dry_run(request: Request) -> Result:
    """List the runs that `create` would queue for the same request.

    Returns `backfills`: the `logical_date` of each, or its `partition_key` and `partition_date`.
    """
    from airflow.models.backfill import _do_dry_run
    from airflow.utils.session import create_session

    wanted = _wanted(request)
    with _explained(), create_session() as session:
        runs = [
            {
                "logical_date": run.logical_date and run.logical_date.isoformat(),
                "partition_key": run.partition_key,
                "partition_date": run.partition_date and run.partition_date.isoformat(),
            }
            for run in _do_dry_run(**wanted, session=session)
        ]
    return {"backfills": runs, "total_entries": len(runs)}


def pause(request: Request) -> Result:
    """`backfill_id`: begin none of its runs that are queued."""
    return _set_paused(request["backfill_id"], True)


def unpause(request: Request) -> Result:
    """`backfill_id`: begin its runs again."""
    return _set_paused(request["backfill_id"], False)


def cancel(request: Request) -> Result:
    """`backfill_id`: fail its runs that are queued, and let another backfill begin. Runs that have begun go on.

    As with Airflow, a backfill that is completed and paused is one that was cancelled.
    """
    from airflow._shared.timezones import timezone
    from airflow.models.backfill import BackfillDagRun
    from airflow.models.dagrun import DagRun
    from airflow.utils.session import create_session
    from airflow.utils.state import DagRunState
    from sqlalchemy import select, update

    with create_session() as session:
        backfill = _unfinished(request["backfill_id"], session)
        runs = select(BackfillDagRun.dag_run_id).where(BackfillDagRun.backfill_id == backfill.id)
        session.execute(
            update(DagRun)
            .where(DagRun.id.in_(runs), DagRun.state == DagRunState.QUEUED)
            .values(state=DagRunState.FAILED)
            .execution_options(synchronize_session=False)
        )
        backfill.is_paused = True
        backfill.completed_at = timezone.utcnow()
    return {"id": request["backfill_id"]}


def _wanted(request: Request) -> dict[str, Any]:
    """What both of Airflow's functions take. A range with more runs than a tick can make is refused."""
    from airflow.models.backfill import ReprocessBehavior
    from airflow.models.serialized_dag import SerializedDagModel
    from airflow.utils.session import create_session

    dag_id, from_date, to_date = request["dag_id"], date(request["from_date"]), date(request["to_date"])
    behavior = request.get("reprocess_behavior") or "none"
    if behavior not in [known.value for known in ReprocessBehavior]:
        raise CommandError(f"reprocess_behavior cannot be {behavior!r}: use none, failed or completed")
    with create_session() as session:
        live_dag(dag_id, session)
        dag = SerializedDagModel.get_dag(dag_id, session=session)
    if dag is not None and dag.timetable.periodic:
        runs = itertools.islice(dag.iter_dagrun_infos_between(from_date, to_date), MOST_RUNS + 1)
        if len(list(runs)) > MOST_RUNS:
            raise CommandError(
                f"DAG {dag_id!r} has more than {MOST_RUNS} runs from {from_date.isoformat()} to "
                f"{to_date.isoformat()}: make several backfills, one after the other"
            )
    return {
        "dag_id": dag_id,
        "from_date": from_date,
        "to_date": to_date,
        "reverse": bool(request.get("run_backwards")),
        "dag_run_conf": request.get("dag_run_conf"),
        "reprocess_behavior": ReprocessBehavior(behavior),
    }


@contextlib.contextmanager
def _explained() -> Iterator[None]:
    """Airflow's refusals, in its words."""
    from airflow.exceptions import AirflowException, DagNotFound
    from airflow.models.backfill import AlreadyRunningBackfill, NoBackfillRunsToCreate

    try:
        yield
    except DagNotFound as error:
        raise CommandError(str(error), "not_found") from error
    except AlreadyRunningBackfill as error:
        raise CommandError(str(error), "conflict") from error
    except (AirflowException, NoBackfillRunsToCreate) as error:
        raise CommandError(str(error)) from error


def _set_paused(backfill_id: int, paused: bool) -> Result:
    from airflow.utils.session import create_session

    with create_session() as session:
        _unfinished(backfill_id, session).is_paused = paused
    return {"id": backfill_id}


def _unfinished(backfill_id: int, session: Session) -> Backfill:
    from airflow.models.backfill import Backfill

    backfill = session.get(Backfill, backfill_id)
    if backfill is None:
        raise CommandError(f"there is no backfill {backfill_id}", "not_found")
    if backfill.completed_at is not None:
        state = "cancelled" if backfill.is_paused else "completed"
        raise CommandError(f"backfill {backfill_id} is {state}", "conflict")
    return backfill
