"""Backfills: created, held, ended, and what they do with runs that exist."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from environment import DATABASES, Environment, deployed
from local_modal import wait_until

# No run of their schedules is due any more: all that run are those of backfills.
DAGS = """
import datetime, os, time
from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG, CronPartitionTimetable, get_current_context, task

def dag(name, schedule="@daily"):
    return DAG(
        name, schedule=schedule, start_date=datetime.datetime(2026, 1, 1), end_date=datetime.datetime(2026, 1, 31),
        catchup=False, is_paused_upon_creation=False, max_active_runs=1)

with dag("held"):
    @task
    def waits():
        conf = get_current_context()["dag_run"].conf
        while not os.path.exists(conf["go"]):
            time.sleep(0.1)
        return conf["word"]
    waits()

with dag("past"):
    EmptyOperator(task_id="nothing", depends_on_past=True)

with dag("never", schedule=None):
    EmptyOperator(task_id="nothing")

with dag("often", schedule="* * * * *"):
    EmptyOperator(task_id="nothing")

with dag("parts", schedule=CronPartitionTimetable("0 0 * * *", timezone="UTC")):
    EmptyOperator(task_id="nothing")
"""
RUNS = """
SELECT substr(CAST(logical_date AS TEXT), 1, 10), state FROM dag_run WHERE dag_id = 'held' ORDER BY logical_date
"""
FOUR_DAYS: dict[str, Any] = {"from_date": "2026-01-01", "to_date": "2026-01-04T00:00:00+00:00"}


@pytest.fixture(scope="module", params=DATABASES)
def environment(request: pytest.FixtureRequest) -> Iterator[Environment]:
    with deployed(request.param) as environment:
        environment.upload("backfills.py", DAGS)
        yield environment


def reply(environment: Environment, identifier: str, **command: Any) -> dict[str, Any]:
    environment.command(identifier, **command)
    environment.call("run_tick", "test")
    return wait_until(lambda: environment.state().get(f"reply:{identifier}"), f"the reply to {identifier}")


def result(environment: Environment, identifier: str, **command: Any) -> dict[str, Any]:
    answer = reply(environment, identifier, **command)
    assert answer["ok"], answer
    return answer["result"]


def wait_for_states(environment: Environment, *states: str) -> None:
    def reached() -> bool:
        return [state for _, state in environment.query(RUNS)] == list(states)

    wait_until(reached, f"the runs to be {', '.join(states)}; they are {environment.query(RUNS)}", 60)


def completed(environment: Environment, identifier: int) -> bool:
    return environment.query("SELECT completed_at IS NOT NULL FROM backfill WHERE id = ?", identifier) == [(True,)]


def is_cancelled(environment: Environment, identifier: int) -> bool:
    """As the daemon tells it."""
    [(is_paused,)] = environment.query("SELECT is_paused FROM backfill WHERE id = ?", identifier)
    return completed(environment, identifier) and bool(is_paused)


def test_backfill_is_paused_and_completed(environment: Environment) -> None:
    go = environment.modal.root / "go"
    wanted = {"dag_id": "held", **FOUR_DAYS, "max_active_runs": 2, "dag_run_conf": {"go": str(go), "word": "first"}}
    foreseen = result(environment, "b-1", kind="dry_run_backfill", **wanted, run_backwards=True)
    assert [run["logical_date"][:10] for run in foreseen["backfills"]] == [f"2026-01-0{day}" for day in (4, 3, 2, 1)]
    assert environment.query("SELECT count(*) FROM backfill") == [(0,)]

    first = result(environment, "b-2", kind="create_backfill", **wanted)["id"]
    wait_for_states(environment, "running", "running", "queued", "queued")
    refused = reply(environment, "b-3", kind="create_backfill", **wanted)
    assert refused["reason"] == "conflict" and "Another backfill is running" in refused["error"], refused
    # A held backfill begins nothing more; what has begun goes on.
    assert result(environment, "b-4", kind="pause_backfill", backfill_id=first) == {"id": first}
    go.touch()
    wait_for_states(environment, "success", "success", "queued", "queued")
    assert not completed(environment, first)
    assert environment.query("SELECT DISTINCT run_type, triggered_by FROM dag_run") == [("backfill", "BACKFILL")]
    go.unlink()
    result(environment, "b-5", kind="unpause_backfill", backfill_id=first)
    wait_for_states(environment, "success", "success", "running", "running")
    go.touch()
    wait_for_states(environment, "success", "success", "success", "success")
    wait_until(lambda: completed(environment, first), "the end of the backfill")
    for kind in "pause_backfill", "unpause_backfill", "cancel_backfill":
        refused = reply(environment, f"b-6-{kind}", kind=kind, backfill_id=first)
        assert (refused["reason"], refused["error"]) == ("conflict", f"backfill {first} is completed"), refused


def test_existing_runs_are_reprocessed_on_request(environment: Environment) -> None:
    """Goes on where the test before has ended."""
    go = environment.modal.root / "go"
    go.unlink()
    conf = {"go": str(go), "word": "second"}
    wanted = {"dag_id": "held", **FOUR_DAYS, "max_active_runs": 1, "dag_run_conf": conf}
    assert result(environment, "r-1", kind="dry_run_backfill", **wanted)["total_entries"] == 0
    cancelled = result(
        environment, "r-2", kind="create_backfill", **wanted, reprocess_behavior="completed", run_backwards=True
    )["id"]
    wait_for_states(environment, "queued", "queued", "queued", "running")
    result(environment, "r-3", kind="cancel_backfill", backfill_id=cancelled)
    assert is_cancelled(environment, cancelled)
    refused = reply(environment, "r-3-again", kind="cancel_backfill", backfill_id=cancelled)
    assert (refused["reason"], refused["error"]) == ("conflict", f"backfill {cancelled} is cancelled"), refused
    wait_for_states(environment, "failed", "failed", "failed", "running")
    go.touch()
    wait_for_states(environment, "failed", "failed", "failed", "success")

    again = result(environment, "r-4", kind="create_backfill", **wanted, reprocess_behavior="failed")["id"]
    wait_until(lambda: completed(environment, again), "the end of the backfill", 60)
    wait_for_states(environment, "success", "success", "success", "success")
    made = "SELECT dag_run_id IS NOT NULL, exception_reason FROM backfill_dag_run WHERE backfill_id = ? ORDER BY id"
    assert environment.query(made, again) == [(True, None)] * 3 + [(False, "already exists")]
    tries = "SELECT try_number FROM task_instance WHERE dag_id = 'held' ORDER BY run_id"
    assert environment.query(tries) == [(2,)] * 4
    words = [path.read_text() for path in environment.volumes("xcom/held/*/waits/return_value")]
    assert words == ['"second"'] * 4
    starts = "SELECT substr(CAST(logical_date AS TEXT), 9, 2) FROM dag_run WHERE backfill_id = ? ORDER BY start_date"
    assert environment.query(starts, again) == [("01",), ("02",), ("03",)]


def test_backfill_completed_while_paused_is_not_canceled(environment: Environment) -> None:
    """Goes on where the test before has ended."""
    go = environment.modal.root / "go"
    go.unlink()
    day = {"from_date": FOUR_DAYS["from_date"], "to_date": FOUR_DAYS["from_date"], "reprocess_behavior": "completed"}
    conf = {"go": str(go), "word": "third"}
    paused = result(environment, "c-1", kind="create_backfill", dag_id="held", **day, dag_run_conf=conf)["id"]
    wait_for_states(environment, "running", "success", "success", "success")
    result(environment, "c-2", kind="pause_backfill", backfill_id=paused)
    go.touch()
    wait_until(lambda: completed(environment, paused), "the end of the backfill", 60)
    assert not is_cancelled(environment, paused)


def test_backfill_creates_one_run_for_each_partition(environment: Environment) -> None:
    made = result(environment, "p-1", kind="create_backfill", dag_id="parts", **FOUR_DAYS)["id"]
    wait_until(lambda: completed(environment, made), "the end of the backfill", 60)
    runs = environment.query("SELECT partition_key, state FROM dag_run WHERE dag_id = 'parts' ORDER BY partition_key")
    assert runs == [(f"2026-01-0{day}T00:00:00", "success") for day in (1, 2, 3, 4)]


def test_long_sequential_backfill_completes_by_itself(environment: Environment) -> None:
    """Each run begins when the one before has ended, which makes more passes than a round of a tick has."""
    hour = {"from_date": "2026-01-01T00:00", "to_date": "2026-01-01T01:00", "max_active_runs": 1}
    made = result(environment, "h-1", kind="create_backfill", dag_id="often", **hour)["id"]
    wait_until(lambda: completed(environment, made), "the end of the backfill", 60)
    runs = environment.query("SELECT state, count(*) FROM dag_run WHERE dag_id = 'often' GROUP BY state")
    assert runs == [("success", 61)]


def test_invalid_backfills_are_refused(environment: Environment) -> None:
    cases: dict[str, tuple[str, str, dict[str, Any]]] = {
        "x-1": ("not_found", "no DAG 'absent'", {"dag_id": "absent"}),
        "x-2": ("invalid", "non-periodic schedule", {"dag_id": "never"}),
        "x-3": ("invalid", "reverse", {"dag_id": "past", "run_backwards": True, "reprocess_behavior": "failed"}),
        "x-4": ("invalid", "must set reprocess behavior", {"dag_id": "past"}),
        "x-5": ("invalid", "must not be after", {"from_date": "2026-01-05"}),
        "x-6": ("invalid", "future", {"from_date": "2199-01-01", "to_date": "2199-01-02"}),
        "x-7": ("invalid", "not a date in ISO 8601: 'soon'", {"to_date": "soon"}),
        "x-8": ("invalid", "more than 1000 runs", {"dag_id": "often"}),
        "x-9": ("invalid", "use none, failed or completed", {"reprocess_behavior": "all"}),
        "x-10": ("invalid", "No runs to create", {"from_date": "2026-01-01T01:00", "to_date": "2026-01-01T02:00"}),
    }
    for identifier, (_, _, fields) in cases.items():
        command = {"dag_id": "held", **FOUR_DAYS, **fields}
        environment.command(identifier, kind="create_backfill", **command)
        environment.command(f"dry-{identifier}", kind="dry_run_backfill", **command)
    others = {
        "x-11": ("invalid", "1 or more", {"kind": "create_backfill", "dag_id": "held", "max_active_runs": 0}),
        "x-12": ("not_found", "no backfill 99", {"kind": "cancel_backfill", "backfill_id": 99}),
    }
    for identifier, (_, _, command) in others.items():
        environment.command(identifier, **{**FOUR_DAYS, **command})
    before = environment.query("SELECT count(*) FROM backfill")
    environment.call("run_tick", "test")
    replies = wait_until(lambda: (s := environment.state()) and "reply:x-12" in s and s, "the replies")
    for identifier, (reason, words, _) in {**cases, **others}.items():
        for answer in replies[f"reply:{identifier}"], replies.get(f"reply:dry-{identifier}"):
            # To Airflow a trial of which nothing would come is none that failed.
            if answer and not (identifier == "x-10" and answer["ok"]):
                assert (answer["ok"], answer["reason"]) == (False, reason), (identifier, answer)
                assert words in answer["error"], (identifier, answer)
    assert environment.query("SELECT count(*) FROM backfill") == before
