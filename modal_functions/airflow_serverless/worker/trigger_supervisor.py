"""Airflow's supervisor of triggers, told by the Dict what to run and telling it what came of it.

Airflow's own would read and write the database at every turn; the scheduler is the only writer of ours.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
import uuid
from traceback import format_exception
from typing import TYPE_CHECKING, Any

import attrs
import structlog
from airflow.jobs.triggerer_job_runner import TriggerRunnerSupervisor

from airflow_serverless.config import PLUGINS, Paths
from airflow_serverless.dags import plugins
from airflow_serverless.scheduler.triggers import triggerer_job
from airflow_serverless.state import TRIGGERER, TriggererNote, TriggerEventRecord, Triggers, event_key
from airflow_serverless.worker.worker import Worker

if TYPE_CHECKING:
    from pathlib import Path

    from airflow.executors.workloads import RunTrigger
    from airflow.models.trigger import Trigger
    from airflow.sdk.api.client import Client
    from airflow.triggers.base import TriggerEvent

    from airflow_serverless.execution_api.task_api import TaskApi

NOTE_SECONDS = 15.0
LOG_SECONDS = 3.0
"""How old what people see of a trigger's log may be."""
POLL_SECONDS = 1.0
CAPACITY = 1000


@attrs.define(kw_only=True)
class TriggerSupervisor(TriggerRunnerSupervisor):
    """Runs the triggers of one call of `run_triggers`; `told` counts what was told the scheduler."""

    worker: Worker
    call_id: str | None
    until: float
    loaded: int
    """Generation of the database that the workloads of triggers are made from."""
    api: TaskApi
    code: str
    """Digest of the DAG folder from which the process of the triggers has its modules, for as long as it lives."""
    told: int = attrs.field(default=0, init=False)
    is_alive_at_end: bool = attrs.field(default=True, init=False)
    _wanted: Triggers = attrs.field(factory=lambda: Triggers(created={}, generation=0), init=False)
    _created: dict[int, str] = attrs.field(factory=dict, init=False)
    """Which of the triggers with an id is the one that runs."""
    _ended: set[tuple[int, str]] = attrs.field(factory=set, init=False)
    _records: dict[str, TriggerEventRecord] = attrs.field(factory=dict, init=False)
    _noted_at: float = attrs.field(default=0.0, init=False)
    _logs_shown_at: float = attrs.field(default=0.0, init=False)

    @classmethod
    def begin(cls, worker: Worker, call_id: str | None, generation: int, until: float) -> TriggerSupervisor:
        """Start the process in which triggers run."""
        api = worker.open_api("triggerer", call_id or uuid.uuid4().hex, generation)
        supervisor: TriggerSupervisor = cls.start(
            job=triggerer_job(),
            capacity=CAPACITY,
            logger=structlog.get_logger("triggerer"),
            worker=worker,
            call_id=call_id,
            until=until,
            loaded=generation,
            api=api,
            code=plugins.digest(worker.paths.dags),
        )
        return supervisor

    @classmethod
    def run_in_process(cls) -> None:
        """Run triggers, with the DAG folder on the path: users have no other place for their modules."""
        sys.path.append(str(Paths.from_environment().dags))
        super().run_in_process()

    def make_client(self) -> Client:
        """The API that triggers ask for connections, variables, XComs and states."""
        return self.api.client()

    def run(self) -> None:
        """Run until nothing is wanted any more, or the time is up."""
        while not self.should_stop():
            if not self.is_alive():
                self.is_alive_at_end = False
                break
            self.run_once()
        if not self._is_idle():
            # Others go on with what is left: the next tick sees that no triggerer is there.
            self.worker.state.remove([TRIGGERER])
            self.worker.wake("the triggerer ended")

    def run_once(self) -> None:
        """One turn."""
        self.heartbeat()
        self.load_triggers()
        self._service_subprocess(POLL_SECONDS)
        self.handle_events()
        self.handle_failed_triggers()
        self._tell()

    def should_stop(self) -> bool:
        """Whether nothing is left to do, or it is time for a fresh process."""
        if self.stop or time.monotonic() > self.until:
            return True
        if not self._is_idle() or self._noted_at == 0.0:
            return False
        # The note goes first: a tick that names triggers after this look begins another triggerer.
        self.worker.state.remove([TRIGGERER])
        triggers = self.worker.state.triggers()
        if triggers is None or not triggers["created"]:
            return True
        self._noted_at = 0.0
        return False

    def _is_idle(self) -> bool:
        busy = (self._wanted["created"], self.running_triggers, self.creating_triggers, self.events)
        return not any(busy) and not self.failed_triggers and not self._records

    def load_triggers(self) -> None:
        """Begin what is wanted and does not run, end what is not wanted any more."""
        triggers = self.worker.state.triggers()
        if triggers is None:
            return
        self._wanted = triggers
        created = triggers["created"]
        self._ended &= set(created.items())
        requested = {
            trigger_id
            for trigger_id, moment in created.items()
            # One whose id was another's is begun when that one has gone.
            if (trigger_id, moment) not in self._ended and self._created.get(trigger_id, moment) == moment
        }
        gone = self._created.keys() - self.running_triggers - requested
        for trigger_id in gone:
            del self._created[trigger_id]
        if requested - self._created.keys() and self.loaded < triggers["generation"]:
            self.worker.refresh(triggers["generation"])
            self.loaded = triggers["generation"]
        self._created.update({trigger_id: created[trigger_id] for trigger_id in requested})
        self.update_triggers(requested)

    def _create_workload(self, trigger: Trigger, *args: Any, **kwargs: Any) -> RunTrigger | None:
        if self._is_outdated(trigger.classpath):
            # A fresh process takes over, with this and all others.
            self.until = 0.0
            return None
        workload = super()._create_workload(trigger, *args, **kwargs)
        if factory := self.logger_cache.get(trigger.id):
            # A Volume cannot be reloaded while a file of it is open, and a log is open for as long as its trigger runs.
            factory.log_path = str(self._local_logs / factory.log_path)
        return workload

    def _is_outdated(self, classpath: str) -> bool:
        """Whether a class is of the user's own, and the DAG folder not what it was when the process began."""
        module, dags = classpath.partition(".")[0], self.worker.paths.dags
        places = [folder / name for folder in (dags, dags / PLUGINS) for name in (module, f"{module}.py")]
        return any(place.exists() for place in places) and plugins.digest(dags) != self.code

    @property
    def _local_logs(self) -> Path:
        return self.worker.paths.work / "triggers"

    def publish_logs(self) -> None:
        """Bring the logs of triggers to the Volume as they are now, with all else that triggers have left there."""
        self._copy_logs()
        self.worker.volume.commit()

    def _copy_logs(self) -> bool:
        """Whether any of them has changed."""
        changed = False
        for log in self._local_logs.rglob("*.log"):
            published = self.worker.paths.logs / log.relative_to(self._local_logs)
            if not published.exists() or published.stat().st_size != log.stat().st_size:
                published.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(log, published)
                changed = True
        return changed

    def on_trigger_event(self, trigger_id: int, event: TriggerEvent) -> None:
        """Note an event for the scheduler."""
        from airflow.sdk.serde import serialize

        try:
            text = json.dumps(serialize(event.model_dump()))
        except (TypeError, ValueError, AttributeError) as error:
            self.on_trigger_failure(trigger_id, format_exception(error))
            return
        self._record(trigger_id, text, None)

    def on_trigger_failure(self, trigger_id: int, exc: list[str] | None) -> None:
        """Note for the scheduler that a trigger ended without an event."""
        self._record(trigger_id, None, exc)

    def _record(self, trigger_id: int, event: str | None, traceback: list[str] | None) -> None:
        created = self._created.get(trigger_id)
        if created is None:
            return
        self._ended.add((trigger_id, created))
        self._records[event_key(trigger_id, uuid.uuid4().hex)] = {
            "trigger_id": trigger_id,
            "created": created,
            "event": event,
            "traceback": traceback,
            "at": time.time(),
        }

    def _tell(self) -> None:
        if not self._records:
            return
        # What the log of a trigger says has to be there before its task goes on.
        self.publish_logs()
        self.api.flush()
        self.worker.state.update(self._records)
        self.told += len(self._records)
        self._records = {}
        self.worker.wake("a trigger fired")

    def heartbeat(self) -> None:
        """Say that this triggerer is there, and make logs visible."""
        now = time.monotonic()
        if now - self._logs_shown_at >= LOG_SECONDS:
            self._logs_shown_at = now
            if self._copy_logs():
                self.worker.volume.commit()
        if now - self._noted_at < NOTE_SECONDS:
            return
        self._noted_at = now
        note: TriggererNote = {"call_id": self.call_id, "at": time.time()}
        self.worker.state.update({TRIGGERER: note})

    def metric_tags(self) -> dict[str, Any]:
        """None: no metrics are sent."""
        return {}
