"""Replays what tasks recorded: ticks on the real database, before anything else, and tasks on their copies of it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import httpx

from airflow_serverless.db import tables
from airflow_serverless.execution_api import in_process, task_api
from airflow_serverless.state import JournalRecord, Request

if TYPE_CHECKING:
    from sqlalchemy import Connection

SETTLED = frozenset({"success", "failed", "skipped", "up_for_retry"})


@dataclass
class Replayed:
    """`requests` applied, `mismatches` for the log, `keys` of Dict entries to remove once this is committed."""

    requests: int = 0
    mismatches: list[str] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)


def replay(journals: Mapping[str, JournalRecord], connection: Connection) -> Replayed:
    """Apply all journal records that follow on what was applied before; others wait for those missing.

    `connection` is one to the database of Airflow's ORM, and commits how far each launch was applied.
    """
    result = Replayed()
    if not journals:
        return result
    launches: dict[tuple[str, str], list[tuple[str, JournalRecord]]] = defaultdict(list)
    for key, record in journals.items():
        launches[record["ti_id"], record["launch"]].append((key, record))
    due: list[tuple[float, tuple[str, str], Request]] = []
    offsets: dict[tuple[str, str], tuple[int, bool]] = {}
    for launch, records in launches.items():
        sequence, aborted = tables.get_offset(connection, *launch)
        for key, record in sorted(records, key=lambda item: item[1]["sequence"]):
            if record["sequence"] > sequence:
                break
            result.keys.append(key)
            if record["sequence"] == sequence:
                due.extend((request["at"], launch, request) for request in record["requests"])
                sequence += 1
        offsets[launch] = (sequence, aborted)
    # Across tasks the order of the workers' clocks; within a task the order of its requests (the sort is stable).
    dropped = _apply(sorted(due, key=lambda item: item[0]), {k for k, v in offsets.items() if v[1]}, result)
    for launch, (sequence, _) in offsets.items():
        tables.set_offset(connection, *launch, sequence, launch in dropped)
    connection.commit()
    return result


def _apply(
    due: Iterable[tuple[float, tuple[str, str], Request]], dropped: set[tuple[str, str]], result: Replayed
) -> set[tuple[str, str]]:
    """Send the requests; returns the launches whose requests are dropped, those given included."""
    with httpx.Client(transport=in_process.transport(), base_url=in_process.BASE_URL) as client:
        for _, launch, request in due:
            if launch in dropped:
                continue
            answer = task_api.repeat(client, request)
            result.requests += 1
            if answer.is_success:
                continue
            line = f"{request['method']} {request['path']}: {request['status']} there, {answer.status_code} here"
            result.mismatches.append(line)
            if task_api.operation(request["path"]) == "run" and not _is_settled(answer):
                # The task instance has moved on (cleared, killed, retried): nothing of this launch may count.
                dropped.add(launch)
    return dropped


def _is_settled(answer: httpx.Response) -> bool:
    """A start that is refused because the task has ended was applied before."""
    if answer.status_code != 409:
        return False
    detail: Any = answer.json().get("detail")
    return isinstance(detail, dict) and detail.get("previous_state") in SETTLED
