"""One tick of Airflow's own scheduler: its maintenance and its passes, without its endless loop."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from airflow.jobs.job import Job, JobState

from airflow_serverless.scheduler.runner import ContainedRunner

if TYPE_CHECKING:
    from airflow.models.dagbag import DBDagBag

    from airflow_serverless.executor.modal_executor import ModalExecutor
    from airflow_serverless.quarantine import Quarantine

MOST_PASSES = 50
TIDY_UP_SECONDS = 10.0
"""More often than Airflow's own scheduler does."""


class Tick:
    """Airflow's scheduler on one executor."""

    _tidied_up_at: ClassVar[float] = -math.inf
    """When this process last did what nobody waits for."""

    def __init__(self, executor: ModalExecutor, quarantine: Quarantine) -> None:
        from airflow.callbacks.database_callback_sink import DatabaseCallbackSink

        self._executor = executor
        self.last_pass_at = time.time()
        """When the last pass began, in seconds since the epoch."""
        self._runner = ContainedRunner(_persistent_job(), executor, quarantine)
        self._runner._parallelism = executor.parallelism
        executor.job_id = self._runner.job.id
        executor.callback_sink = DatabaseCallbackSink()
        executor.start()

    @property
    def dag_bag(self) -> DBDagBag:
        """The DAGs of the runs that this tick has scheduled."""
        return self._runner.scheduler_dag_bag

    def maintain(self, standstill: float) -> None:
        """Run the maintenance that Airflow's scheduler does by timers: a tick ends before they would fire.

        A task that is queued for long is stuck only after as long a `standstill`, in seconds, of all tasks.
        """
        runner = self._runner
        runner.forget_ended()
        runner.step("trigger timeouts", runner.check_trigger_timeouts)
        runner.step("timeouts of input", runner.check_awaiting_input_timeouts)
        runner.step("removed tasks", _forget_waits_of_removed)
        runner.step("tasks without heartbeats", runner._find_and_purge_task_instances_without_heartbeats)
        if standstill > runner._task_queued_timeout:
            runner.step("tasks stuck in queued", runner._handle_tasks_stuck_in_queued)
        now = time.monotonic()
        if now - Tick._tidied_up_at >= TIDY_UP_SECONDS:
            Tick._tidied_up_at = now
            runner.step("orphaned tasks", runner.adopt_or_reset_orphaned_tasks)
            runner.step("runs of paused DAGs", runner._update_dag_run_state_for_paused_dags)
            runner.step("orphaned assets", runner._update_asset_orphanage)
            runner.step("unreferenced triggers", runner._remove_unreferenced_triggers)

    def run_until_quiet(self) -> bool:
        """Make passes until they lead to nothing any more; False if there were too many of them.

        A pass schedules and queues what can be, up to limits of its own. What it settles besides (a run that is new or
        over, tasks that are skipped, mapped or failed by an event) is for the next one to go on from.
        """
        before = _Progress.now()
        for _ in range(MOST_PASSES):
            count = self._pass()
            after = _Progress.now()
            may_queue_more = count > 0 and after.waiting > 0 and self._executor.slots_available > 0
            if after == before and not may_queue_more:
                break
            before = after
        else:
            return False
        # Another backfill of the DAG may begin, and people wait for it: this is not put off to the next tidying up.
        self._runner.step("completed backfills", self._mark_backfills_complete)
        return True

    def _mark_backfills_complete(self) -> None:
        """As Airflow does, but unpause those that are completed now: a backfill that is both counts as cancelled."""
        from airflow.models.backfill import Backfill
        from airflow.utils.session import create_session
        from sqlalchemy import select

        with create_session() as session:
            paused = session.scalars(
                select(Backfill).where(Backfill.completed_at.is_(None), Backfill.is_paused.is_(True))
            ).all()
            self._runner._mark_backfills_complete(session=session)
            for backfill in paused:
                backfill.is_paused = backfill.completed_at is None

    def _pass(self) -> int:
        runner, executor = self._runner, self._executor
        self.last_pass_at = time.time()
        runner._dag_id_to_team_name = {}
        queued = runner.schedule()
        executor.heartbeat()
        runner.process_events()
        runner.step("logs of task events", self._log_task_events)
        runner.step("missed deadlines", _handle_missed_deadlines)
        runner.step("callbacks", self._enqueue_callbacks)
        return queued

    def _log_task_events(self) -> None:
        from airflow.utils.session import create_session

        with create_session() as session:
            self._runner._process_task_event_logs(self._executor._task_event_logs, session)

    def _enqueue_callbacks(self) -> None:
        from airflow.utils.session import create_session

        with create_session() as session:
            self._runner._enqueue_executor_callbacks(session)


