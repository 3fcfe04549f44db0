"""`run_tick`: the steps of a tick in their order, and how long it stays for more."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from airflow_serverless import commands
from airflow_serverless.commands import database
from airflow_serverless.db import tables
from airflow_serverless.db.backend import SCHEDULER_LOCK, DatabaseError, DatabaseOlder, NotInitialized
from airflow_serverless.db.revision import check_revision
from airflow_serverless.scheduler import due, health
from airflow_serverless.scheduler.context import TickContext
from airflow_serverless.state import (
    FINAL,
    PUBLISHED,
    QUEUED,
    CallNote,
    DueMarker,
    Inbox,
    Published,
    Reply,
    State,
    TaskEntry,
    call_key,
    task_key,
)

if TYPE_CHECKING:
    from airflow_serverless.executor.modal_executor import Launch
    from airflow_serverless.scheduler.reconcile import Unwanted

LONGEST_SECONDS = 240.0
"""After this a tick hands over to a fresh one, well within its timeout."""
LINGER_SECONDS = 10.0
CLOCK_SECONDS = 2.0
"""By so much databases may be late in seeing that a time has come: SQLite counts whole seconds."""
POLL_SECONDS = 0.1
GATHERING_SECONDS = 0.02
"""The next round waits this long for each task in flight, but no longer than the last round took: when many tasks
end, it is faster to process several of them at once."""
PARALLEL_SPAWNS = 16


@dataclass
class Counters:
    """What a tick did, as `run_tick` returns it."""

    rounds: int = 0
    replayed: int = 0
    parsed: int = 0
    commands: int = 0
    launched: int = 0
    mismatches: list[str] = field(default_factory=list)
    generation: int = 0
    in_flight: int = 0
    """Tasks that were queued or running at the end."""


def run_tick(reason: str) -> dict[str, Any]:
    """Run the scheduler until there is nothing to do soon; returns counters.

    Callers leave the wake mark first. The tick that takes it does the work for all; the others return at once.
    """
    started = time.monotonic()
    context = TickContext.of_process()
    state = context.state
    woken = state.take_wake()
    inbox = state.inbox()
    if not (woken or inbox.has_news() or due.is_due(inbox.due, time.time())):
        return {"idle": True}
    counters = Counters()
    try:
        if not context.backend.acquire_lock(SCHEDULER_LOCK, 0):
            # The holder looks for the mark before it ends, and the gate if the holder dies.
            state.wake(reason)
            return {"busy": True}
        while True:
            looked_at, began = time.time(), time.monotonic()
            # The round removes the entries that triggered it. If it is killed, the gate has to start another tick.
            _set_due_now(state, inbox.due)
            marker = _round(context, inbox, counters)
            ended = time.monotonic()
            rest = min(ended - began, counters.in_flight * GATHERING_SECONDS)
            if ended - started > LONGEST_SECONDS or not _linger(context, marker, looked_at, ended + rest):
                break
            state.take_wake()
            inbox = state.inbox()
    except BaseException as error:
        context.backend.discard()
        # The cron may come before `initialize_database`. Whoever has published or sends a command has seen a database.
        if isinstance(error, NotInitialized) and state.published() is None and not inbox.commands:
            return {"not_initialized": True}
        if isinstance(error, DatabaseOlder):
            # These functions were deployed a moment ago, and `initialize_database` is about to follow.
            return {"not_migrated": True}
        _set_due_now(state, state.due())
        health.report_failure(state, error)
        raise
    finally:
        context.backend.release_lock(SCHEDULER_LOCK)
    if state.is_awake():
        context.launcher.spawn_tick("woken at the end of a tick")
    elif _awaited(marker, looked_at, due.look_ahead(context.settings.interval_seconds)) is not None:
        context.launcher.spawn_gate()
    return {"seconds": round(time.monotonic() - started, 3), **vars(counters)}


def _set_due_now(state: State, marker: DueMarker | None) -> None:
    """Set the due time to now, so that the gate starts another tick at its next check."""
    if marker:
        state.set_due({**marker, "next_due": time.time()})


def _round(context: TickContext, inbox: Inbox, counters: Counters) -> DueMarker:
    """Load, replay, reconcile, parse, schedule, publish, and only then tell the world."""
    from airflow_serverless.executor.modal_executor import ModalExecutor
    from airflow_serverless.quarantine import Quarantine, show
    from airflow_serverless.scheduler import callbacks, package_installs, reconcile, replay, triggers
    from airflow_serverless.scheduler.tick import Tick

    backend, state, launcher = context.backend, context.state, context.launcher
    _load(context, inbox)
    with backend.transaction() as connection:
        tables.add_missing(connection)
        quarantine = Quarantine.load(connection)
    context.folder.follow_plugins()
    with backend.get_connection() as connection:
        replayed = replay.replay(inbox.journals, connection)
    reconcile.apply_heartbeats(inbox)
    fired = triggers.apply_events(inbox)
    most_running = context.settings.parallelism
    executor = ModalExecutor(most_running + min(most_running, reconcile.ended_lately(inbox)))
    tick = Tick(executor, quarantine)
    found = reconcile.reconcile(inbox, backend, executor, launcher, state)
    context.explain(found.explained)
    settled = callbacks.settle(inbox, backend, launcher)
    synced = context.folder.sync(backend, inbox.packages, quarantine)
    replies = commands.apply(commands.ready(inbox.commands, found.begun, time.time()), backend)
    tick.maintain(reconcile.standstill(inbox, most_running))
    is_quiet = tick.run_until_quiet()
    deferred = triggers.wanted()
    pending = callbacks.pending(inbox, quarantine)
    marker = due.compute(backend.generation + 1, bool(deferred), quarantine, tick, synced.next_parse_at)
    if quarantine.is_of_interest:
        show(quarantine)
        with backend.transaction() as connection:
            quarantine.save(connection)
    generation = backend.publish()

    launches = executor.take_launches()
    _announce(context, generation, inbox, replies)
    reconcile.stop_unwanted(_replaced(launches, inbox), inbox, context, reconcile.STOP_SECONDS)
    _launch(context, launches, generation)
    package_installs.install(synced.missing, inbox, state, launcher)
    callbacks.start(pending, generation, state, launcher)
    triggers.announce(deferred, generation, inbox, state, launcher)
    executor.end()
    stopped = reconcile.stop_unwanted(found.unwanted, inbox, context)
    state.remove(
        [
            *replayed.keys,
            *fired,
            *package_installs.expired(inbox),
            *settled.keys,
            *reconcile.finished_keys(inbox),
            *found.expired,
            *commands.forgotten(inbox.replies, time.time()),
        ]
    )
    if found.again or settled.again:
        state.wake("news was on its way")
    elif not is_quiet:
        state.wake("there is more to schedule")
    elif stopped or commands.may_stop_tasks(inbox.commands.values()):
        # What was stopped is reported as such by the next round; what a command made unwanted is found there first.
        state.wake("calls are no longer wanted")
    elif commands.may_change_dags(inbox.commands.values()):
        state.wake("what DAG files read may have changed")
    state.set_due(marker)
    health.report(state, inbox.health, quarantine)

    counters.rounds += 1
    counters.replayed += replayed.requests
    counters.mismatches += replayed.mismatches
    counters.parsed += len(synced.parsed)
    counters.commands += len(replies)
    counters.launched += len(launches)
    counters.generation = generation
    counters.in_flight = len(executor.running)
    return marker


def _load(context: TickContext, inbox: Inbox) -> None:
    """Load the published database, or the backup that a command wants in its place."""
    backend, state = context.backend, context.state
    wanted = database.wanted(inbox.commands)
    try:
        backend.load()
        check_revision(backend)
        with backend.get_connection() as connection:
            # A tick that was killed after it had published has carried it out.
            wanted = [command for command in wanted if not tables.get_reply(connection, command["id"])]
    except DatabaseError:
        if not wanted:
            raise
    published = state.published()
    generation = published["generation"] if published else 0
    for command in wanted:
        if backend.roll_back(str(command.get("backup")), generation):
            command["is_loaded"] = True  # type: ignore[typeddict-unknown-key]
            _forget_launches(context, inbox)
            check_revision(backend)
            return
    if wanted:
        # They are refused by name, once there is a database.
        backend.load()


def _forget_launches(context: TickContext, inbox: Inbox) -> None:
    """End all tasks that run: a backup knows nothing of what they have told since, and lets them begin anew."""
    for entry in inbox.tasks.values():
        if entry["status"] not in FINAL and (call_id := inbox.call_id(entry)):
            context.launcher.cancel(call_id)
    parts: list[dict[str, Any]] = [inbox.tasks, inbox.journals, inbox.calls, inbox.claims, inbox.heartbeats]
    for part in parts:
        context.state.remove(part)
        part.clear()


def _announce(context: TickContext, generation: int, inbox: Inbox, replies: dict[str, Reply]) -> None:
    """Name the new database together with the replies, so that who reads a reply also finds its effect.

    Only then the commands go: a command without a reply is applied again, which changes nothing.
    """
    published: Published = {"generation": generation}
    at = time.time()
    answers = {f"reply:{inbox.commands[key]['id']}": {**reply, "at": at} for key, reply in replies.items()}
    context.state.update({PUBLISHED: published, **answers})
    context.state.remove(replies)


def _replaced(launches: list[Launch], inbox: Inbox) -> dict[str, Unwanted]:
    """Launches that these replace: of tasks that were cleared when they had begun without our knowledge."""
    from airflow_serverless.scheduler.reconcile import CLEARED, Unwanted

    entries = {_key(launch): launch.id for launch in launches}
    return {
        key: Unwanted(entry, CLEARED)
        for key, entry in inbox.tasks.items()
        if entry["status"] not in FINAL and entry["launch"] != entries.get(key, entry["launch"])
    }


def _launch(context: TickContext, launches: list[Launch], generation: int) -> None:
    """Enter all launches into the Dict, start them in parallel, and note their calls."""
    if not launches:
        return
    entries = {_key(launch): _entry(launch) for launch in launches}
    context.state.update(entries)

    def start(launch: Launch) -> tuple[str, CallNote]:
        # The token would be of no use in the worker, whose API is its own, and is a secret elsewhere.
        workload = {**launch.workload.model_dump(mode="json"), "token": ""}
        payload = {"key": _key(launch), "launch": launch.id, "generation": generation, "workload": workload}
        call_id = context.launcher.spawn_task(payload)
        ti_id = str(launch.workload.ti.id)
        return call_key(ti_id, launch.id), {"ti_id": ti_id, "launch": launch.id, "call_id": call_id, "at": time.time()}

    with ThreadPoolExecutor(min(PARALLEL_SPAWNS, len(launches))) as pool:
        context.state.update(dict(pool.map(start, launches)))


def _key(launch: Launch) -> str:
    ti = launch.workload.ti
    return task_key(ti.dag_id, ti.task_id, ti.run_id, ti.map_index if ti.map_index is not None else -1)


def _entry(launch: Launch) -> TaskEntry:
    ti = launch.workload.ti
    return {
        "status": QUEUED,
        "call_id": None,
        "queued_at": time.time(),
        "completed_at": None,
        "dag_id": ti.dag_id,
        "task_id": ti.task_id,
        "run_id": ti.run_id,
        "map_index": ti.map_index if ti.map_index is not None else -1,
        "try_number": ti.try_number,
        "ti_id": str(ti.id),
        "launch": launch.id,
        "log_path": launch.workload.log_path,
    }


def _awaited(marker: DueMarker, looked_at: float, seconds: float) -> float | None:
    """The next due time, if it comes within so many seconds.

    A time before `looked_at`, when the last round began, does not count: another round would leave it as it is, too.
    """
    next_due = marker["next_due"]
    is_near = next_due is not None and looked_at - CLOCK_SECONDS <= next_due <= time.time() + seconds
    return next_due if is_near else None


def _linger(context: TickContext, marker: DueMarker, looked_at: float, rested_at: float) -> bool:
    """Wait for a due time that is near, or for news; True if there is something to do, not before `rested_at`."""
    until = _awaited(marker, looked_at, LINGER_SECONDS) or 0.0
    while True:
        if context.state.is_awake():
            threading.Event().wait(max(0.0, rested_at - time.monotonic()))
            return True
        remaining = until - time.time()
        if remaining <= 0:
            return until > 0
        threading.Event().wait(min(POLL_SECONDS, remaining))
