"""What Airflow would accept and cannot work here: refused by name when a file is parsed, rather than dropped silently.

The validator before an upload and the scheduler's own parse both ask here, so they say the same.
"""

from __future__ import annotations

import ast
import contextlib
import datetime
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from dateutil.relativedelta import relativedelta

from airflow_serverless import regular
from airflow_serverless.config import LONGEST_TIMEOUT_SECONDS

if TYPE_CHECKING:
    from airflow.sdk import DAG

SHORTEST_INTERVAL = datetime.timedelta(seconds=1)
LONGEST_DELAY = datetime.timedelta(days=365_000)
"""A thousand years. Python's dates end with the year 9999, and Airflow computes with times from now on."""


class Refusal(NamedTuple):
    """`reason` is for the user; `argument` of the DAG or task `owner` (its id) is what it is about."""

    reason: str
    argument: str
    owner: str


def refusals(dag: DAG) -> Iterator[Refusal]:
    """All that this DAG asks for in vain."""
    for asset in _watched(dag):
        yield Refusal(
            f"DAG {dag.dag_id!r}: asset {asset!r} has watchers, which need a trigger that always runs; nothing here "
            "does. Let an outside event call `dags trigger`, or schedule the DAG by time",
            "watchers",
            asset,
        )
    interval = _interval(dag.timetable)
    if interval is not None and interval < SHORTEST_INTERVAL:
        yield Refusal(
            f"DAG {dag.dag_id!r}: a schedule of {interval.total_seconds():g} s is finer than the shortest here, 1 s",
            "schedule",
            dag.dag_id,
        )
    if dag.dagrun_timeout is not None and dag.dagrun_timeout > LONGEST_DELAY:
        yield Refusal(
            f"DAG {dag.dag_id!r}: a dagrun_timeout of {dag.dagrun_timeout.days} days is longer than the longest here, "
            f"{LONGEST_DELAY.days} days; leave it out for runs without a timeout",
            "dagrun_timeout",
            dag.dag_id,
        )
    for task in dag.tasks:
        name = f"task {task.task_id!r} of DAG {dag.dag_id!r}"
        if user := _argument(task, "run_as_user"):
            yield Refusal(
                f"{name}: run_as_user={user!r} is not possible, as a container has one user; remove it",
                "run_as_user",
                task.task_id,
            )
        for argument in ("retry_delay", "max_retry_delay"):
            delay = _argument(task, argument)
            if isinstance(delay, datetime.timedelta) and delay > LONGEST_DELAY:
                yield Refusal(
                    f"{name}: a {argument} of {delay.days} days ends after the last date that there is; "
                    f"use at most {LONGEST_DELAY.days} days",
                    argument,
                    task.task_id,
                )
        timeout = _argument(task, "execution_timeout")
        if timeout is not None and timeout.total_seconds() > LONGEST_TIMEOUT_SECONDS:
            yield Refusal(
                f"{name}: an execution_timeout of {timeout} is longer than a Modal Function may run, "
                f"{LONGEST_TIMEOUT_SECONDS // 3600} hours; split the task, or let it be deferred",
                "execution_timeout",
                task.task_id,
            )


def executor_refusal(text: str) -> Refusal | None:
    """The refusal that Airflow's complaint about an unknown executor stands for, if `text` is one."""
    kind, _, message = text.partition(": ")
    if kind != "UnknownExecutorException":
        return None
    reason = f"{message.partition(', which')[0]}, but all tasks run on Modal; remove the argument `executor`"
    return Refusal(reason, "executor", message.split("'")[1])


def line_of(path: Path, refusal: Refusal) -> int | None:
    """The line with the argument in the call that names its owner, else with any such argument; None without one."""
    own, any_line = None, None
    for node in _nodes(path):
        if not isinstance(node, ast.Call):
            continue
        for keyword in node.keywords:
            if keyword.arg == refusal.argument:
                any_line = any_line or keyword.lineno
                own = own or (keyword.lineno if _names(node, refusal.owner) else None)
    return own or any_line


def line_of_owner(path: Path, owner: str) -> int | None:
    """The line with the call that makes the DAG or task of this id, or with the decorated function of this name."""
    calls, functions = [], []
    for node in _nodes(path):
        if isinstance(node, ast.Call) and _names(node, owner):
            calls.append(node.lineno)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name == owner and node.decorator_list:
            functions.append(node.decorator_list[0].lineno)
    return min(calls or functions, default=None)


def _nodes(path: Path) -> Iterator[ast.AST]:
    try:
        return ast.walk(ast.parse(regular.read_bytes(path)))
    except (SyntaxError, ValueError):
        # An archive: its DAGs are in files of their own.
        return iter(())


def _names(call: ast.Call, owner: str) -> bool:
    values = [*call.args, *(keyword.value for keyword in call.keywords)]
    return any(isinstance(value, ast.Constant) and value.value == owner for value in values)


def _watched(dag: DAG) -> list[str]:
    """Names of assets with watchers, in the schedule and at the tasks."""
    places = [getattr(dag.timetable, "asset_condition", None)]
    places += [item for task in dag.tasks for item in (*task.inlets, *task.outlets)]
    return sorted({asset.name for place in places for asset in _assets(place) if getattr(asset, "watchers", None)})


def _assets(place: Any) -> Iterator[Any]:
    """The assets of a condition, or the asset itself."""
    for item in getattr(place, "objects", ()):
        yield from _assets(item)
    if not hasattr(place, "objects"):
        yield place


def _interval(timetable: Any) -> datetime.timedelta | None:
    """The time between two runs, where a timetable states it."""
    inner = getattr(timetable, "timetable", timetable)
    delta = getattr(inner, "delta", None)
    if isinstance(delta, relativedelta):
        # Months differ, but all are longer than what is refused.
        moment = datetime.datetime(2026, 1, 1)
        with contextlib.suppress(OverflowError, ValueError):
            return moment + delta - moment
    return delta if isinstance(delta, datetime.timedelta) else None


def _argument(task: Any, name: str) -> Any:
    """An argument of a task, mapped or not."""
    return getattr(task, name, None) or getattr(task, "partial_kwargs", {}).get(name)
