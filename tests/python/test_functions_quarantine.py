"""What one file, DAG, run or step breaks is quarantined; the others go on, and it is retried."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from airflow_serverless.config import SETTINGS_VARIABLE
from environment import DATABASES, FUNCTIONS, Environment, deployed
from local_modal import wait_until

CANARY = """
from airflow.sdk import DAG, task

with DAG("canary", schedule=None):
    @task
    def sings(): ...
    sings()
"""
# Accepted by Airflow's DAG processor up to the write into the database, or up to a tick.
UNSTORABLE = {
    "asset.py": """
with DAG("asset", schedule=None):
    @task(outlets=[Asset("corpus://größe/1")])
    def nothing(): ...
    nothing()
""",
    "timeout.py": """
with DAG("timeout", schedule=None, dagrun_timeout=timedelta.max):
    EmptyOperator(task_id="nothing")
""",
    "description.py": """
with DAG("description", schedule=None, description="a name that is not UTF-8: \\udc80"):
    EmptyOperator(task_id="nothing")
""",
    "tag.py": """
with DAG("tag", schedule=None, tags=["\\udc80"]):
    EmptyOperator(task_id="nothing")
""",
    "owner.py": """
with DAG("owner", schedule=None):
    EmptyOperator(task_id="nothing", owner="\\udc80")
""",
    "slots.py": """
with DAG("slots", schedule=None, max_active_runs=2**70):
    EmptyOperator(task_id="nothing")
""",
    "start.py": """
with DAG("start", schedule="@daily", start_date=datetime.max.replace(tzinfo=timezone.utc)):
    EmptyOperator(task_id="nothing")
""",
    "raises.py": 'raise ValueError("a name that is not UTF-8: \\udc80")',
}
IMPORTS = """
from datetime import datetime, timedelta, timezone
from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG, Asset, task
"""
RETRIED = """
from datetime import timedelta
from airflow.sdk import DAG, task

with DAG("retried", schedule=None):
    @task(retries=1, retry_delay=timedelta(hours=1))
    def fails():
        raise ValueError
    fails()
