"""Airflow's scheduler with its failures contained: what one DAG or run breaks is quarantined, and the rest goes on."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from airflow.jobs.scheduler_job_runner import SchedulerJobRunner
from airflow.models.dag import DagModel
from airflow.models.dagrun import DagRun
from airflow.models.taskinstancekey import TaskInstanceKey
from airflow.utils.retries import retry_db_transaction
from airflow.utils.session import create_session
from sqlalchemy import event, select, tuple_
from sqlalchemy.orm import Session, with_loader_criteria

from airflow_serverless.quarantine import (
    DAG,
    EVENTS,
    RUN,
    STEP,
    Quarantine,
    is_systemic,
    one_by_one,
    run_name,
)

if TYPE_CHECKING:
    from airflow.callbacks.callback_requests import DagCallbackRequest
    from airflow.jobs.job import Job
    from airflow.utils.sqlalchemy import CommitProhibitorGuard
    from sqlalchemy.orm import ORMExecuteState

    from airflow_serverless.executor.modal_executor import ModalExecutor


class ContainedRunner(SchedulerJobRunner):
    """The parts of Airflow's scheduler that a tick calls; none of them raises for what one DAG or run does."""

    def __init__(self, job: Job, executor: ModalExecutor, quarantine: Quarantine) -> None:
        super().__init__(job=job, num_runs=1, scheduler_idle_sleep_time=0, executors=[executor])
        self._quarantine = quarantine
        self._executor = executor

    def schedule(self) -> int:
        """Create and start runs, and schedule and queue tasks; returns how many tasks were queued."""
        held = self._quarantine.held(DAG)
        try:
            queued = self._schedule_dags(DagModel.dag_id.not_in(held) if held else None)
        except BaseException as error:
            if is_systemic(error):
                raise
            # What fails is known once each DAG is on its own.
            dag_ids = [dag_id for dag_id in _live_dag_ids() if dag_id not in held]
            return sum(one_by_one(self._quarantine, DAG, dag_ids, self._schedule_dag, error))
        self._quarantine.keep_only(DAG, held)
        return queued

    def _schedule_dag(self, dag_id: str) -> int:
        return self._schedule_dags(DagModel.dag_id == dag_id)

    def _schedule_dags(self, which: Any) -> int:
        launches = self._executor.checkpoint()
        try:
            with _only(DagModel, which), _only(DagRun, self._not_held_runs()), create_session() as session:
                queued: int = self._do_scheduling(session)
                session.expunge_all()
                return queued
        except BaseException:
            self._executor.restore(launches)
            raise

    @retry_db_transaction
    def _schedule_all_dag_runs(
        self, guard: CommitProhibitorGuard, dag_runs: Iterable[DagRun], session: Session
    ) -> list[tuple[DagRun, DagCallbackRequest | None]]:
        """As Airflow does, but what a failure has half done is rolled back, and not only the log knows of it."""
        callbacks = []
        for run in dag_runs:
            with self._quarantine.guard(RUN, run_name(run.dag_id, run.run_id)):
                # The guard takes the end of a savepoint for a commit.
                guard.expected_commit = True
                try:
                    with session.begin_nested():
                        callback = self._schedule_dag_run(run, session=session)
                finally:
                    guard.expected_commit = False
                callbacks.append((run, callback))
        guard.commit()
        return callbacks

    def step(self, name: str, work: Callable[[], Any]) -> None:
        """Do one part of the maintenance; its failure keeps no other from being done."""
        if not self._quarantine.is_held(STEP, name):
            with self._quarantine.guard(STEP, name):
                work()

    def process_events(self) -> None:
        """Apply the ends of tasks that the executor knows of. Those that cannot be applied are met again next round."""
        events = dict(self._executor.event_buffer)
        try:
            with create_session() as session:
                self._process_executor_events(executor=self._executor, session=session)
            return
        except BaseException as error:
            if is_systemic(error) or not events:
                raise
            failure = error
        names: dict[str, list[Any]] = {}
        for key in events:
            name = run_name(key.dag_id, key.run_id) if isinstance(key, TaskInstanceKey) else str(key)
            names.setdefault(name, []).append(key)

        def apply(name: str) -> None:
            self._executor.event_buffer.clear()
            self._executor.event_buffer.update({key: events[key] for key in names[name]})
            try:
                with create_session() as session:
                    self._process_executor_events(executor=self._executor, session=session)
            except BaseException:
                # The database does not know these launches, so they must not start.
                self._executor.withdraw(names[name])
                raise

        one_by_one(self._quarantine, EVENTS, list(names), apply, failure)

    def forget_ended(self) -> None:
        """Release what will never be retried: runs that are over, and DAGs that are paused or gone."""
        if self._quarantine.names(DAG):
            self._quarantine.keep_only(DAG, set(_live_dag_ids()))
        if self._quarantine.names(RUN) or self._quarantine.names(EVENTS):
            with create_session() as session:
                rows = session.execute(select(DagRun.dag_id, DagRun.run_id).where(DagRun.end_date.is_(None)))
                live = {run_name(dag_id, run_id) for dag_id, run_id in rows}
            self._quarantine.keep_only(RUN, live)
            self._quarantine.keep_only(EVENTS, live)

    def _not_held_runs(self) -> Any:
        held = [tuple(name.split("/", 1)) for name in self._quarantine.held(RUN)]
        return tuple_(DagRun.dag_id, DagRun.run_id).not_in(held) if held else None


def _live_dag_ids() -> list[str]:
    with create_session() as session:
        live = select(DagModel.dag_id).where(DagModel.is_paused.is_(False), DagModel.is_stale.is_(False))
        return list(session.scalars(live.order_by(DagModel.dag_id)))


@contextlib.contextmanager
def _only(model: Any, criteria: Any) -> Iterator[None]:
    """While this lasts, queries of Airflow's ORM find only rows of a model that meet the criteria."""
    if criteria is None:
        yield
        return

    def restrict(state: ORMExecuteState) -> None:
        if state.is_select:
            state.statement = state.statement.options(with_loader_criteria(model, criteria, include_aliases=True))

    event.listen(Session, "do_orm_execute", restrict)
    try:
        yield
    finally:
        event.remove(Session, "do_orm_execute", restrict)
