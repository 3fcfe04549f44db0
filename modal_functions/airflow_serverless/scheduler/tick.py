"""One tick of Airflow's own scheduler: its maintenance and its passes, without its endless loop."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from airflow.jobs.job import Job, JobState
from airflow.jobs.scheduler_job_runner import SchedulerJobRunner

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from airflow_serverless.executor.modal_executor import ModalExecutor

MOST_PASSES = 50
TIDY_UP_SECONDS = 10.0
"""More often than Airflow's own scheduler does."""


class Tick:
    """Airflow's scheduler on one executor."""

    _tidied_up_at: ClassVar[float] = -math.inf
    """When this process last did what nobody waits for."""

    def __init__(self, executor: ModalExecutor) -> None:
        from airflow.callbacks.database_callback_sink import DatabaseCallbackSink

        self._executor = executor
        self._runner = SchedulerJobRunner(
            job=_persistent_job(), num_runs=1, scheduler_idle_sleep_time=0, executors=[executor]
        )
        self._runner._parallelism = executor.parallelism
        executor.job_id = self._runner.job.id
        executor.callback_sink = DatabaseCallbackSink()
        executor.start()

    def maintain(self, standstill: float) -> None:
        """What the scheduler's loop does by timers, which would never strike in the life of a tick.

        A task that is queued for long is stuck only after as long a `standstill`, in seconds, of all tasks.
        """
        runner = self._runner
        runner.check_trigger_timeouts()
        runner.check_awaiting_input_timeouts()
        runner._find_and_purge_task_instances_without_heartbeats()
        if standstill > runner._task_queued_timeout:
            runner._handle_tasks_stuck_in_queued()
        now = time.monotonic()
        if now - Tick._tidied_up_at >= TIDY_UP_SECONDS:
            Tick._tidied_up_at = now
            runner.adopt_or_reset_orphaned_tasks()
            runner._update_dag_run_state_for_paused_dags()
            runner._update_asset_orphanage()
            runner._remove_unreferenced_triggers()

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
        self._runner._mark_backfills_complete()
        return True

    def _pass(self) -> int:
        from airflow.utils.session import create_session

        runner, executor = self._runner, self._executor
        runner._dag_id_to_team_name = {}
        with create_session() as session:
            queued: int = runner._do_scheduling(session)
            session.expunge_all()
        executor.heartbeat()
        with create_session() as session:
            runner._process_executor_events(executor=executor, session=session)
        with create_session() as session:
            runner._process_task_event_logs(executor._task_event_logs, session)
        with create_session() as session:
            _handle_missed_deadlines(session)
            runner._enqueue_executor_callbacks(session)
        return queued


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


def _handle_missed_deadlines(session: Session) -> None:
    from airflow._shared.timezones import timezone
    from airflow.models.deadline import Deadline
    from sqlalchemy import select

    missed = select(Deadline).where(Deadline.deadline_time < timezone.utcnow()).where(~Deadline.missed)
    for deadline in session.scalars(missed):
        deadline.handle_miss(session)