"""


@pytest.fixture(scope="module", params=DATABASES)
def environment(request: pytest.FixtureRequest) -> Iterator[Environment]:
    with deployed(request.param) as environment:
        environment.upload("canary.py", CANARY)
        yield environment


def quarantined(environment: Environment) -> dict[tuple[str, str], str]:
    """{(kind, name): the last line of the traceback}."""
    return last_lines(environment.query(QUARANTINED))


def last_lines(rows: list[tuple[str, str, str]]) -> dict[tuple[str, str], str]:
    return {(kind, name): traceback.strip().splitlines()[-1] for kind, name, traceback in rows}


def run_canary(environment: Environment, run_id: str) -> None:
    environment.command(run_id, kind="trigger", dag_id="canary", run_id=run_id)
    wait_until(lambda: tick_until(environment, run_id), f"the canary's run {run_id}", 60)


def tick_until(environment: Environment, run_id: str) -> bool:
    environment.call("run_tick", "test")
    return environment.query("SELECT state FROM dag_run WHERE run_id = ?", run_id) == [("success",)]


def test_unstorable_files_do_not_block_others(environment: Environment) -> None:
    [dags] = environment.volumes("dags")
    for name, source in UNSTORABLE.items():
        environment.upload(name, IMPORTS + source)
    with open(os.fsencode(dags) + b"/not-utf-8-\x80.py", "w") as file:  # noqa: PTH123
        file.write(CANARY)
    (dags / "dangling.py").symlink_to("/nowhere")
    run_canary(environment, "beside-unstorable-files")

    errors = dict(environment.query("SELECT filename, stacktrace FROM import_error"))
    assert errors.keys() == UNSTORABLE.keys() | {"not-utf-8-\\udc80.py"}
    assert "URI must be ascii" in errors["asset.py"]
    assert "\\udc80" in errors["raises.py"]
    found = quarantined(environment)
    assert found.keys() == {("file", name) for name in UNSTORABLE if name not in ("raises.py", "timeout.py")} | {
        ("path", "not-utf-8-\\udc80.py")
    }
    environment.upload("asset.py", IMPORTS + UNSTORABLE["asset.py"].replace("größe", "size"))
    run_canary(environment, "after-a-file-is-mended")
    assert ("file", "asset.py") not in quarantined(environment)
    assert environment.query("SELECT is_stale FROM dag WHERE dag_id = 'asset'") == [(False,)]
    # They would be tried again and again beside the other tests.
    for path in dags.glob("*.py"):
        if path.name != "canary.py":
            path.unlink()


def test_invalid_pattern_excludes_no_files(environment: Environment) -> None:
    [dags] = environment.volumes("dags")
    (dags / "team").mkdir()
    lines = b"left_out.py\n!\n# a comment\n[z-a]\n\\\nnot-utf-8-\x80.py\n"
    (dags / "team/.airflowignore").write_bytes(lines)
    for name in ("team/left_out.py", "team/new.py", "beside.py"):
        environment.upload(name, CANARY.replace("canary", Path(name).stem))
    assert dag_files(environment, "left_out", "new", "beside") == {"new": "team/new.py", "beside": "beside.py"}
    fault = "line 2 is not a pattern: '!'"
    assert fault in quarantined(environment)["file", "team/.airflowignore"]
    shown = "SELECT stacktrace FROM import_error WHERE filename = 'team/.airflowignore'"
    assert fault in environment.query(shown)[0][0]
    (dags / "team/.airflowignore").write_bytes(b"new.py\n")
    found = dag_files(environment, "left_out", "new", "beside")
    assert found == {"left_out": "team/left_out.py", "beside": "beside.py"}
    assert ("file", "team/.airflowignore") not in quarantined(environment)


def test_pipes_are_reported_and_never_read(environment: Environment) -> None:
    [dags] = environment.volumes("dags")
    (dags / "piped").mkdir()
    for name in ("piped/.airflowignore", "piped/pipe.py", "piped/data.csv"):
        os.mkfifo(dags / name)
    environment.upload("piped/beside.py", CANARY.replace("canary", "beside_a_pipe"))
    assert dag_files(environment, "beside_a_pipe") == {"beside_a_pipe": "piped/beside.py"}
    found = quarantined(environment)
    for name in ("piped/.airflowignore", "piped/pipe.py", "piped/data.csv"):
        assert "it is a named pipe, not a regular file" in found["path", name]
    shutil.rmtree(dags / "piped")


def test_links_to_folders_are_followed(environment: Environment) -> None:
    [dags] = environment.volumes("dags")
    (dags.parent / "releases/7").mkdir(parents=True)
    (dags.parent / "releases/7/linked.py").write_text(CANARY.replace("canary", "linked"))
    (dags.parent / "releases/7/back").symlink_to(dags)
    (dags / "current").symlink_to("../releases/7")
    (dags / "current/itself").symlink_to(".")
    assert dag_files(environment, "linked") == {"linked": "current/linked.py"}


def tick_with_stand_ins(
    environment: Environment,
    name: str,
    stand_ins: str,
    files: dict[str, str],
    dag_ids: tuple[str, ...],
    unpaused: tuple[str, ...] = (),
) -> tuple[dict[tuple[str, str], str], list[str], dict[str, str], dict[str, int]]:
    """A tick in which parts of Airflow raise. It finds these files, and commands to trigger and unpause these DAGs.

    The runs are called {name}-{dag_id}.

    Returns what is quarantined after its first round, the files of the import errors about that, states of runs, and
    how often the stand-ins have raised for what.
    """
    [dags] = environment.volumes("dags")
    seen = environment.modal.root / "seen.json"
    commands = {
        f"command:{name}-{kind}-{dag_id}": {"id": f"{name}-{kind}-{dag_id}", "at": 0.0, "kind": kind, "dag_id": dag_id}
        | {"run_id": f"{name}-{dag_id}"}
        for kind, names in (("trigger", dag_ids), ("unpause", unpaused))
        for dag_id in names
    }
    script = STAND_INS.format(
        volume=str(dags.parent),
        stand_ins=textwrap.dedent(stand_ins),
        files=files,
        commands=commands,
        queries=[QUARANTINED, SHOWN, RUNS.format(name=name)],
        seen=str(seen),
    )
    done = environment.process("-c", script)
    assert done.returncode == 0, done.stderr[-3000:]
    held, shown, runs, failures = json.loads(seen.read_text())
    return last_lines(held), sorted(file for (file,) in shown), dict(runs), failures


# Runs a tick in a process of its own. Files and commands are added, and rows are read, while it holds the lock, so that
# other ticks cannot interfere.
STAND_INS = """
import json, os, time
from pathlib import Path
import modal
os.environ["AIRFLOW_SERVERLESS_VOLUME"] = {volume!r}
modal.Volume.commit = modal.Volume.reload = lambda self: None
from airflow_serverless.scheduler.context import TickContext
TickContext.of_process()
from airflow.utils.session import create_session
from airflow_serverless import quarantine
from airflow_serverless.scheduler import run
from sqlalchemy import text

# So that the ticks that the canary's task wakes are soon free to retry.
quarantine.FIRST_RETRY_SECONDS = 1.0

