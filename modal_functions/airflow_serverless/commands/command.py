"""What the handlers of commands share: their form, their refusals, and how they find DAGs and runs."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from airflow.models.dag import DagModel
    from airflow.models.dagrun import DagRun
    from airflow.serialization.definitions.dag import SerializedDAG
    from sqlalchemy.orm import Session

Request = Mapping[str, Any]
Result = dict[str, Any]
Handler = Callable[[Request], Result]
"""Takes the fields of the command, returns the `result` of the reply; raises CommandError, KeyError if one lacks."""

Reason = Literal["invalid", "not_found", "conflict"]


class CommandError(Exception):
    """The command cannot be carried out; the message is for the user."""

    def __init__(self, message: str, reason: Reason = "invalid") -> None:
        super().__init__(message)
        self.reason: Reason = reason


def live_dag(dag_id: str, session: Session) -> DagModel:
    """The DAG, if it is in a file; a stale one cannot be scheduled any more."""
    from airflow.models.dag import DagModel

    dag = session.get(DagModel, dag_id)
    if dag is None or dag.is_stale:
        raise CommandError(f"there is no DAG {dag_id!r}", "not_found")
    return dag


def run_with_dag(dag_id: str, run_id: str, session: Session) -> tuple[DagRun, SerializedDAG]:
    """A run, and its DAG in the version that the run has."""
    from airflow.models.dagbag import DBDagBag
    from airflow.models.dagrun import DagRun
    from sqlalchemy import select

    live_dag(dag_id, session)
    run = session.scalar(select(DagRun).where(DagRun.dag_id == dag_id, DagRun.run_id == run_id))
    if run is None:
        raise CommandError(f"DAG {dag_id!r} has no run {run_id!r}", "not_found")
    dag = DBDagBag(load_op_links=False).get_dag_for_run(dag_run=run, session=session)
    if dag is None:
        raise CommandError(f"DAG {dag_id!r} is not known in the version of run {run_id!r}: upload its file again")
    return run, dag


def date(text: str) -> datetime.datetime:
    """A moment in ISO 8601; in UTC if it does not say."""
    try:
        moment = datetime.datetime.fromisoformat(text)
    except (TypeError, ValueError) as error:
        raise CommandError(f"not a date in ISO 8601: {text!r}") from error
    return moment if moment.tzinfo else moment.replace(tzinfo=datetime.UTC)


def page(model: Any, name: Any, request: Request, session: Session) -> tuple[list[Any], int]:
    """(rows in the order of their names from `offset` on, at most `limit`; how many there are)."""
    from sqlalchemy import func, select

    rows = session.scalars(select(model).order_by(name).limit(request["limit"]).offset(request["offset"]))
    return list(rows), session.scalar(select(func.count()).select_from(model)) or 0


def select_existing(name: Any, wanted: Iterable[str], request: Request, noun: str, session: Session) -> frozenset[str]:
    """Names to be left alone because they exist: none if they are to be overwritten. Refuses them if told to."""
    from sqlalchemy import select

    action = request.get("action_on_existing_key") or "overwrite"
    if action == "overwrite":
        return frozenset()
    existing = frozenset(session.scalars(select(name).where(name.in_(list(wanted)))))
    if action == "fail" and existing:
        raise CommandError(f"{noun} that exist already: {', '.join(sorted(existing))}; nothing was written", "conflict")
    return existing


def valid_name(name: str, most: int, noun: str) -> str:
    """The name of a variable or pool: stock Airflow takes any text.

    Raises CommandError for one that is empty, too long for PostgreSQL, or that no task could ask for.
    """
    if not 1 <= len(name) <= most:
        raise CommandError(f"the name of a {noun} must have 1 to {most} characters, not {len(name)}")
    if "\n" in name or "\0" in name:
        raise CommandError(f"{noun} {name!r}: a name must have no line break and no NUL, as no task could ask for it")
    return name
