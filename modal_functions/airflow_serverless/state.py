"""The contract of the shared Dict: its keys, the form of its values, and typed access to it.

The daemon reads and writes the same Dict from another language. Keys are strings that are never parsed back (run ids
contain colons); values are plain types and carry the ids. All times are seconds since the epoch.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NotRequired, TypedDict, cast

import modal

WAKE = "wake"
DUE = "due"
HEALTH = "health"
PUBLISHED = "published"
WRITTEN = "written"
TRIGGERS = "triggers"
TRIGGERER = "triggerer"
QUEUED, RUNNING, SUCCESS, FAILED = "QUEUED", "RUNNING", "SUCCESS", "FAILED"
FINAL = frozenset({SUCCESS, FAILED})
STOPPED = "stopped: the task is no longer wanted"
JOURNAL_PREFIX = "journal:"
CALLBACK = "callback"
"""In the place of a launch's id, for what is executed once under an id of its own."""


class TaskEntry(TypedDict):
    """`task:…`: one launch of one task instance.

    A task instance is launched anew, with the same id, after a reschedule or a deferral: `launch` tells them apart.
    `journals` is how many journal records the finished launch has written. `call_id` is that of the call that runs or
    ran it. The tick writes the entry before it spawns the call; from then on it is the worker's, so that the call of a
    queued launch is a note of its own (`call:…`). `ending_at`: since when the worker has been telling the database that
    the task has ended, before it says so here (PostgreSQL only). `log_path` is relative to the folder of logs.
    """

    status: str
    call_id: str | None
    queued_at: float
    completed_at: float | None
    dag_id: str
    task_id: str
    run_id: str
    map_index: int
    try_number: int
    ti_id: str
    launch: str
    started_at: NotRequired[float]
    ending_at: NotRequired[float]
    journals: NotRequired[int]
    error: NotRequired[str | None]
    log_path: NotRequired[str | None]


class Request(TypedDict):
    """A request to the Execution API that changed something: method, path with query, body, and the answer's status."""

    at: float
    method: str
    path: str
    body: str | None
    content_type: str | None
    api_version: str | None
    status: int


class JournalRecord(TypedDict):
    """`journal:…`: a part of what one launch did, in order of `sequence` from 0."""

    ti_id: str
    launch: str
    sequence: int
    requests: list[Request]


class CallNote(TypedDict):
    """`call:…`: the call that was spawned for a launch. `claim:…`: the call that runs it, which only one can put."""

    ti_id: str
    launch: str
    call_id: str | None
    at: float


class StopNote(TypedDict):
    """`stop:…`: why the call of a launch is about to be cancelled, for the log of its task."""

    ti_id: str
    launch: str
    at: float
    reason: str


class Heartbeat(TypedDict):
    """The last sign of life of a running task."""

    ti_id: str
    launch: str
    at: float


class CallbackEntry(TypedDict):
    """`callback:{id}`: an execution of callbacks outside of the process of a task.

    `kind` is "executor" for a callback of Airflow's executors (those of deadlines), "dag" for a request to the DAG
    processor (those of DAG runs, and of tasks whose process could not run them). A call runs it once or not at all.
    """

    id: str
    kind: Literal["executor", "dag"]
    status: str
    queued_at: float
    completed_at: float | None
    journals: NotRequired[int]
    error: NotRequired[str | None]


class PackagesNote(TypedDict):
    """`packages:{name}`: the installation of what some DAG files ask for. `attempts`: how many have failed in a row."""

    name: str
    status: str
    at: float
    error: str | None
    attempts: int


class Triggers(TypedDict):
    """`triggers`: what a triggerer is to run, {id of the trigger: when it was created}, from this generation on.

    Ids of triggers that are gone are used again, so that the id alone does not tell which trigger is meant.
    """

    created: dict[int, str]
    generation: int


class TriggererNote(TypedDict):
    """`triggerer`: the call that runs triggers and when it was last heard of; None while it has not begun."""

    call_id: str | None
    at: float


class TriggerEventRecord(TypedDict):
    """`event:…`: what a trigger yielded (JSON in Airflow's serialisation), or the traceback with which it failed."""

    trigger_id: int
    created: str
    event: str | None
    traceback: list[str] | None
    at: float


class DueMarker(TypedDict):
    """What the gate needs to know.

    `active`: work is in flight, so calls have to be polled. `deferred`: there are triggers, so a triggerer has to run.
    """

    next_due: float | None
    active: bool
    deferred: NotRequired[bool]
    generation: int
    full_tick_at: float


class Published(TypedDict):
    """`published`: which generation of the database lies on the volume; readers fetch it again when this moves on."""

    generation: int


