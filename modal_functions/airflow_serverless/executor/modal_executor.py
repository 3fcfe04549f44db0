"""Airflow's executor for tasks that are Modal Function calls."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow.executors.base_executor import BaseExecutor
from airflow.executors.workloads.callback import ExecuteCallback
from airflow.executors.workloads.task import ExecuteTask
from airflow.utils.state import TaskInstanceState

if TYPE_CHECKING:
    from airflow.executors.workloads import ExecutorWorkload
    from airflow.models.taskinstance import TaskInstance
    from airflow.models.taskinstancekey import TaskInstanceKey


@dataclass(frozen=True)
class Launch:
    """A task to be started; `id` is also the task instance's `external_executor_id`."""

    id: str
    workload: ExecuteTask


@dataclass(frozen=True)
class Checkpoint:
    """What a `ModalExecutor` holds at one moment."""

    launches: list[Launch]
    running: set[Any]
    queued_tasks: dict[Any, Any]
    queued_callbacks: dict[Any, Any]
    event_buffer: dict[Any, Any]


class ModalExecutor(BaseExecutor):
    """Collects the launches of a scheduler pass; whoever drives it starts them with `take_launches`.

    A tick starts them only after their queued state is committed, so that no task runs that the database does not
    know of. The object remembers nothing between ticks: `occupy` tells it what is running.
    """

    supports_ad_hoc_ti_run = True
    supports_callbacks = True
    is_local = False
    serve_logs = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._launches: list[Launch] = []

    def occupy(self, keys: Sequence[TaskInstanceKey]) -> None:
        """Count these tasks as running, for the limit on parallel tasks."""
        self.running.update(keys)

    def relaunch(self, launch: Launch) -> None:
        """Start a task that is queued already, under the launch id that the database has."""
        self._launches.append(launch)

    def withdraw(self, keys: Iterable[Any]) -> None:
        """Forget the launches of these tasks; the next round finds them queued without one."""
        withdrawn = set(keys)
        self._launches = [launch for launch in self._launches if launch.workload.key not in withdrawn]

    def take_launches(self) -> list[Launch]:
        """The launches since the last call."""
        launches, self._launches = self._launches, []
        return launches

    def checkpoint(self) -> Checkpoint:
        """The state of the executor, to `restore` when the transaction that changed it is rolled back."""
        queued = dict(self.queued_tasks), dict(self.queued_callbacks)
        return Checkpoint(list(self._launches), set(self.running), *queued, dict(self.event_buffer))

    def restore(self, checkpoint: Checkpoint) -> None:
        """Return to a checkpoint."""
        self._launches = list(checkpoint.launches)
        self.running = set(checkpoint.running)
        self.queued_tasks = dict(checkpoint.queued_tasks)
        self.queued_callbacks = dict(checkpoint.queued_callbacks)
        self.event_buffer = dict(checkpoint.event_buffer)

    def _process_workloads(self, workload_items: Sequence[ExecutorWorkload]) -> None:
        for workload in workload_items:
            if isinstance(workload, ExecuteCallback):
                # The tick starts callbacks from their rows, so that one that is killed loses none.
                self.queued_callbacks.pop(workload.key, None)
                continue
            if not isinstance(workload, ExecuteTask):
                raise TypeError(f"{type(workload).__name__} is neither a task nor a callback")
            self.queued_tasks.pop(workload.key, None)
            self.running.add(workload.key)
            launch = Launch(uuid.uuid4().hex, workload)
            self._launches.append(launch)
            # The scheduler stores the id with the task instance: a launch is then recognised by what is committed.
            self.event_buffer[workload.key] = (TaskInstanceState.QUEUED, launch.id)

    def start(self) -> None:
        """Nothing to start: Modal is always there."""

    def sync(self) -> None:
        """Nothing to poll: finished tasks are reported before the passes of a tick."""

    def end(self) -> None:
        """Nothing to wait for: tasks outlive the tick."""

    def terminate(self) -> None:
        """Tasks outlive the tick, also one that is stopped."""

    def revoke_task(self, *, ti: TaskInstance) -> None:
        """Forget a task that was queued for too long; a late start of it is refused by its launch id."""
        self.queued_tasks.pop(ti.key, None)
        self.running.discard(ti.key)
        self._launches = [launch for launch in self._launches if launch.workload.key != ti.key]

    def try_adopt_task_instances(self, tis: Sequence[TaskInstance]) -> Sequence[TaskInstance]:
        """All are adopted (none is returned): the next tick finds their state in the Dict."""
        return []