failures = {{}}
def fails(original, name_of, names):
    def wrapped(self, *arguments, **keywords):
        name = name_of(*arguments, **keywords)
        if name in names:
            failures[str(name)] = failures.get(str(name), 0) + 1
            raise ValueError("a stand-in")
        return original(self, *arguments, **keywords)
    return wrapped

{stand_ins}

original = run._round
def round_with_news(context, inbox, counters):
    for name, source in {files!r}.items():
        context.paths.dags.joinpath(name).write_text(source)
    context.state.store.update({commands!r})
    run._round = original
    marker = original(context, context.state.inbox(), counters)
    with create_session() as session:
        rows = [[list(row) for row in session.execute(text(query))] for query in {queries!r}]
    Path({seen!r}).write_text(json.dumps([*rows, failures]))
    return marker
run._round = round_with_news

while run._round is not original:
    modal.Dict.from_name("airflow-state-test").put("wake", {{"reason": "test", "at": 0.0}}, skip_if_exists=True)
    if run.run_tick("test").get("busy"):
        # Whoever holds the lock goes on for as long as it is woken.
        time.sleep(2.0)
"""
FAILURES = """
from airflow_serverless.scheduler import dag_folder
from airflow.jobs.scheduler_job_runner import SchedulerJobRunner
from airflow.models.dagbag import DBDagBag
SchedulerJobRunner._schedule_dag_run = fails(
    SchedulerJobRunner._schedule_dag_run, lambda dag_run, **_: dag_run.dag_id, {"unscheduled"})
DBDagBag.get_dag_for_run = fails(
    DBDagBag.get_dag_for_run, lambda dag_run, **_: dag_run.dag_id, {"unstarted"})
SchedulerJobRunner._get_current_dag = fails(
    SchedulerJobRunner._get_current_dag, lambda dag_id, **_: dag_id, {"uncreated"})
SchedulerJobRunner._process_executor_events = fails(
    SchedulerJobRunner._process_executor_events, lambda executor, **_: "eventful" in {
        getattr(key, "dag_id", None) for key in executor.event_buffer}, {True})
SchedulerJobRunner._remove_unreferenced_triggers = fails(lambda self: None, lambda: 1, {1})
dag_folder.list_dag_files = fails(dag_folder.list_dag_files, lambda: 1, {1})
"""
QUARANTINED = "SELECT kind, name, traceback FROM airflow_serverless_quarantine"
SHOWN = "SELECT filename FROM import_error WHERE stacktrace LIKE '%quarantined%stand-in%'"
RUNS = "SELECT dag_id, state FROM dag_run WHERE run_id LIKE '{name}-%'"
STOPPED = """
from datetime import datetime
from airflow.sdk import DAG, task

for name, schedule in (("unscheduled", None), ("unstarted", None), ("eventful", None), ("uncreated", "@daily")):
    with DAG(
        name, schedule=schedule, start_date=datetime(2026, 1, 1), end_date=datetime(2026, 1, 1), catchup=True,
        is_paused_upon_creation=schedule is not None,
    ) as dag:
        @task
        def nothing(): ...
        nothing()
    globals()[name] = dag
