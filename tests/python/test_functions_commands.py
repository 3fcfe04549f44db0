"""What people tell the scheduler: tasks run again or marked, variables, connections and pools."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from environment import Environment, deployed
from local_modal import wait_until

DAGS = """
import datetime, os, subprocess, time
from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import BaseHook, DAG, Variable, get_current_context, task

def dag(name, **more):
    return DAG(name, schedule=None, start_date=datetime.datetime(2026, 1, 1), **more)

with dag("mended"):
    @task
    def first():
        return [1, 2]
    @task
    def fragile(number):
        if number == 2 and not os.path.exists(get_current_context()["dag_run"].conf["mended"]):
            raise RuntimeError("broken")
        return number
    @task
    def total(numbers):
        return sum(numbers)
    total(fragile.expand(number=first()))

with dag("long"):
    @task
    def sleeps():
        go = get_current_context()["dag_run"].conf["go"]
        with open(go + ".pids", "a+") as pids:
            pids.seek(0)
            for pid in pids.read().split():
                process = f"/proc/{pid}/cmdline"
                assert not (os.path.exists(process) and open(process).read()), "an earlier attempt still runs"
            print(os.getpid(), file=pids)
            if os.path.exists(go):
                return "slept"
            stubborn = subprocess.Popen(["sh", "-c", "trap '' TERM; while :; do sleep 1; done"])
            print(stubborn.pid, file=pids)
        time.sleep(600)
    sleeps() >> EmptyOperator(task_id="after")

with dag("secrets"):
    @task
    def speaks():
        print("variable", Variable.get("api_token"), Variable.get("from_env_secret"))
        connection = BaseHook.get_connection("warehouse")
        print("connection", connection.host, connection.password)
        return len(Variable.get("api_token"))
    speaks()
