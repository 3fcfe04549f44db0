"""Names and values that Airflow's SDK silently changes arrive as they are, or are refused."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from environment import DATABASES, Environment, deployed
from local_modal import wait_until

NAMES = (
    *("limit #1", "limit #2", "limit ", "limit", "a?b=1", "a", "50%25", "50%", "a/b", "a%2Fb", "a b", "grüße", "a//b"),
    *(".", "..", "a/../b", "a/.", "./a", "/a", "a/", "...", "a;b", "a&b", "a+b", "a:b", "\\", "[", "{x}", '"'),
    # What ends like a request that the product treats in a way of its own.
    *("heartbeat", "a/heartbeat", "rtif", "a/rtif", "state", "run", "dag-runs/x", "slice", "item/0", "clear", "value"),
)
DAG = f"""
import json, math
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from airflow.providers.standard.operators.trigger_dagrun import TriggerDagRunOperator
from airflow.sdk import DAG, Asset, Connection, Variable, get_current_context, task

NAMES = {NAMES!r}
asset = Asset("odd asset #1?")


def stores(context):
    return {{"task": context["task_state_store"], "asset": context["asset_state_store"][asset]}}


def book(name, value):
    Path(f"{{get_current_context()['dag_run'].conf['book']}}.{{name}}").write_text(json.dumps(value))


def refusal(call):
    try:
        call()
    except Exception as error:
        return str(error)


with DAG("names", schedule=None, start_date=datetime(2026, 1, 1)):
    @task(outlets=[asset], inlets=[asset])
    def writes():
        context = get_current_context()
        for number, name in enumerate(NAMES):
            Variable.set(name, str(number))
            context["ti"].xcom_push(name, number)
            for store in stores(context).values():
                store.set(name, number)
        numbers = list(range(len(NAMES)))
        found = {{
            "variables": [int(Variable.get(name, "-1")) for name in NAMES] == numbers,
            **{{kind: [store.get(name, -1) for name in NAMES] == numbers for kind, store in stores(context).items()}},
        }}
        for number, name in enumerate(NAMES):
            # What the deletion of another name took along is missed when its own turn comes.
            found[f"variable {{name}}"] = Variable.get(name, None) == str(number)
            Variable.delete(name)
            found[f"no variable {{name}}"] = Variable.get(name, None) is None
            for kind, store in stores(context).items():
                found[f"{{kind}} {{name}}"] = store.get(name) == number
                store.delete(name)
                found[f"no {{kind}} {{name}}"] = store.get(name) is None
        for number, name in enumerate(NAMES):
            Variable.set(name, str(number))
        book("writes", [what for what, is_right in found.items() if not is_right])

    @task
    def reads():
        context = get_current_context()
        pulled = [context["ti"].xcom_pull(task_ids="writes", key=name) for name in NAMES]
        read = [int(Variable.get(name, "-1")) for name in NAMES]
        book("reads", [[name, *found] for name, *found in zip(NAMES, pulled, read) if found != [NAMES.index(name)] * 2])

    writes() >> reads()

with DAG("given", schedule=None, start_date=datetime(2026, 1, 1)):
    @task
    def reads_given(names, rendered):
        book("given", [[Variable.get(name, None) for name in names], rendered])

    reads_given(NAMES, ["{{{{ var.value.get(" + repr(name) + ") }}}}" for name in NAMES])

with DAG("refusals", schedule=None, start_date=datetime(2026, 1, 1)):
    @task(outlets=[asset], inlets=[asset])
    def tries():
        context = get_current_context()
        task_store, asset_store, push = *stores(context).values(), context["ti"].xcom_push
        numbers = {{"big": 2**53 + 1, "float": 1.0, "negative": -0.0, "list": [2**63 - 1, 1e300], "nul": "a\\0b"}}
        for key, value in numbers.items():
            task_store.set(key, value)
            asset_store.set(key, value)
        kept = [repr(store.get(key)) for store in (task_store, asset_store) for key in numbers]
        book("kept", kept == [repr(value) for value in numbers.values()] * 2)
        book("refused", {{
            "NaN, task": refusal(lambda: task_store.set("key", [1.0, math.nan])),
            "NaN, asset": refusal(lambda: asset_store.set("key", {{"a": math.nan}})),
            "Infinity": refusal(lambda: task_store.set("key", math.inf)),
            "line break, variable": refusal(lambda: Variable.set("a\\n", "1")),
            "line break, state": refusal(lambda: task_store.set("a\\nb", 1)),
            "line break, XCom": refusal(lambda: push("a\\n", 1)),
            "slice": refusal(lambda: push("a/slice", 1)),
            "item": refusal(lambda: push("a/item/0", 1)),
            "keys": refusal(lambda: Variable.set("keys", "1")),
            "same keys": refusal(lambda: push("key", {{1: "a", "1": "b"}})),
            "old form": refusal(lambda: push("key", {{"__type": "dict", "__var": {{}}}})),
            "state": task_store.get("key", "nothing"),
            "text NaN": task_store.set("key", "NaN, Infinity"),
        }})

    tries()

