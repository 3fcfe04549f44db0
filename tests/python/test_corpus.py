"""DAGs end as on stock Airflow: the corpus, run here at once, against what `make record-corpus` wrote down.

States, tries, XComs and callbacks are compared, DAG by DAG.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import corpus
from environment import DATABASES, Environment, deployed

pytestmark = pytest.mark.timeout(2000)
RUN_SECONDS = 1500
QUIET_SECONDS = 5
EXECUTOR = {"parallelism": 8, "task_timeout": 600}
NOT_YET: dict[str, str] = {}
"""{DAG: why it does not end as on stock Airflow yet}."""

RECORDED: dict[str, Any] = json.loads(corpus.EXPECTED.read_text())


@pytest.fixture(scope="module", params=DATABASES)
def outcome(request: pytest.FixtureRequest) -> Iterator[dict[str, Any]]:
    """What the whole corpus came to, in the form of the record."""
    with tempfile.TemporaryDirectory(prefix="notes-") as name:
        notes = Path(name)
        variables = {**corpus.VARIABLES, "CORPUS_NOTES": name}
        with deployed(request.param, "--volumes", "strict", executor=EXECUTOR, **variables) as environment:
            _upload(environment)
            _trigger_all(environment)
            _wait_until_quiet(environment)
            yield _collect(environment, notes)


@pytest.mark.parametrize("dag_id", RECORDED["dags"])
def test_a_dag_ends_as_on_stock_airflow(outcome: dict[str, Any], request: pytest.FixtureRequest, dag_id: str) -> None:
    if reason := NOT_YET.get(dag_id):
        request.applymarker(pytest.mark.xfail(reason=reason, strict=True))
    assert outcome["dags"].get(dag_id) == RECORDED["dags"][dag_id]


def test_no_dag_runs_that_does_not_on_stock_airflow(outcome: dict[str, Any]) -> None:
    assert outcome["dags"].keys() - RECORDED["dags"].keys() == set()


def test_the_same_files_fail_to_import(outcome: dict[str, Any]) -> None:
    assert outcome["import_errors"] == RECORDED["import_errors"]


def _upload(environment: Environment) -> None:
    folder = environment.modal.root / "corpus"
    corpus.build_folder(folder)
    environment.modal.sdk(f"""
    with modal.Volume.from_name("airflow-dags-test").batch_upload(force=True) as batch:
        batch.put_directory({str(folder)!r}, "/dags")
    """)


def _trigger_all(environment: Environment) -> None:
    commands = {}
    for run in corpus.triggers():
        identifier = f"{run.dag_id} {run.run_id}"
        commands[f"command:{identifier}"] = {"id": identifier, "kind": "trigger", "at": 0.0, **run._asdict()}
    environment.modal.sdk(f"""
    d = modal.Dict.from_name("airflow-state-test")
    d.update({commands!r})
    d["wake"] = {{"reason": "test", "at": 0.0}}
    modal.Function.from_name("airflow-serverless-test", "run_tick").spawn("test")
    """)


def _wait_until_quiet(environment: Environment) -> None:
    """Until all runs have ended and nothing has begun for a while; refused commands end the wait at once."""
    until = time.monotonic() + RUN_SECONDS
    since = time.monotonic()
    while time.monotonic() - since < QUIET_SECONDS:
        left = corpus.unfinished(environment.query)
        if left:
            since = time.monotonic()
        assert time.monotonic() < until, f"waited {RUN_SECONDS} s for {left}"
        time.sleep(0.5)
    refused = {
        key: reply["error"]
        for key, reply in environment.state().items()
        if key.startswith("reply:") and not reply["ok"]
    }
    assert refused == {}


def _collect(environment: Environment, notes: Path) -> dict[str, Any]:
    [volume] = {path.parent for path in environment.volumes("dags")}

    def payload(stored: Any) -> Any:
        if isinstance(stored, dict) and "__volume_xcom__" in stored:
            return json.loads((volume / "xcom" / stored["__volume_xcom__"]).read_text())
        return stored

    return corpus.collect(environment.query, payload, notes, {str(notes): "<notes>", "/vol/dags": "<dags>"})