"""
TOKEN, PASSWORD = "tok-7f3a91", "p@ss w0rd/51"


@pytest.fixture(scope="module")
def environment() -> Iterator[Environment]:
    with deployed("sqlite") as environment:
        environment.upload("commanded.py", DAGS)
        yield environment


def reply(environment: Environment, identifier: str, **command: Any) -> dict[str, Any]:
    """The answer to one command, taken out of the Dict as the daemon does."""
    environment.command(identifier, **command)
    environment.call("run_tick", "test")

    def taken() -> Any:
        return environment.modal.sdk(
            f'answer(modal.Dict.from_name("airflow-state-test").pop("reply:{identifier}", None))'
        )

    return wait_until(taken, f"the reply to {identifier}")


def result(environment: Environment, identifier: str, **command: Any) -> dict[str, Any]:
    answer = reply(environment, identifier, **command)
    assert answer["ok"], answer
    return answer["result"]


def states(environment: Environment, run_id: str) -> dict[str, str | None]:
    """{task, with `[index]` when mapped: state}"""
    rows = environment.query("SELECT task_id, map_index, state FROM task_instance WHERE run_id = ?", run_id)
    return {task if index < 0 else f"{task}[{index}]": state for task, index, state in rows}


def wait_for_run(environment: Environment, run_id: str, state: str) -> None:
    def reached() -> bool:
        return environment.query("SELECT state FROM dag_run WHERE run_id = ?", run_id) == [(state,)]

    wait_until(reached, f"run {run_id} to be {state}", limit=60)


def wait_until_it_runs(environment: Environment, key: str) -> dict[str, Any]:
    """The entry of a task that has begun; the database learns of it with the next tick."""
    return wait_until(
        lambda: (e := environment.state().get(key)) and e["status"] == "RUNNING" and e, f"{key} to run", 60
    )


def names(result: dict[str, Any]) -> list[str]:
    tasks = result["task_instances"]
    return sorted(t["task_id"] if t["map_index"] < 0 else f"{t['task_id']}[{t['map_index']}]" for t in tasks)


def test_cleared_tasks_run_again(environment: Environment) -> None:
    mended = environment.modal.root / "mended"
    run = {"dag_id": "mended", "run_id": "m"}
    result(environment, "m-1", kind="trigger", **run, conf={"mended": str(mended)})
    wait_for_run(environment, "m", "failed")
    assert states(environment, "m") == {
        "first": "success",
        "fragile[0]": "success",
        "fragile[1]": "failed",
        "total": "upstream_failed",
    }
    absent = reply(environment, "m-2", kind="clear_tasks", **run, task_id="fragile", map_index=7)
    assert absent["reason"] == "not_found" and "indexes 0, 1" in absent["error"], absent
    absent = reply(environment, "m-3", kind="clear_tasks", **run, task_id="fragil")
    assert absent["reason"] == "not_found" and "its tasks: first, fragile, total" in absent["error"], absent
    absent = reply(environment, "m-4", kind="clear_run", dag_id="mended", run_id="n")
    assert absent["reason"] == "not_found" and "no run 'n'" in absent["error"], absent

    mended.touch()
    cleared = result(
        environment, "m-5", kind="clear_tasks", **run, task_id="fragile", only_failed=True, include_downstream=True
    )
    assert names(cleared) == ["fragile[1]", "total"]
    wait_for_run(environment, "m", "success")
    tries = "SELECT task_id, map_index, try_number FROM task_instance WHERE run_id = 'm' ORDER BY 1, 2"
    assert environment.query(tries) == [("first", -1, 1), ("fragile", 0, 1), ("fragile", 1, 2), ("total", -1, 1)]
    [payload] = environment.volumes("xcom/mended/m/total/return_value")
    assert json.loads(payload.read_text()) == 3

    assert result(environment, "m-6", kind="clear_run", **run, only_failed=True) == {"task_instances": []}
    assert len(result(environment, "m-7", kind="clear_run", **run)["task_instances"]) == 4
    wait_for_run(environment, "m", "success")
    assert environment.query(tries)[:2] == [("first", -1, 2), ("fragile", 0, 2)]


def test_running_task_is_stopped_by_clear_and_mark(environment: Environment) -> None:
    go, key = environment.modal.root / "go", "task:long:sleeps:l"
    run = {"dag_id": "long", "run_id": "l"}
    result(environment, "l-1", kind="trigger", **run, conf={"go": str(go)})
    wait_until_it_runs(environment, key)
    pids = go.with_name("go.pids")
    wait_until(lambda: pids.exists() and pids.read_text(), "the task to have begun")
    go.touch()
    assert names(result(environment, "l-2", kind="clear_tasks", **run, task_id="sleeps")) == ["sleeps"]
    wait_for_run(environment, "l", "success")
    assert environment.query("SELECT state, try_number FROM task_instance WHERE task_id = 'sleeps'") == [("success", 2)]
    assert len(pids.read_text().split()) == 3

    go.unlink()
    assert names(result(environment, "l-3", kind="clear_run", **run)) == ["after", "sleeps"]
    running = wait_until_it_runs(environment, key)
    marked = result(environment, "l-4", kind="mark_tasks", **run, task_id="sleeps", new_state="success")
    assert names(marked) == ["sleeps"]
    wait_for_run(environment, "l", "success")
    call = wait_until(lambda: (e := environment.state()[key])["status"] == "FAILED" and e, "the call's end")
    assert call["launch"] == running["launch"] and "no longer wanted" in call["error"]
    again = reply(environment, "l-5", kind="mark_tasks", **run, task_id="sleeps", new_state="success")
    assert again["reason"] == "conflict" and "is success already" in again["error"], again
    wrong = reply(environment, "l-6", kind="mark_tasks", **run, task_id="sleeps", new_state="running")
    assert wrong["reason"] == "invalid" and "use success, failed, skipped" in wrong["error"], wrong

    result(environment, "l-7", kind="clear_run", **run)
    wait_until_it_runs(environment, key)
    result(environment, "l-8", kind="mark_run", **run, state="failed")
    wait_for_run(environment, "l", "failed")
    assert states(environment, "l") == {"sleeps": "failed", "after": "skipped"}
    stopped = pids.read_text().split()
    wait_until(lambda: not any(runs(pid) for pid in stopped), "the stopped tasks' processes to end")


def runs(pid: str) -> bool:
    """Whether a process has not ended; one that nobody has waited for yet has no command line."""
    command_line = Path("/proc", pid, "cmdline")
    return command_line.exists() and bool(command_line.read_bytes())


def test_secrets_are_encrypted_and_masked(environment: Environment) -> None:
    variables = [
        {"key": "api_token", "value": TOKEN, "description": "of the API"},
        {"key": "from_env_secret", "value": "short-5521"},
        {"key": "plain", "value": {"depth": [1, 2], "password": "nested-77"}},
    ]
    assert result(environment, "v-1", kind="put_variables", variables=variables) == {
        "written": ["api_token", "from_env_secret", "plain"],
        "skipped": [],
    }
    uri = "postgres://loader:p%40ss%20w0rd%2F51@db.example:5433/dwh?sslmode=require&token=hidden-91"
    assert result(environment, "v-2", kind="put_connections", connections=[{"connection_id": "warehouse", "uri": uri}])[
        "written"
    ] == ["warehouse"]
    run = result(environment, "v-3", kind="trigger", dag_id="secrets", run_id="s")
    wait_for_run(environment, run["dag_run_id"], "success")
    [log] = environment.volumes("logs/dag_id=secrets/run_id=s/task_id=speaks/attempt=1.log")
    text = log.read_text()
    assert "variable *** ***" in text and "connection db.example ***" in text, text
    assert TOKEN not in text and PASSWORD not in text

    shown = result(environment, "v-4", kind="get_variable", key="api_token", hide_sensitive=False)
    assert shown == {"key": "api_token", "value": TOKEN, "description": "of the API", "is_encrypted": True}
    listed = result(environment, "v-5", kind="list_variables", limit=2, offset=1, hide_sensitive=True)
    assert listed["total_entries"] == 3
    assert [entry["value"] for entry in listed["variables"]] == ["***", '{"depth": [1, 2], "password": "***"}']
    shown = result(environment, "v-6", kind="get_connection", connection_id="warehouse", hide_sensitive=True)
    assert (shown["host"], shown["port"], shown["password"]) == ("db.example", 5433, "***")
    assert json.loads(shown["extra"]) == {"sslmode": "require", "token": "***"}
    shown = result(environment, "v-7", kind="get_connection", connection_id="warehouse", hide_sensitive=False)
    assert shown["password"] == PASSWORD and "p%40ss" in shown["uri"]

    [published] = environment.volumes("data/airflow.db")
    content = published.read_bytes()
    for secret in (TOKEN, PASSWORD, "hidden-91", "nested-77", "p%40ss"):
        assert secret.encode() not in content, f"{secret} lies in the database in clear text"
        assert secret not in str(environment.state()), f"{secret} was left in the Dict"


def test_unread_reply_expires(environment: Environment) -> None:
    result(environment, "f-1", kind="put_variables", variables=[{"key": "forgotten", "value": "forgotten-83"}])
    for identifier in "f-2", "f-3":
        environment.command(identifier, kind="get_variable", key="forgotten", hide_sensitive=False)
    environment.call("run_tick", "test")
    held = wait_until(lambda: (s := environment.state()) and "reply:f-3" in s and s, "the replies")
    assert held["reply:f-2"]["result"]["value"] == held["reply:f-3"]["result"]["value"] == "forgotten-83"
    # As if who asked for one of them had died long ago.
    old = held["reply:f-2"] | {"at": held["reply:f-2"]["at"] - 301}
    environment.modal.sdk(f'modal.Dict.from_name("airflow-state-test")["reply:f-2"] = {old!r}')
    assert result(environment, "f-4", kind="delete_variable", key="forgotten") == {}
    wait_until(lambda: "reply:f-2" not in environment.state(), "the end of the old reply")
    assert "reply:f-3" in environment.state()


def test_invalid_writes_are_refused(environment: Environment) -> None:
    one = [{"connection_id": "c", "conn_type": "http", "host": "h"}]
    result(environment, "r-1", kind="put_connections", connections=one)
    result(environment, "r-2", kind="put_pools", pools=[{"name": "few", "slots": 2, "include_deferred": True}])
    assert environment.query("SELECT slots, include_deferred FROM slot_pool WHERE pool = 'few'") == [(2, 1)]
    cases: dict[str, tuple[str, str, dict[str, Any]]] = {
        "r-3": ("conflict", "exist already: c", {"kind": "put_connections", "connections": one}),
        "r-4": ("invalid", "no line break", {"kind": "put_variables", "variables": [{"key": "a\nb", "value": "1"}]}),
        "r-5": ("invalid", "no type", {"kind": "put_connections", "connections": [{"connection_id": "d"}]}),
        "r-6": ("invalid", "slots must be", {"kind": "put_pools", "pools": [{"name": "p", "slots": -2}]}),
        "r-7": ("invalid", "cannot be deleted", {"kind": "delete_pool", "name": "default_pool"}),
        "r-8": ("not_found", "no pool 'p'", {"kind": "delete_pool", "name": "p"}),
        "r-9": ("not_found", "no variable 'v'", {"kind": "delete_variable", "key": "v"}),
        "r-10": ("not_found", "no connection 'v'", {"kind": "get_connection", "connection_id": "v"}),
        "r-11": (
            "invalid",
            "URI, port and extra",
            {
                "kind": "put_connections",
                "connections": [{"connection_id": "x", "conn_type": "h", "extra": "hunter2"}],
            },
        ),
    }
    for identifier, (_, _, command) in cases.items():
        environment.command(identifier, **command, action_on_existing_key="fail")
    environment.call("run_tick", "test")
    replies = wait_until(lambda: (s := environment.state()) and "reply:r-11" in s and s, "the replies")
    for identifier, (reason, words, _) in cases.items():
        answer = replies[f"reply:{identifier}"]
        assert (answer["ok"], answer["reason"]) == (False, reason), answer
        assert words in answer["error"] and "hunter2" not in answer["error"], answer
    skipped = result(environment, "r-12", kind="put_connections", connections=one, action_on_existing_key="skip")
    assert skipped == {"written": [], "skipped": ["c"]}
    for identifier, command in {
        "r-13": {"kind": "delete_pool", "name": "few"},
        "r-14": {"kind": "delete_connection", "connection_id": "c"},
    }.items():
        assert result(environment, identifier, **command) == {}
