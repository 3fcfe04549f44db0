"""What a running task writes survives its container, and other running tasks see it."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from environment import DATABASES, Environment, deployed
from local_modal import wait_until

DAG = """
import os, signal
from datetime import datetime, timedelta
from pathlib import Path
from time import monotonic, sleep
import json
from airflow.sdk import DAG, Asset, Variable, get_current_context, task

asset = Asset("durable_asset")


def conf(name):
    return get_current_context()["dag_run"].conf.get(name)


def kill_container():
    os.kill(os.getppid(), signal.SIGKILL)
    os.kill(os.getpid(), signal.SIGKILL)


def wait_for(holds, seconds=60):
    until = monotonic() + seconds
    while not holds():
        assert monotonic() < until, "waited in vain"
        sleep(0.1)


def read(context):
    key = conf("key")
    return {
        "state": context["task_state_store"].get(key),
        "asset": context["asset_state_store"][asset].get(key),
        "variable": Variable.get(key, None),
        "deleted": Variable.get(f"{key}_before", None),
    }


with DAG("killed", schedule=None, start_date=datetime(2026, 1, 1)):
    @task(retries=1, retry_delay=timedelta(0), outlets=[asset], inlets=[asset])
    def retries():
        context = get_current_context()
        if context["ti"].try_number == 2:
            Path(conf("book")).write_text(json.dumps(read(context)))
            return
        key, write = conf("key"), {
            "state": lambda: context["task_state_store"].set(key, 1),
            "asset": lambda: context["asset_state_store"][asset].set(key, 1),
            "variable": lambda: Variable.set(key, "1"),
            "deleted": lambda: Variable.delete(f"{key}_before"),
        }
        write[key]()
        kill_container()

    retries()

with DAG("lost", schedule=None, start_date=datetime(2026, 1, 1)):
    @task
    def writes():
        get_current_context()["ti"].xcom_push("job", {"id": 1})
        kill_container()

    @task(trigger_rule="all_done")
    def reads():
        Path(conf("book")).write_text(json.dumps(get_current_context()["ti"].xcom_pull(task_ids="writes", key="job")))

    writes() >> reads()

with DAG("siblings", schedule=None, start_date=datetime(2026, 1, 1)):
    @task(outlets=[asset], inlets=[asset], task_id="writes")
    def writes_and_stays():
        context = get_current_context()
        wait_for(Path(conf("ready")).exists)
        for number in (1, 2):
            Variable.set(conf("key"), str(number))
            context["ti"].xcom_push("job", {"id": number})
            context["asset_state_store"][asset].set(conf("key"), number)
            wait_for(Path(f"{conf('book')}{number}").exists)

    @task(outlets=[asset], inlets=[asset])
    def reads():
        context = get_current_context()
        Path(conf("ready")).touch()
        for number in (1, 2):
            wait_for(lambda: read(context)["asset"] == number)
            wait_for(lambda: read(context)["variable"] == str(number))
            wait_for(lambda: context["ti"].xcom_pull(task_ids="writes", key="job") == {"id": number})
            Path(f"{conf('book')}{number}").touch()

    writes_and_stays(), reads()

with DAG("plain", schedule=None, start_date=datetime(2026, 1, 1)):
    @task(multiple_outputs=True)
    def returns():
        return {"one": 1, "two": 2}

    returns()
"""
WRITES = {"state": 1, "asset": 1, "variable": "1", "deleted": None}
"""What a task writes, and what its second try finds."""
STATES = "SELECT task_id, state FROM task_instance WHERE run_id = ? ORDER BY task_id"


@pytest.fixture(scope="module", params=itertools.product(DATABASES, ("bind", "strict")), ids="-".join)
def environment(request: pytest.FixtureRequest) -> Iterator[Environment]:
    """On both databases, and where a container sees of a Volume only what was committed before it looked."""
    database, volumes = request.param
    with deployed(database, "--volumes", volumes) as environment:
        environment.upload("durable.py", DAG)
        yield environment


def run(environment: Environment, dag_id: str, run_id: str, **conf: Any) -> None:
    environment.command(run_id, kind="trigger", dag_id=dag_id, run_id=run_id, conf=conf)


def states(environment: Environment, run_id: str) -> dict[str, str]:
    environment.call("run_tick", "test")
    return dict(environment.query(STATES, run_id))


@pytest.fixture(scope="module")
def killed(environment: Environment) -> Path:
    """The folder with what the second tries read after the first ones wrote and lost their containers, all at once."""
    books = environment.modal.root / "books"
    books.mkdir()
    variables = [{"key": f"{key}_before", "value": "there"} for key in WRITES]
    environment.command("put", kind="put_variables", variables=variables, action_on_existing_key="fail")
    environment.call("run_tick", "test")
    for key in WRITES:
        run(environment, "killed", f"killed_{key}", key=key, book=str(books / key))
    for key in WRITES:
        wait_until(lambda: states(environment, f"killed_{key}") == {"retries": "success"}, "the second try", 90)  # noqa: B023
    return books


@pytest.mark.parametrize(("key", "found"), WRITES.items())
def test_write_survives_an_immediate_container_kill(killed: Path, key: str, found: object) -> None:
    expected = {"state": None, "asset": None, "variable": None, "deleted": "there"}
    assert json.loads((killed / key).read_text()) == {**expected, key: found}


def test_xcom_survives_an_immediate_container_kill(environment: Environment) -> None:
    book = environment.modal.root / "book_lost"
    run(environment, "lost", "lost", book=str(book))
    done = {"reads": "success", "writes": "failed"}
    wait_until(lambda: states(environment, "lost") == done, "the task that reads", 90)
    assert json.loads(book.read_text()) == {"id": 1}


def test_running_task_sees_writes_of_another_running_task(environment: Environment) -> None:
    root = environment.modal.root
    run(environment, "siblings", "siblings", key="siblings", ready=str(root / "ready"), book=str(root / "siblings"))
    # On a fast machine they have ended before anybody sees them run.
    wait_until(lambda: {"running", "success"} & set(states(environment, "siblings").values()), "the tasks to begin")
    # No tick comes between: what a running task writes is not seen because of one.
    wait_until((root / "siblings2").exists, "the values to be seen", 90)
    wait_until(lambda: set(states(environment, "siblings").values()) == {"success"}, "the end of the tasks")


def test_task_without_writes_has_two_journals(environment: Environment) -> None:
    if environment.connection_string:
        pytest.skip("no journals are written with PostgreSQL")
    run(environment, "plain", "plain")
    wait_until(lambda: states(environment, "plain") == {"returns": "success"}, "the task")
    # One when it begins, one with its end.
    assert environment.state()["task:plain:returns:plain"]["journals"] == 2
