"""What is due happens at its time, though the cron comes once an hour and nothing else runs."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from due_times import KINDS, trigger
from environment import DATABASES, Environment, deployed
from local_modal import wait_until

LATE_SECONDS = 10.0
NEAR_SECONDS = 16
"""More than a tick lingers."""

# Two gates of which one waits: the other one ends.
GATES = """
    state = modal.Dict.from_name("airflow-state-test")
    gate = modal.Function.from_name("airflow-serverless-test", "scheduler_tick")
    modal.Function.from_name("airflow-serverless-test", "run_tick").remote("test")
    state.pop("wake", None)
    rest = {**state["due"], "active": False, "deferred": False, "full_tick_at": time.time() + 3600}

    def one_that_waits():
        state["due"] = {**rest, "next_due": time.time() + 120}
        calls = [gate.spawn(), gate.spawn()]
        while True:
            for call in calls:
                try:
                    assert call.get(timeout=1) == {"spawned": False, "reason": None}
                    calls.remove(call)
                    return calls[0]
                except TimeoutError:
                    pass
    """


@pytest.fixture(scope="module", params=DATABASES)
def environment(request: pytest.FixtureRequest) -> Iterator[Environment]:
    with deployed(request.param) as environment:
        yield environment


def test_only_one_gate_waits(environment: Environment) -> None:
    """Crons that come while a gate waits look and end; a due time that moves is followed."""
    gate = environment.modal.sdk(
        GATES
        + """
    waits = one_that_waits()
    state["due"] = {**rest, "next_due": time.time() + 2}
    answer(waits.get(timeout=60))
    """
    )
    assert gate == {"spawned": True, "reason": "something is due"}


def test_waiting_gate_spawns_nothing_if_a_tick_has_begun(environment: Environment) -> None:
    gate = environment.modal.sdk(
        GATES
        + """
    waits = one_that_waits()
    # As a tick does.
    state["due"] = {**rest, "next_due": time.time()}
    answer(waits.get(timeout=60))
    """
    )
    assert gate == {"spawned": False, "reason": None}


def test_next_due_time_is_known(environment: Environment) -> None:
    # What comes later is due earlier, so that it is the next.
    for number, (name, kind) in enumerate(KINDS.items()):
        after, run_id = 7200 - 600 * number, name.replace(" ", "_")
        trigger(environment, run_id, kind, after)

        def is_known(kind=kind, run_id=run_id, after=after) -> bool:
            environment.call("run_tick", "test")
            due, marker = kind.due(environment, run_id, after), environment.state()["due"]
            return due is not None and marker["next_due"] is not None and abs(marker["next_due"] - due) < 5

        wait_until(is_known, f"the due time of {name}", 30)


@pytest.mark.parametrize("name", ["dagrun_timeout", "reschedule"])
def test_due_work_happens_without_cron(environment: Environment, name: str) -> None:
    kind, run_id = KINDS[name], f"near_{name}"
    trigger(environment, run_id, kind, NEAR_SECONDS)
    happened = wait_until(lambda: kind.happened(environment, run_id), f"what is due: {name}", 90)
    assert happened - kind.due(environment, run_id, NEAR_SECONDS) < LATE_SECONDS


ASSETS = """
from airflow.sdk import DAG, Asset, task

made = Asset("made")
with DAG("makes", schedule=None):
    @task(outlets=[made])
    def make(): pass
    make()

with DAG("takes", schedule=[made]):
    @task
    def take(): pass
    take()
"""
ENDED = "SELECT count(*) FROM dag_run WHERE dag_id = 'takes' AND state = 'success'"


def test_asset_triggered_runs_start_within_seconds(environment: Environment) -> None:
    """Also those whose `run_after` is in the second of the pass that has created them. Most are: three are tried."""
    environment.upload("assets.py", ASSETS)
    environment.command("refresh assets", kind="refresh")
    environment.call("run_tick", "test")
    for number in range(1, 4):
        environment.command(f"make {number}", kind="trigger", dag_id="makes", run_id=f"make_{number}")
        environment.call("run_tick", "test")
        wait_until(lambda number=number: environment.query(ENDED) == [(number,)], "the run of the asset", 30)