def _persistent_job() -> Job:
    """The one job row that all ticks share.

    Airflow looks for lost tasks among those that its own job queued: with a job per tick it would find none.
    """
    from airflow._shared.timezones import timezone
    from airflow.configuration import conf
    from airflow.utils.session import create_session
    from sqlalchemy import select
    from sqlalchemy.orm import make_transient

    with create_session() as session:
        job = session.scalar(select(Job).where(Job.job_type == "SchedulerJob").order_by(Job.id).limit(1))
        if job is None:
            job = Job(job_type="SchedulerJob")
            session.add(job)
        job.state = JobState.RUNNING
        job.end_date = None
        job.latest_heartbeat = timezone.utcnow()
        session.commit()
        session.refresh(job)
        make_transient(job)
    # A job that is loaded does not pass through the constructor, which sets these.
    job.max_tis_per_query = conf.getint("scheduler", "max_tis_per_query")
    job.heartbeat_failed = False
    job.previous_heartbeat = None
    return job


@dataclass(frozen=True)
class _Progress:
    """What changes when a pass has done something that another pass can go on from."""

    runs: list[str]
    """State, number and newest of the runs in each state."""
    tasks: list[tuple[str, int]]
    """State and number of tasks, where those that have not been started are one state."""
    waiting: int = field(compare=False)
    """Tasks that are scheduled, but not queued."""

    @classmethod
    def now(cls) -> _Progress:
        from airflow.models import DagRun, TaskInstance
        from airflow.utils.session import create_session
        from airflow.utils.state import TaskInstanceState
        from sqlalchemy import func, select

        runs = select(DagRun.state, func.count(), func.max(DagRun.id)).group_by(DagRun.state)
        tasks = select(TaskInstance.state, func.count()).group_by(TaskInstance.state)
        with create_session() as session:
            found = sorted(map(str, session.execute(runs).all()))
            numbers = {state: int(number) for state, number in session.execute(tasks).all()}
        waiting = numbers.get(TaskInstanceState.SCHEDULED, 0)
        ahead = sum(numbers.pop(state, 0) for state in (None, TaskInstanceState.SCHEDULED, TaskInstanceState.QUEUED))
        states = sorted([("ahead", ahead), *((str(state), number) for state, number in numbers.items())])
        return cls(found, states, waiting)


def _handle_missed_deadlines() -> None:
    from airflow._shared.timezones import timezone
    from airflow.models.deadline import Deadline
    from airflow.utils.session import create_session
    from sqlalchemy import select

    with create_session() as session:
        missed = select(Deadline).where(Deadline.deadline_time < timezone.utcnow()).where(~Deadline.missed)
        for deadline in session.scalars(missed):
            deadline.handle_miss(session)


def _forget_waits_of_removed() -> None:
    """Let tasks that were deleted from their DAG begin anew if they come back.

    Airflow would go on with what was to follow their trigger or answer, as if that had come.
    """
    from airflow.models.taskinstance import TaskInstance
    from airflow.utils.session import create_session
    from airflow.utils.state import TaskInstanceState
    from sqlalchemy import update

    with create_session() as session:
        session.execute(
            update(TaskInstance)
            .where(TaskInstance.state == TaskInstanceState.REMOVED, TaskInstance.next_method.is_not(None))
            .values(next_method=None, next_kwargs=None, trigger_id=None, trigger_timeout=None)
        )
