"""Questions of human-in-the-loop tasks are answered by a command, with the effect of Airflow's REST API."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from environment import DATABASES, Environment, deployed
from local_modal import wait_until

DAGS = """
from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.providers.standard.operators.hitl import ApprovalOperator, HITLBranchOperator, HITLOperator
from airflow.sdk import DAG, Param

with DAG("asks", schedule=None):
    amount = {"amount": Param(1, type="integer", minimum=1), "reason": Param("none", type="string")}
    assigned = [{"id": "ann", "name": "Ann"}]
    HITLOperator(task_id="one", subject="One?", options=["a", "b"], params=amount, assigned_users=assigned)
    HITLOperator(task_id="several", subject="Several?", options=["a", "b", "c"], multiple=True)
    HITLOperator.partial(task_id="mapped", options=["a"]).expand(subject=["First?", "Second?"])
    ApprovalOperator(task_id="approves", subject="Go on?") >> EmptyOperator(task_id="approved")
    branch = HITLBranchOperator(task_id="branches", subject="Where?", options=["left", "right"])
    branch >> [EmptyOperator(task_id="left"), EmptyOperator(task_id="right")]
    EmptyOperator(task_id="asks_nothing")
"""
OPEN = """
SELECT task_id, map_index FROM hitl_detail JOIN task_instance ON id = ti_id
WHERE responded_at IS NULL AND state IN ('awaiting_input', 'deferred') ORDER BY task_id, map_index
"""
QUESTIONS = [("approves", -1), ("branches", -1), ("mapped", 0), ("mapped", 1), ("one", -1), ("several", -1)]
BEN = {"id": "ben", "name": "Ben"}


@pytest.fixture(scope="module", params=DATABASES)
def environment(request: pytest.FixtureRequest) -> Iterator[Environment]:
    with deployed(request.param) as environment:
        environment.upload("asks.py", DAGS)
        yield environment


def begin(environment: Environment, run_id: str) -> None:
    """Starts a run and waits until it has asked its questions."""
    environment.command(f"trigger {run_id}", kind="trigger", dag_id="asks", run_id=run_id)
    environment.call("run_tick", "test")
    where = OPEN.replace("WHERE", "WHERE run_id = ? AND")
    wait_until(lambda: environment.query(where, run_id) == QUESTIONS, "the questions", 60)


def reply(environment: Environment, identifier: str, **request: Any) -> dict[str, Any]:
    environment.command(identifier, **{"kind": "answer_task", "dag_id": "asks", **request})
    environment.call("run_tick", "test")
    answer: dict[str, Any] = wait_until(lambda: environment.state().get(f"reply:{identifier}"), "the reply")
    return answer


REFUSED = {
    "no such DAG": ({"dag_id": "none"}, "not_found", "there is no DAG 'none'"),
    "no such run": ({"run_id": "none"}, "not_found", "has no run 'none'"),
    "no such task": ({"task_id": "none"}, "not_found", "has no task 'none'"),
    "no such index": ({"task_id": "mapped", "map_index": 2}, "not_found", "no map index 2"),
    "no index": ({"task_id": "mapped"}, "invalid", "name the map index"),
    "no question": ({"task_id": "asks_nothing"}, "not_found", "asked no question"),
    "unknown option": ({"chosen_options": ["z"]}, "invalid", "unknown options: 'z'"),
    "several options": ({"chosen_options": ["a", "b"]}, "invalid", "one option only"),
    "no option": ({"chosen_options": []}, "invalid", "one option or more"),
    "text for options": ({"chosen_options": "a"}, "invalid", "must be a list"),
    "wrong input": (
        {"params_input": {"amount": 0, "reason": ""}},
        "invalid",
        "param 'amount': 0 is less than the minimum of 1",
    ),
    "missing input": ({"params_input": {"amount": 1}}, "invalid", "params are missing: 'reason'"),
    "unknown input": (
        {"params_input": {"amount": 1, "reason": "", "more": 1}},
        "invalid",
        "'more'; it asks for 'amount', 'reason'",
    ),
    "unasked input": ({"task_id": "several", "params_input": {"a": 1}}, "invalid", "'a'; it asks for none"),
    "repeated option": ({"task_id": "several", "chosen_options": ["a", "a"]}, "invalid", "chosen twice"),
    "no input": ({"params_input": [1]}, "invalid", "must be an object"),
    "no user": ({"user": "ben"}, "invalid", "an id and a name"),
}


def test_refused_answers_change_nothing(environment: Environment) -> None:
    begin(environment, "refused")
    defaults = {"run_id": "refused", "task_id": "one", "chosen_options": ["a"]}
    for name, (request, _, _) in REFUSED.items():
        command = {"kind": "answer_task", "dag_id": "asks", **defaults, **request}
        environment.command(name.replace(" ", "_"), **command)
    environment.call("run_tick", "test")
    state = environment.state()
    for name, (_, reason, words) in REFUSED.items():
        found = state[f"reply:{name.replace(' ', '_')}"]
        assert not found["ok"] and found["reason"] == reason and words in found["error"], (name, found)
    assert environment.query(OPEN.replace("WHERE", "WHERE run_id = 'refused' AND")) == QUESTIONS

    environment.command("mark", kind="mark_run", dag_id="asks", run_id="refused", state="failed")
    late = reply(environment, "late", **defaults)
    assert late["reason"] == "conflict" and "does not wait for an answer" in late["error"]


def test_answered_tasks_resume(environment: Environment) -> None:
    begin(environment, "answered")
    answers: dict[tuple[str, int], dict[str, Any]] = {
        ("one", -1): {"chosen_options": ["b"], "params_input": {"amount": 5, "reason": "r"}, "user": BEN},
        ("several", -1): {"chosen_options": ["c", "a"]},
        ("mapped", 0): {"chosen_options": ["a"]},
        ("mapped", 1): {"chosen_options": ["a"]},
        ("approves", -1): {"chosen_options": ["Approve"]},
        ("branches", -1): {"chosen_options": ["right"]},
    }
    for (task_id, map_index), answer in answers.items():
        index = {} if map_index < 0 else {"map_index": map_index}
        found = reply(environment, f"{task_id}{map_index}", run_id="answered", task_id=task_id, **index, **answer)
        assert found["ok"], found
        assert found["result"]["chosen_options"] == answer["chosen_options"]
    again = reply(environment, "again", run_id="answered", task_id="one", chosen_options=["a"])
    assert again["reason"] == "conflict" and "was answered by Ben" in again["error"]

    ended = "SELECT 1 FROM dag_run WHERE run_id = 'answered' AND state = 'success'"
    wait_until(lambda: environment.query(ended), "the end of the run", 60)
    states = dict(environment.query("SELECT task_id, state FROM task_instance WHERE run_id = 'answered'"))
    assert states["left"] == "skipped" and states["right"] == states["approved"] == "success"
    [value] = environment.volumes("xcom/asks/answered/one/return_value")
    result = json.loads(value.read_text())
    assert result["chosen_options"] == ["b"] and result["params_input"] == {"amount": 5, "reason": "r"}
    assert result["responded_by_user"] == BEN
