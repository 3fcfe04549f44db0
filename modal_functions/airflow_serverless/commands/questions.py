"""Commands about questions: the requests of human-in-the-loop tasks for input."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from airflow_serverless.commands.command import CommandError, Request, Result, run_with_dag
from airflow_serverless.commands.tasks import check_exists

if TYPE_CHECKING:
    from airflow.models.hitl import HITLDetail
    from airflow.models.taskinstance import TaskInstance
    from sqlalchemy.orm import Session

USER = {"id": "airflow-serverless", "name": "airflow-serverless"}
"""Who has responded, if the request does not say."""


def answer(request: Request) -> Result:
    """Answer the question of a task, which then continues.

    Request: `dag_id`, `run_id`, `task_id`, `chosen_options`; optional `map_index`, `params_input`, `user` ({"id",
    "name"}). Returns the answer.

    Any user may answer, as in Airflow where all users are admins. Unlike Airflow's REST API, it refuses input for which
    the task would fail.
    """
    from airflow._shared.timezones import timezone
    from airflow.models.trigger import handle_event_submit
    from airflow.triggers.base import TriggerEvent
    from airflow.utils.session import create_session
    from airflow.utils.state import TaskInstanceState

    with create_session() as session:
        ti, question = _open_question(request, session)
        question.chosen_options = _options(request["chosen_options"], question)
        question.params_input = _input(request.get("params_input") or {}, question)
        question.responded_by = _user(request.get("user") or USER)
        question.responded_at = timezone.utcnow()
        session.flush()
        # One that is about to wait finds the answer when it does.
        if ti.state != TaskInstanceState.RUNNING:
            handle_event_submit(TriggerEvent(question.as_resume_event_payload()), task_instance=ti, session=session)
        return {
            "dag_id": ti.dag_id,
            "dag_run_id": ti.run_id,
            "task_id": ti.task_id,
            "map_index": ti.map_index,
            "chosen_options": question.chosen_options,
            "params_input": question.params_input,
            "responded_at": question.responded_at.isoformat(),
            "responded_by": question.responded_by,
        }


def _open_question(request: Request, session: Session) -> tuple[TaskInstance, HITLDetail]:
    """The task and its question, locked in the order in which Airflow locks them."""
    from airflow.models.hitl import HITLDetail
    from airflow.models.taskinstance import TaskInstance
    from airflow.utils.state import TaskInstanceState
    from sqlalchemy import select

    run, dag = run_with_dag(request["dag_id"], request["run_id"], session)
    check_exists(request, dag, session)
    task_id, map_index = request["task_id"], request.get("map_index")
    ti = session.scalar(
        select(TaskInstance)
        .where(
            TaskInstance.dag_id == run.dag_id,
            TaskInstance.run_id == run.run_id,
            TaskInstance.task_id == task_id,
            TaskInstance.map_index == (-1 if map_index is None else map_index),
        )
        .with_for_update(of=TaskInstance)
    )
    if ti is None:
        raise CommandError(f"task {task_id!r} is mapped: name the map index whose question to answer")
    question = session.scalar(select(HITLDetail).where(HITLDetail.ti_id == ti.id).with_for_update(of=HITLDetail))
    name = f"task {task_id!r} of run {run.run_id!r}"
    if question is None:
        raise CommandError(f"{name} has asked no question", "not_found")
    if question.response_received:
        by = question.responded_by["name"] if question.responded_by else "the default, after its response_timeout"
        raise CommandError(f"the question of {name} was answered by {by}", "conflict")
    waiting = (TaskInstanceState.AWAITING_INPUT, TaskInstanceState.DEFERRED, TaskInstanceState.RUNNING)
    if ti.state not in waiting:
        raise CommandError(f"{name} does not wait for an answer: its state is {ti.state or 'none'}", "conflict")
    return ti, question


def _options(chosen: Any, question: HITLDetail) -> list[str]:
    if not isinstance(chosen, list) or not chosen:
        raise CommandError("chosen_options must be a list of one option or more")
    options = list(question.options)
    if unknown := [option for option in chosen if option not in options]:
        raise CommandError(f"unknown options: {_listed(unknown)}; choose from {_listed(options)}")
    if len(set(chosen)) < len(chosen):
        raise CommandError("an option is chosen twice")
    if len(chosen) > 1 and not question.multiple:
        raise CommandError(f"the question takes one option only, not {len(chosen)}")
    return chosen


def _input(values: Any, question: HITLDetail) -> dict[str, Any]:
    from airflow.sdk.definitions.param import Param
    from airflow.sdk.exceptions import ParamValidationError

    if not isinstance(values, Mapping):
        raise CommandError("params_input must be an object")
    params: Mapping[str, Any] = question.params or {}
    if unknown := values.keys() - params.keys():
        asked = f"it asks for {_listed(sorted(params))}" if params else "it asks for none"
        raise CommandError(f"the question does not ask for the params {_listed(sorted(unknown))}; {asked}")
    if values and (missing := params.keys() - values.keys()):
        raise CommandError(f"params are missing: {_listed(sorted(missing))}")
    for key, value in values.items():
        schema = params[key].get("schema") if isinstance(params.get(key), Mapping) else None
        try:
            Param(value, **(schema or {})).resolve()
        except ParamValidationError as error:
            # The lines behind the first are the schema.
            reason = str(error).partition("\n")[0].removeprefix(f"Invalid input for param {key}: ")
            raise CommandError(f"param {key!r}: {reason}") from error
    return dict(values)


def _listed(names: Iterable[Any]) -> str:
    return ", ".join(map(repr, names))


def _user(user: Any) -> dict[str, str]:
    try:
        return {"id": str(user["id"]), "name": str(user["name"])}
    except (TypeError, KeyError) as error:
        raise CommandError("user must be an object with an id and a name") from error
