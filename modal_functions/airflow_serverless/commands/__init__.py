"""Applies the daemon's commands to the database: one module for each noun, and here the table of all kinds."""

from __future__ import annotations

import json
import traceback
from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING

from airflow_serverless.commands import (
    backfills,
    connections,
    dags,
    database,
    pools,
    questions,
    runs,
    tasks,
    values,
    variables,
)
from airflow_serverless.commands.command import CommandError, Handler, Reason
from airflow_serverless.db import tables
from airflow_serverless.db.backend import DatabaseBackend
from airflow_serverless.quarantine import is_systemic
from airflow_serverless.state import Command, Reply

if TYPE_CHECKING:
    from sqlalchemy import Connection

CHANGES: Mapping[str, Handler] = {
    "pause": dags.pause,
    "unpause": dags.unpause,
    "trigger": runs.trigger,
    "clear_run": runs.clear,
    "mark_run": runs.mark,
    "clear_tasks": tasks.clear,
    "mark_tasks": tasks.mark,
    "answer_task": questions.answer,
    "create_backfill": backfills.create,
    "pause_backfill": backfills.pause,
    "unpause_backfill": backfills.unpause,
    "cancel_backfill": backfills.cancel,
    "put_variables": variables.put,
    "delete_variable": variables.delete,
    "put_connections": connections.put,
    "delete_connection": connections.delete,
    "put_pools": pools.put,
    "delete_pool": pools.delete,
    database.ROLL_BACK: database.roll_back,
}
"""Applied once, however often they are seen: their replies are kept in the database."""
READS: Mapping[str, Handler] = {
    "refresh": dags.refresh,
    "dry_run_backfill": backfills.dry_run,
    "get_values": values.get,
    "list_variables": variables.list_all,
    "get_variable": variables.get,
    "list_connections": connections.list_all,
    "get_connection": connections.get,
}
"""Answered whenever they are seen. Their replies are kept nowhere but in the Dict, for they may hold secrets."""
VALUE_COMMANDS = frozenset({"put_variables", "delete_variable", "put_connections", "delete_connection"})
"""They change values that DAG files can read while they are imported."""
STOPPING = frozenset({"clear_run", "mark_run", "clear_tasks", "mark_tasks"})
REPLY_SECONDS = 300.0
"""The daemon waits for less: a reply that is older is nobody's any more, and may hold secrets."""
LONGEST_WAIT_SECONDS = 5.0
"""A worker that has begun tells the database within a second, unless it installs packages first."""


def apply(commands: Mapping[str, Command], backend: DatabaseBackend) -> dict[str, Reply]:
    """Carry out the commands, oldest first; returns {key of the command: its reply}."""
    replies: dict[str, Reply] = {}
    for key, command in sorted(commands.items(), key=lambda item: item[1]["at"]):
        if read := READS.get(command["kind"]):
            replies[key] = _carry_out(read, command)
            continue
        with backend.transaction() as connection:
            earlier = tables.get_reply(connection, command["id"])
            reply = json.loads(earlier) if earlier else _change(command, connection)
            tables.set_reply(connection, command["id"], json.dumps(reply))
        replies[key] = reply
    return replies


def _change(command: Command, connection: Connection) -> Reply:
    """Carry out the command as a whole, or not at all: Airflow's functions may commit before they fail."""
    savepoint = connection.begin_nested()
    reply = _carry_out(CHANGES.get(command["kind"]), command)
    if reply["ok"]:
        savepoint.commit()
    else:
        savepoint.rollback()
    return reply


def ready(commands: Mapping[str, Command], begun: Collection[tuple[str, str]], now: float) -> dict[str, Command]:
    """The commands that can be carried out. `begun`: (DAG, run) of tasks that run, which the database does not know.

    What stops tasks waits for a moment until it does: Airflow treats those that run otherwise than queued ones.
    """

    def waits(command: Command) -> bool:
        about = (command.get("dag_id"), command.get("run_id"))
        return command["kind"] in STOPPING and about in begun and now < command["at"] + LONGEST_WAIT_SECONDS

    return {key: command for key, command in commands.items() if not waits(command)}


def forgotten(replies: Mapping[str, Reply], now: float) -> list[str]:
    """Keys of replies that nobody takes: who asked has given up or died."""
    return [key for key, reply in replies.items() if reply.get("at", 0.0) < now - REPLY_SECONDS]


def may_stop_tasks(commands: Iterable[Command]) -> bool:
    """Whether calls may run now that nobody wants any more: the next look at the Dict finds them."""
    return any(command["kind"] in STOPPING for command in commands)


def may_change_dags(commands: Iterable[Command]) -> bool:
    """Whether DAG files may have to be parsed again."""
    return any(command["kind"] in VALUE_COMMANDS for command in commands)


def _carry_out(handler: Handler | None, command: Command) -> Reply:
    kind = command["kind"]
    if handler is None:
        return _refusal(f"unknown command {kind!r}", "invalid")
    try:
        return {"ok": True, "error": None, "reason": None, "result": handler(command)}
    except KeyError as error:
        return _refusal(f"the command {kind!r} lacks {error}", "invalid")
    except CommandError as error:
        return _refusal(str(error), error.reason)
    except BaseException as error:
        if not isinstance(error, Exception) and is_systemic(error):
            raise
        # A command that ended the tick would end all that follow, too: it stays until it has a reply.
        traceback.print_exc()
        return _refusal(f"the command {kind!r} failed: {type(error).__name__}: {error}", "invalid")


def _refusal(error: str, reason: Reason) -> Reply:
    return {"ok": False, "error": error, "reason": reason, "result": {}}