HealthReason = Literal[
    "database_damaged",
    "database_locked",
    "database_missing",
    "database_newer",
    "database_read_only",
    "database_unavailable",
    "disk_full",
    "tick_failed",
]


class Failure(TypedDict):
    """Why a tick failed: a word for programs, a sentence for people, and the end of the traceback."""

    reason: HealthReason
    message: str
    traceback: str


class Health(TypedDict):
    """`health`: what the scheduler could not do, as of `at`.

    `failure`: why the last tick failed; None if it did not. `quarantined`: the first records of the quarantine, each
    {"kind", "name", "error": the last line of its traceback}; `quarantined_count`: how many there are.
    """

    at: float
    failure: Failure | None
    quarantined: list[dict[str, str]]
    quarantined_count: int


class Written(TypedDict):
    """`written`: the journal record that holds what a running task wrote last, for other tasks to see."""

    key: str
    at: float


class Command(TypedDict):
    """`command:{id}`: a request of the daemon; the fields beyond these depend on the kind."""

    id: str
    kind: str
    at: float


class Reply(TypedDict):
    """`reply:{id}`: written once the effect of the command is committed. Without `ok`, `reason` sorts the `error`.

    Who asked takes it out of the Dict. `at` is when it was put there: the tick removes what nobody takes.
    """

    at: NotRequired[float]
    ok: bool
    error: str | None
    reason: Literal["invalid", "not_found", "conflict"] | None
    result: dict[str, Any]


def task_key(dag_id: str, task_id: str, run_id: str, map_index: int) -> str:
    """The key of a task instance."""
    key = f"task:{dag_id}:{task_id}:{run_id}"
    return key if map_index < 0 else f"{key}:{map_index}"


def journal_key(ti_id: str, launch: str, sequence: int) -> str:
    """The key of one record of a launch."""
    return f"{JOURNAL_PREFIX}{ti_id}:{launch}:{sequence}"


def call_key(ti_id: str, launch: str) -> str:
    """The key of the note about a launch's function call."""
    return f"call:{ti_id}:{launch}"


def claim_key(ti_id: str, launch: str) -> str:
    """The key with which one container claims a launch."""
    return f"claim:{ti_id}:{launch}"


def stop_key(ti_id: str, launch: str) -> str:
    """The key of the note about why a launch is stopped."""
    return f"stop:{ti_id}:{launch}"


def heartbeat_key(ti_id: str) -> str:
    """The key of a task's heartbeat."""
    return f"heartbeat:{ti_id}"


def callback_key(callback_id: str) -> str:
    """The key of a callback."""
    return f"callback:{callback_id}"


def packages_key(name: str) -> str:
    """The key of the note about an installation of packages."""
    return f"packages:{name}"


def event_key(trigger_id: int, event_id: str) -> str:
    """The key of an event of a trigger."""
    return f"event:{trigger_id}:{event_id}"


@dataclass
class Inbox:
    """What the Dict held when a tick looked at it, by key."""

    tasks: dict[str, TaskEntry] = field(default_factory=dict)
    journals: dict[str, JournalRecord] = field(default_factory=dict)
    calls: dict[str, CallNote] = field(default_factory=dict)
    claims: dict[str, CallNote] = field(default_factory=dict)
    heartbeats: dict[str, Heartbeat] = field(default_factory=dict)
    stops: dict[str, StopNote] = field(default_factory=dict)
    commands: dict[str, Command] = field(default_factory=dict)
    replies: dict[str, Reply] = field(default_factory=dict)
    callbacks: dict[str, CallbackEntry] = field(default_factory=dict)
    events: dict[str, TriggerEventRecord] = field(default_factory=dict)
    packages: dict[str, PackagesNote] = field(default_factory=dict)
    due: DueMarker | None = None
    health: Health | None = None
    triggers: Triggers | None = None
    triggerer: TriggererNote | None = None

    def has_news(self) -> bool:
        """Whether there is anything that a tick has to apply."""
        return bool(self.journals or self.commands or self.events)

    def call_id(self, entry: TaskEntry) -> str | None:
        """The call of a task's launch, if any is known."""
        return entry["call_id"] or self.call_of(entry["ti_id"], entry["launch"])

    def call_of(self, ti_id: str, launch: str) -> str | None:
        """The call that was noted for a launch, if any."""
        notes = (self.calls.get(call_key(ti_id, launch)), self.claims.get(claim_key(ti_id, launch)))
        return next((note["call_id"] for note in notes if note), None)


