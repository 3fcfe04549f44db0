"""A command that is refused, at whatever step of it, has changed nothing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from environment import DATABASES, Environment, deployed
from local_modal import wait_until

DAG = """
import datetime
from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG, AsyncCallback, DeadlineAlert, DeadlineReference, Param
from airflow.sdk.definitions.deadline import VariableInterval

async def nothing(**_):
    pass

def dag(name, schedule=None, **more):
    return DAG(name, schedule=schedule, start_date=datetime.datetime(2026, 1, 1), catchup=False, **more)

late = DeadlineAlert(DeadlineReference.DAGRUN_QUEUED_AT, VariableInterval("seconds_until_late"), AsyncCallback(nothing))

# Its runs cannot be made: Airflow finds out when they are in the database.
with dag("undue", deadline=late):
    EmptyOperator(task_id="one")

with dag("undue_daily", "@daily", deadline=late, is_paused_upon_creation=True):
    EmptyOperator(task_id="one")

with dag("checked", params={"count": Param(1, type="integer")}):
    EmptyOperator(task_id="one") >> EmptyOperator(task_id="two")
"""

TABLES = {
    "dag_run": "SELECT dag_id, run_id, state FROM dag_run ORDER BY 1, 2",
    "task_instance": "SELECT task_id, run_id, state, try_number FROM task_instance ORDER BY 2, 1",
    "backfill": "SELECT dag_id FROM backfill",
    "variable": "SELECT key FROM variable ORDER BY 1",
    "connection": "SELECT conn_id, host FROM connection ORDER BY 1",
    "slot_pool": "SELECT pool, slots FROM slot_pool ORDER BY 1",
    "dag": "SELECT dag_id, is_paused FROM dag ORDER BY 1",
}
BACKFILL = {"kind": "create_backfill", "from_date": "2026-01-02", "to_date": "2026-01-04"}
TASK = {"dag_id": "checked", "run_id": "kept", "task_id": "one"}
NUL, LONG = "nul \0", "x" * 600
REFUSED: dict[str, dict[str, Any]] = {
    "trigger after the flush": {"kind": "trigger", "dag_id": "undue", "run_id": "undue"},
    "trigger with a logical date": {"kind": "trigger", "dag_id": "undue", "logical_date": "2026-02-03"},
    "trigger with a wrong date": {"kind": "trigger", "dag_id": "checked", "logical_date": "2026-02-30"},
    "trigger with wrong conf": {"kind": "trigger", "dag_id": "checked", "conf": {"count": "many"}},
    "trigger with conf of a wrong type": {"kind": "trigger", "dag_id": "checked", "conf": 1},
    "trigger with a partition key of a wrong type": {"kind": "trigger", "dag_id": "checked", "partition_key": 1},
    "trigger with a run id of a wrong type": {"kind": "trigger", "dag_id": "checked", "run_id": ["x"]},
    "backfill whose runs cannot be made": {**BACKFILL, "dag_id": "undue_daily"},
    "variables of which one lacks its value": {
        "kind": "put_variables",
        "variables": [{"key": "first", "value": "1"}, {"key": "second"}, {"key": "third", "value": "3"}],
    },
    "variables of which one has a wrong key": {
        "kind": "put_variables",
        "variables": [{"key": "first", "value": "1"}, {"key": "a\nb", "value": "2"}],
    },
    "connections of which one is wrong": {
        "kind": "put_connections",
        "connections": [
            {"connection_id": "known", "conn_type": "http", "host": "other"},
            {"connection_id": "second", "conn_type": "http", "port": "x"},
        ],
    },
    "connections of which one cannot be bound": {
        "kind": "put_connections",
        "connections": [
            {"connection_id": "known", "conn_type": "http", "host": "other"},
            {"connection_id": "second", "conn_type": "http", "host": ["x"]},
        ],
    },
    "pools of which one lacks its slots": {
        "kind": "put_pools",
        "pools": [{"name": "known", "slots": 9}, {"name": "second"}],
    },
    "mark as a state that there is not": {"kind": "mark_tasks", **TASK, "new_state": "running"},
    "mark a run as a state that there is not": {"kind": "mark_run", **TASK, "state": "running"},
    "mark what is so already": {"kind": "mark_tasks", **TASK, "new_state": "success"},
    "clear a task that there is not": {"kind": "clear_tasks", **TASK, "task_id": "none"},
}
REFUSED_BY_POSTGRES: dict[str, dict[str, Any]] = {
    "trigger with conf that cannot be stored": {"kind": "trigger", "dag_id": "checked", "conf": {"text": NUL}},
    "variables of which one cannot be stored": {
        "kind": "put_variables",
        "variables": [{"key": "first", "value": "1"}, {"key": "second", "value": "2", "description": NUL}],
    },
    "connections of which one cannot be stored": {
        "kind": "put_connections",
        "connections": [
            {"connection_id": "known", "conn_type": "http", "host": "other"},
            {"connection_id": "second", "conn_type": "http", "host": LONG},
        ],
    },
    "pools of which one cannot be stored": {
        "kind": "put_pools",
        "pools": [{"name": "known", "slots": 9}, {"name": "second", "slots": 2**40}],
    },
}


@pytest.fixture(scope="module", params=DATABASES)
def environment(request: pytest.FixtureRequest) -> Iterator[Environment]:
    with deployed(request.param) as environment:
        environment.upload("refused.py", DAG)
        prepared: dict[str, dict[str, Any]] = {
            "run": {"kind": "trigger", "dag_id": "checked", "run_id": "kept"},
            "connection": {
                "kind": "put_connections",
                "connections": [{"connection_id": "known", "conn_type": "http", "host": "h"}],
            },
            "pool": {"kind": "put_pools", "pools": [{"name": "known", "slots": 1}]},
        }
        replies = carry_out(environment, prepared)
        assert all(reply["ok"] for reply in replies.values()), replies
        wait_until(lambda: environment.query("SELECT state FROM dag_run") == [("success",)], "the end of the run", 60)
        yield environment


def carry_out(environment: Environment, commands: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """{name: reply}"""
    for name, command in commands.items():
        environment.command(name, **command)
    environment.call("run_tick", "test")

    def replies() -> dict[str, Any] | None:
        state = environment.state()
        found = {name: state.get(f"reply:{name}") for name in commands}
        return found if all(found.values()) else None

    return wait_until(replies, "the replies", 60)


def content(environment: Environment) -> dict[str, list[tuple[Any, ...]]]:
    return {table: environment.query(query) for table, query in TABLES.items()}


def test_refused_commands_change_nothing(environment: Environment) -> None:
    commands = REFUSED | (REFUSED_BY_POSTGRES if environment.connection_string else {})
    before = content(environment)
    replies = carry_out(environment, commands)
    assert not {name for name, reply in replies.items() if reply["ok"]}
    after = content(environment)
    assert after == before, {table: set(after[table]) ^ set(before[table]) for table in TABLES}


def test_commands_beside_a_refused_one_succeed(environment: Environment) -> None:
    commands: dict[str, dict[str, Any]] = {
        "before": {"kind": "put_variables", "variables": [{"key": "before", "value": "1"}]},
        "refused": {"kind": "trigger", "dag_id": "undue", "run_id": "refused"},
        "after": {"kind": "trigger", "dag_id": "checked", "run_id": "after"},
    }
    replies = carry_out(environment, commands)
    assert [replies[name]["ok"] for name in commands] == [True, False, True], replies
    assert environment.query("SELECT key FROM variable WHERE key = 'before'")
    assert [run for (run,) in environment.query("SELECT run_id FROM dag_run ORDER BY 1")] == ["after", "kept"]