with DAG("connections", schedule=None, start_date=datetime(2026, 1, 1)):
    @task
    def reads_connections():
        book("hosts", [Connection.get(f"db#{{number}}").host for number in (1, 2)])

    reads_connections()

with DAG("triggers", schedule=None, start_date=datetime(2026, 1, 1)):
    TriggerDagRunOperator(task_id="triggers", trigger_dag_id="connections", trigger_run_id="cut off#here")

with DAG("events", schedule=None, start_date=datetime(2026, 1, 1)):
    @task(outlets=[asset])
    def says(outlet_events):
        outlet_events[asset].extra = {{"x": math.nan}}

    says()
"""
WORDS = {
    "NaN, task": "NaN cannot be stored",
    "NaN, asset": "NaN cannot be stored",
    "Infinity": "Infinity cannot be stored",
    "line break, variable": "line break",
    "line break, state": "line break",
    "line break, XCom": "line break",
    "slice": "push it under another key",
    "item": "push it under another key",
    "keys": "give it another name",
    "same keys": "would become one as text",
    "old form": "rename one of them",
}


@pytest.fixture(scope="module", params=DATABASES)
def environment(request: pytest.FixtureRequest) -> Iterator[Environment]:
    with deployed(request.param) as environment:
        environment.upload("names.py", DAG)
        yield environment


def run(environment: Environment, dag_id: str) -> str:
    """The state in which a run of the DAG ends."""
    conf = {"book": str(environment.modal.root / dag_id)}
    environment.command(dag_id, kind="trigger", dag_id=dag_id, run_id=dag_id, conf=conf)

    def state() -> str | None:
        environment.call("run_tick", "test")
        found = environment.query("SELECT state FROM dag_run WHERE run_id = ?", dag_id)
        return str(found[0][0]) if found and found[0][0] in ("success", "failed") else None

    return str(wait_until(state, f"the end of the DAG {dag_id}", 120))


def book(environment: Environment, dag_id: str, name: str) -> Any:
    return json.loads((environment.modal.root / f"{dag_id}.{name}").read_text())


def log(environment: Environment, dag_id: str) -> str:
    return "".join(path.read_text() for path in environment.volumes(f"logs/dag_id={dag_id}/**/*.log"))


def test_special_names_do_not_collide(environment: Environment) -> None:
    assert run(environment, "names") == "success", log(environment, "names")
    assert book(environment, "names", "writes") == []
    assert book(environment, "names", "reads") == []
    keys = {key for (key,) in environment.query("SELECT key FROM variable")}
    assert keys == set(NAMES)


def test_variables_with_special_names_are_found_by_tasks(environment: Environment) -> None:
    entries = [{"key": name, "value": f"given {number}"} for number, name in enumerate(NAMES)]
    environment.command("put", kind="put_variables", variables=entries)
    assert run(environment, "given") == "success", log(environment, "given")
    expected = [entry["value"] for entry in entries]
    assert book(environment, "given", "given") == [expected, expected]


def test_values_that_cannot_be_stored_are_refused(environment: Environment) -> None:
    assert run(environment, "refusals") == "success", log(environment, "refusals")
    assert book(environment, "refusals", "kept")
    refused = book(environment, "refusals", "refused")
    assert {what: words for what, words in WORDS.items() if words not in str(refused[what])} == {}
    assert refused["state"] == "nothing"
    assert refused["text NaN"] is None


def test_connection_names_with_a_hash_do_not_collide(environment: Environment) -> None:
    if not environment.connection_string:
        pytest.skip("only the Airflow UI makes connections with such names, and it is read-only with SQLite")
    for number in (1, 2):
        environment.execute(
            "INSERT INTO connection (conn_id, conn_type, host, is_encrypted, is_extra_encrypted) "
            f"VALUES ('db#{number}', 'generic', 'host{number}', false, false)"
        )
    assert run(environment, "connections") == "success", log(environment, "connections")
    assert book(environment, "connections", "hosts") == ["host1", "host2"]


def test_run_is_not_triggered_under_a_truncated_id(environment: Environment) -> None:
    run(environment, "triggers")
    runs = environment.query("SELECT run_id FROM dag_run WHERE dag_id = 'connections' AND run_id LIKE 'cut%'")
    assert runs in ([], [("cut off#here",)])


def test_event_with_nan_fails_its_task(environment: Environment) -> None:
    assert run(environment, "events") == "failed"
    assert "NaN cannot be stored" in log(environment, "events")