"""


def test_run_with_failing_retry_dates_does_not_block_others(environment: Environment) -> None:
    environment.upload("retried.py", RETRIED)
    environment.command("retried", kind="trigger", dag_id="retried", run_id="retried")
    waiting = "SELECT 1 FROM task_instance WHERE dag_id = 'retried' AND state = 'up_for_retry'"
    wait_until(lambda: environment.call("run_tick", "test") and environment.query(waiting), "a failure", 60)
    stand_in = """
    from airflow.models.taskinstance import TaskInstance
    TaskInstance.next_retry_datetime = fails(TaskInstance.next_retry_datetime, lambda: 1, {1})
    """
    found, _, runs, _ = tick_with_stand_ins(environment, "retries", stand_in, {}, ("canary",))
    assert "a stand-in" in found["run", "retried/retried"]
    assert runs["canary"] == "running"
    environment.command("stop", kind="mark_run", dag_id="retried", run_id="retried", state="failed")
    run_canary(environment, "after-the-run-has-ended")
    assert ("run", "retried/retried") not in quarantined(environment)


def test_dag_that_raises_does_not_block_others(environment: Environment) -> None:
    environment.upload("stopped.py", STOPPED)
    environment.command("look", kind="refresh")
    environment.call("run_tick", "test")
    files = {"unlisted.py": CANARY.replace("canary", "unlisted")}
    dag_ids = ("unscheduled", "unstarted", "eventful", "canary")
    found, shown, runs, failures = tick_with_stand_ins(
        environment, "several", FAILURES, files, dag_ids, unpaused=("uncreated",)
    )
    assert {key for key, text in found.items() if "stand-in" in text} == {
        ("run", "unscheduled/several-unscheduled"),
        ("dag", "unstarted"),
        ("dag", "uncreated"),
        ("events", "eventful/several-eventful"),
        ("file", "."),
        ("step", "unreferenced triggers"),
    }
    assert shown == [".", "scheduler", *["stopped.py"] * 4]
    assert runs == {"canary": "running", "unscheduled": "running", "unstarted": "queued", "eventful": "running"}
    # Each DAG fails once on its own; the first one also in the pass for all DAGs. Later passes skip both.
    assert (failures["unstarted"], failures["uncreated"]) == (1, 2)

    def recovered() -> bool:
        environment.command("look", kind="refresh")
        environment.call("run_tick", "test")
        is_held = any("stand-in" in text for text in quarantined(environment).values())
        return not is_held and set(dict(environment.query(RUNS.format(name="several"))).values()) == {"success"}

    wait_until(recovered, "all of it, once nothing raises any more", 90)
    assert len(environment.query("SELECT state FROM dag_run WHERE dag_id = 'uncreated'")) == 1
    assert environment.query("SELECT 1 FROM dag WHERE dag_id = 'unlisted'")


def dag_files(environment: Environment, *dag_ids: str) -> dict[str, str]:
    """{id: its file} of those DAGs that are not stale, after a tick."""
    environment.command("look", kind="refresh")
    environment.call("run_tick", "test")
    rows = environment.query("SELECT dag_id, relative_fileloc FROM dag WHERE NOT is_stale")
    return {dag_id: place for dag_id, place in rows if dag_id in dag_ids}


def test_first_of_files_with_one_dag_id_defines_the_dag(environment: Environment) -> None:
    [dags] = environment.volumes("dags")
    original, other = CANARY.replace("canary", "original"), CANARY.replace("canary", "other")
    environment.upload("one.py", original)
    assert dag_files(environment, "original", "other") == {"original": "one.py"}
    environment.upload("a_copy.py", original)
    assert dag_files(environment, "original", "other") == {"original": "one.py"}
    environment.upload("a_copy.py", other)
    assert dag_files(environment, "original", "other") == {"original": "one.py", "other": "a_copy.py"}
    environment.upload("a_copy.py", original + other.replace("from", "\nfrom"))
    assert dag_files(environment, "original", "other") == {"original": "one.py", "other": "a_copy.py"}
    (dags / "one.py").unlink()
    assert dag_files(environment, "original", "other") == {"original": "a_copy.py", "other": "a_copy.py"}
    environment.upload("b_copy.py", original)
    environment.upload("a_copy.py", other)
    assert dag_files(environment, "original", "other") == {"original": "b_copy.py", "other": "a_copy.py"}


def test_run_uses_the_last_saved_version(environment: Environment) -> None:
    source = """
from airflow.sdk import DAG, task

with DAG("saved", schedule=None):
    @task
    def NAME(): ...
    NAME()
"""
    for name in ("first", "second", "third"):
        environment.upload("saved.py", source.replace("NAME", name))
        environment.command(name, kind="trigger", dag_id="saved", run_id=name)
        environment.call("run_tick", "test")
        tasks = environment.query("SELECT task_id FROM task_instance WHERE run_id = ?", name)
        assert tasks == [(name,)]


def test_missing_tables_are_added_on_upgrade(environment: Environment) -> None:
    environment.call("run_tick", "test")
    environment.execute("DROP TABLE airflow_serverless_quarantine")
    environment.execute("DROP TABLE airflow_serverless_definition")
    # A warm container would go on with its copy of SQLite's database.
    environment.execute("UPDATE airflow_serverless_version SET generation = generation + 1")
    run_canary(environment, "after-an-upgrade")
    assert environment.query("SELECT count(*) FROM airflow_serverless_quarantine")
    assert environment.query("SELECT count(*) FROM airflow_serverless_definition")


def test_the_digest_of_the_software_depends_on_the_package_only(tmp_path: Path) -> None:
    """It is part of what decides whether DAG files are parsed again: another file beside the package must not count."""
    shutil.copytree(FUNCTIONS / "airflow_serverless", tmp_path / "airflow_serverless")
    environment = {
        "PYTHONPATH": str(tmp_path),
        SETTINGS_VARIABLE: '{"environment": "test"}',
        "AIRFLOW_HOME": str(tmp_path),
    }

    def digest() -> str:
        script = "from airflow_serverless.quarantine import software; print(software())"
        return subprocess.check_output([sys.executable, "-c", script], env=environment, text=True).split()[-1]

    before = digest()
    (tmp_path / "other.py").write_text("x = 1")
    assert digest() == before
    with (tmp_path / "airflow_serverless/state.py").open("a") as file:
        file.write("# changed")
    assert digest() != before