class State:
    """The Dict of one environment."""

    def __init__(self, store: modal.Dict) -> None:
        self.store = store

    @classmethod
    def of_environment(cls, name: str) -> State:
        """The state of an environment; creates its Dict if there is none."""
        return cls(modal.Dict.from_name(name, create_if_missing=True))

    def inbox(self) -> Inbox:
        """Read everything. Not a snapshot: what is written meanwhile may or may not be seen."""
        inbox = Inbox()
        parts: Mapping[str, dict[str, Any]] = {
            "task": cast("dict[str, Any]", inbox.tasks),
            "journal": cast("dict[str, Any]", inbox.journals),
            "call": cast("dict[str, Any]", inbox.calls),
            "claim": cast("dict[str, Any]", inbox.claims),
            "heartbeat": cast("dict[str, Any]", inbox.heartbeats),
            "stop": cast("dict[str, Any]", inbox.stops),
            "command": cast("dict[str, Any]", inbox.commands),
            "reply": cast("dict[str, Any]", inbox.replies),
            "callback": cast("dict[str, Any]", inbox.callbacks),
            "event": cast("dict[str, Any]", inbox.events),
            "packages": cast("dict[str, Any]", inbox.packages),
        }
        for key, value in self.store.items():
            kind, separator, _ = str(key).partition(":")
            if separator and kind in parts:
                parts[kind][key] = value
            elif key == DUE:
                inbox.due = value
            elif key == HEALTH:
                inbox.health = value
            elif key == TRIGGERS:
                inbox.triggers = value
            elif key == TRIGGERER:
                inbox.triggerer = value
        return inbox

    def wake(self, reason: str) -> bool:
        """Leave the mark that a tick has something to look at; True if it was not there yet."""
        return self.store.put(WAKE, {"reason": reason, "at": time.time()}, skip_if_exists=True)

    def is_awake(self) -> bool:
        """Whether a tick was asked for."""
        return self.store.get(WAKE) is not None

    def take_wake(self) -> bool:
        """Remove the mark; True if it was there. Whatever comes after it is seen by the next look or the next mark."""
        return self.store.pop(WAKE, None) is not None

    def due(self) -> DueMarker | None:
        """When the next tick is due."""
        return self.store.get(DUE)

    def set_due(self, marker: DueMarker) -> None:
        """Publish when the next tick is due."""
        self.store.put(DUE, marker)

    def health(self) -> Health | None:
        """What the scheduler last reported about itself."""
        return self.store.get(HEALTH)

    def set_health(self, health: Health) -> None:
        """Publish what the scheduler reports about itself."""
        self.store.put(HEALTH, health)

    def published(self) -> Published | None:
        """Which snapshot is published."""
        return self.store.get(PUBLISHED)

    def written(self) -> Written | None:
        """The last record that a running task has written."""
        return self.store.get(WRITTEN)

    def journals(self) -> dict[str, JournalRecord]:
        """All journal records that no tick has applied yet, by key."""
        return {str(key): value for key, value in self.store.items() if str(key).startswith(JOURNAL_PREFIX)}

    def has_journal(self, key: str) -> bool:
        """Whether a record is still there."""
        return self.store.contains(key)

    def triggers(self) -> Triggers | None:
        """The triggers that should run."""
        return self.store.get(TRIGGERS)

    def triggerer(self) -> TriggererNote | None:
        """What the running triggerer reports."""
        return self.store.get(TRIGGERER)

    def callback(self, callback_id: str) -> CallbackEntry | None:
        """The entry of a callback, in any state."""
        return self.store.get(callback_key(callback_id))

    def task(self, key: str) -> TaskEntry | None:
        """A launched task instance."""
        return self.store.get(key)

    def stop_reason(self, ti_id: str, launch: str) -> str | None:
        """Why the call of a launch was cancelled; None if it was not the scheduler who did."""
        note = cast("StopNote | None", self.store.get(stop_key(ti_id, launch)))
        return note["reason"] if note else None

    def claim(self, claim: CallNote) -> Literal[True] | CallNote:
        """True if the launch is now the caller's, otherwise the claim that came first."""
        key = claim_key(claim["ti_id"], claim["launch"])
        if self.store.put(key, claim, skip_if_exists=True):
            return True
        found = cast("CallNote", self.store.get(key) or claim)
        # Equal to the last digit of its time: ours, but the answer was lost and the request repeated.
        return True if found == claim else found

    def update(self, values: Mapping[str, Any]) -> None:
        """Write several keys in one request."""
        if values:
            self.store.update(dict(values))

    def remove(self, keys: Iterable[str]) -> None:
        """Remove keys, if they are there, with a request for each, all at once."""

        async def pop_all() -> None:
            await asyncio.gather(*(self.store.pop.aio(key, None) for key in keys))

        asyncio.run(pop_all())
