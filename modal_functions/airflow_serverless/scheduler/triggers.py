"""Deferred tasks, from the scheduler's side: says what a triggerer has to run, and applies what came of it."""

from __future__ import annotations

import json
import time
import traceback
from typing import TYPE_CHECKING

from airflow_serverless.executor.launcher import Launcher
from airflow_serverless.state import TRIGGERER, TRIGGERS, Inbox, State, TriggererNote, Triggers

if TYPE_CHECKING:
    from airflow.jobs.job import Job
    from airflow.triggers.base import TriggerEvent
    from sqlalchemy.orm import Session

LEASE_SECONDS = 60.0
"""A triggerer that was not heard of for so long is gone."""


def apply_events(inbox: Inbox) -> list[str]:
    """Resume or fail the tasks whose triggers fired; returns the keys to remove once this is committed."""
    from airflow.models.trigger import Trigger
    from airflow.utils.session import create_session

    with create_session() as session:
        for record in sorted(inbox.events.values(), key=lambda record: record["at"]):
            trigger = session.get(Trigger, record["trigger_id"])
            if trigger is None or trigger.created_date.isoformat() != record["created"]:
                continue
            failure = record["traceback"] if record["event"] is None else _submit(trigger.id, record["event"], session)
            if failure is not None:
                Trigger.submit_failure(trigger.id, failure, session=session)
            session.flush()
    return list(inbox.events)


def _submit(trigger_id: int, event: str, session: Session) -> list[str] | None:
    """Resume the tasks that wait for the trigger; returns the lines of a traceback if the event is not usable."""
    from airflow.models.trigger import Trigger

    from airflow_serverless.dags.write import printable
    from airflow_serverless.quarantine import is_systemic

    try:
        with session.begin_nested():
            Trigger.submit_event(trigger_id, _decode(event), session=session)
    except BaseException as error:
        if is_systemic(error):
            raise
        return [printable(line) for line in traceback.format_exception(error)]
    return None


def _decode(text: str) -> TriggerEvent:
    from airflow.sdk.serde import deserialize
    from airflow.triggers.base import DiscrimatedTriggerEvent
    from pydantic import TypeAdapter

    event: TriggerEvent = TypeAdapter(DiscrimatedTriggerEvent).validate_python(deserialize(json.loads(text)))
    return event


def wanted() -> dict[int, str]:
    """{id: when it was created} of all triggers that something waits for; forgets the others."""
    from airflow.models.trigger import Trigger
    from airflow.utils.session import create_session
    from sqlalchemy import select, update

    with create_session() as session:
        if session.scalar(select(Trigger.id).limit(1)) is None:
            return {}
        Trigger.clean_unused(session=session)
        # The UI finds the logs of a trigger by the job that ran it.
        session.execute(update(Trigger).values(triggerer_id=_job(session).id))
        rows = session.execute(select(Trigger.id, Trigger.created_date)).all()
        return {trigger_id: created.isoformat() for trigger_id, created in rows}


def triggerer_job() -> Job:
    """The one job row that all triggerers share."""
    from airflow.utils.session import create_session

    with create_session() as session:
        job = _job(session)
        session.flush()
        session.expunge(job)
        return job


def _job(session: Session) -> Job:
    from airflow._shared.timezones import timezone
    from airflow.jobs.job import Job, JobState
    from sqlalchemy import select

    job = session.scalar(select(Job).where(Job.job_type == "TriggererJob").order_by(Job.id).limit(1))
    if job is None:
        job = Job(job_type="TriggererJob")
        session.add(job)
    job.state = JobState.RUNNING
    job.latest_heartbeat = timezone.utcnow()
    session.flush()
    return job


def announce(created: dict[int, str], generation: int, inbox: Inbox, state: State, launcher: Launcher) -> None:
    """Tell the triggerer what to run, and see to it that there is one while there is something to run."""
    told = inbox.triggers["created"] if inbox.triggers else {}
    if created != told:
        triggers: Triggers = {"created": created, "generation": generation}
        state.update({TRIGGERS: triggers})
    # Asked after it was told: a triggerer that ends takes its note away and then looks once more.
    if created and not is_alive(state.triggerer(), time.time()):
        note: TriggererNote = {"call_id": None, "at": time.time()}
        state.update({TRIGGERER: note})
        launcher.spawn_triggerer()


def is_alive(note: TriggererNote | None, now: float) -> bool:
    """Whether a triggerer was heard of lately. Used by the gate: imports nothing heavy."""
    return note is not None and note["at"] > now - LEASE_SECONDS
