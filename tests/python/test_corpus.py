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
REPLY_SECONDS = 30
"""Whether something was refused, in which case its end would be waited for in vain, is looked at so often."""
BATCH = 12
"""So many runs are triggered at once."""
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
            _make_pools(environment)
            _upload(environment)
            _run_all(environment)
            yield _collect(environment, notes)


@pytest.mark.parametrize("dag_id", RECORDED["dags"])
def test_dag_ends_like_on_stock_airflow(outcome: dict[str, Any], request: pytest.FixtureRequest, dag_id: str) -> None:
    if reason := NOT_YET.get(dag_id):
        request.applymarker(pytest.mark.xfail(reason=reason, strict=True))
    assert outcome["dags"].get(dag_id) == RECORDED["dags"][dag_id]


def test_only_dags_recorded_on_stock_airflow_run(outcome: dict[str, Any]) -> None:
    assert outcome["dags"].keys() - RECORDED["dags"].keys() == set()


def test_import_errors_match_stock_airflow(outcome: dict[str, Any]) -> None:
    assert outcome["import_errors"] == RECORDED["import_errors"]


def _make_pools(environment: Environment) -> None:
    pools = [{"name": name, "slots": slots} for name, slots in corpus.table()["pools"].items()]
    environment.command("pools", kind="put_pools", pools=pools, action_on_existing_key="fail")


def _upload(environment: Environment) -> None:
    folder = environment.modal.root / "corpus"
    corpus.build_folder(folder)
    environment.modal.sdk(f"""
    with modal.Volume.from_name("airflow-dags-test").batch_upload(force=True) as batch:
        batch.put_directory({str(folder)!r}, "/dags")
    """)


def _run_all(environment: Environment) -> None:
    """Trigger all runs, and wait until all of these and of those that they cause have ended.

    Not all at once: each pass of Airflow's scheduler looks at all runs that are active.
    """
    asked: list[corpus.Trigger] = []
    looked_at = 0.0
    left = corpus.triggers()
    until = time.monotonic() + RUN_SECONDS
    quiet_since = time.monotonic()
    while True:
        unfinished = corpus.unfinished(environment.query)
        if unfinished:
            quiet_since = time.monotonic()
        elif time.monotonic() - quiet_since > QUIET_SECONDS:
            break
        if left and _has_room(environment, asked):
            asked, left = left[:BATCH], left[BATCH:]
            _trigger(environment, asked)
            looked_at = time.monotonic()
        if unfinished and time.monotonic() - looked_at > REPLY_SECONDS:
            looked_at = time.monotonic()
            assert _refused(environment) == {}
        assert time.monotonic() < until, f"waited {RUN_SECONDS} s for {unfinished}"
        time.sleep(0.5)
    assert _refused(environment) == {}


def _refused(environment: Environment) -> dict[str, str]:
    replies = {key: reply for key, reply in environment.state().items() if key.startswith("reply:")}
    return {key: reply["error"] for key, reply in replies.items() if not reply["ok"]}


def _has_room(environment: Environment, asked: list[corpus.Trigger]) -> bool:
    """Whether the runs that were asked for last are there, and leave containers idle."""
    runs = set(environment.query("SELECT dag_id, run_id FROM dag_run"))
    [(busy,)] = environment.query(
        "SELECT count(*) FROM task_instance WHERE state IN ('scheduled', 'queued', 'running')"
    )
    return busy < EXECUTOR["parallelism"] and all((one.dag_id, one.run_id) in runs for one in asked)


def _trigger(environment: Environment, runs: list[corpus.Trigger]) -> None:
    commands = {}
    for run in runs:
        identifier = f"{run.dag_id} {run.run_id}"
        commands[f"command:{identifier}"] = {"id": identifier, "kind": "trigger", "at": 0.0, **run._asdict()}
    environment.modal.sdk(f"""
    d = modal.Dict.from_name("airflow-state-test")
    d.update({commands!r})
    d["wake"] = {{"reason": "test", "at": 0.0}}
    modal.Function.from_name("airflow-serverless-test", "run_tick").spawn("test")
    """)


def _collect(environment: Environment, notes: Path) -> dict[str, Any]:
    [volume] = {path.parent for path in environment.volumes("dags")}

    def payload(stored: Any) -> Any:
        if isinstance(stored, dict) and "__volume_xcom__" in stored:
            return json.loads((volume / "xcom" / stored["__volume_xcom__"]).read_text())
        return stored

    return corpus.collect(environment.query, payload, notes, {str(notes): "<notes>", "/vol/dags": "<dags>"})
