"""The table of the corpus is whole: no example of Airflow's is forgotten, and what was recorded is what is there."""

from __future__ import annotations

import json

import corpus


def test_every_example_is_run_or_skipped_with_a_reason() -> None:
    run, left_out = corpus.table()["examples"], corpus.table()["left_out"]
    assert run.keys() & left_out.keys() == set()
    assert {name for name, _ in corpus.example_files()} == run.keys() | left_out.keys()
    assert all(isinstance(reason, str) and reason for reason in left_out.values())


def test_triggered_runs_have_recorded_outcomes() -> None:
    recorded = json.loads(corpus.EXPECTED.read_text())["dags"]
    names = {(dag_id, run_id) for dag_id, dag in recorded.items() for run_id in dag["runs"]}
    assert {(trigger.dag_id, trigger.run_id) for trigger in corpus.triggers()} - names == set()
