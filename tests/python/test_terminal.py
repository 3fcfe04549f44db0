"""The command line on a terminal and without one: what is drawn, what is asked, and what the shell's variables do.

One daemon serves all tests. They begin with two environments: `dev` was created on a terminal, `spare` in a pipe.
"""

from __future__ import annotations

import json
import re
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from daemon import Daemon
from terminal import Terminal, piped

INTERVAL = 3600
# One worker: each takes seconds to start.
CONFIG = f"""
database: {{type: sqlite}}
scheduler: {{interval_seconds: {INTERVAL}}}
executor: {{parallelism: 1}}
"""
# Its first task waits for a file, and the others for the first; all names are longer than small terminals are wide.
DAG = """
from airflow.sdk import dag, task
import pathlib, time

@dag(schedule=None)
def gated():
    @task
    def waits_for_a_file_that_the_test_makes(params=None):
        while not pathlib.Path(params["file"]).exists():
            time.sleep(0.05)

    @task
    def comes_after_the_one_that_waits_for_a_file(): ...

    waits_for_a_file_that_the_test_makes() >> [comes_after_the_one_that_waits_for_a_file() for _ in range(4)]

gated()
"""
FIRST = "waits_for_a_file_that_the_test_makes"
OTHER = "comes_after_the_one_that_waits_for_a_file"
TASKS = sorted([FIRST, OTHER, *(f"{OTHER}__{number}" for number in range(1, 4))])
HEADER = ["TASK", "STATE", "TRY", "DURATION"]
COLOUR = re.compile(r"\x1b\[[0-9;]*[1-9][0-9;]*m")
SPINNER = re.compile("[⠀-⣿]")


CYAN = "\x1b[36m"


class Created:
    """The environments, and how the command line told of their creation."""

    def __init__(self, daemon: Daemon) -> None:
        self.daemon = daemon
        self.config = daemon.root / "config.yaml"
        self.config.write_text(CONFIG)
        self.terminal = Terminal(daemon, "create", "--env", "dev", "--config", str(self.config))
        # They take their time side by side.
        self.piped = piped(daemon, "create", "--env", "spare", "--config", str(self.config))
        self.code = self.terminal.end()
        self.followed: subprocess.CompletedProcess[str]
        self.runs = 0

    @contextmanager
    def run(self, **settings: Any) -> Iterator[Terminal]:
        """A terminal that waits for a run, with a task that runs in its table; behind it, the run has ended."""
        self.runs += 1
        arguments, gate = self.arguments(f"run{self.runs}")
        terminal = Terminal(self.daemon, *arguments, **settings)
        try:
            # Where it has no room, the word is cut; its colour is not.
            terminal.wait_until(lambda: "running" in terminal.said or CYAN in terminal.said, "task that runs")
            yield terminal
        finally:
            gate.touch()
            terminal.end()

    def arguments(self, run: str) -> tuple[list[str], Path]:
        """To trigger a run and wait for it; the file that lets it go on."""
        gate = self.daemon.root / f"{run}.gate"
        run_of_it = ["--dag-id", "gated", "--run-id", run, "--conf", json.dumps({"file": str(gate)})]
        return ["dags", "trigger", "--env", "dev", *run_of_it, "--wait"], gate


@pytest.fixture(scope="module")
def created() -> Iterator[Created]:
    daemon = Daemon()
    try:
        yield Created(daemon)
    finally:
        daemon.close()


@pytest.fixture(scope="module")
def daemon(created: Created) -> Daemon:
    """With a DAG in `dev`, of which a run has ended."""
    assert created.code == 0, created.terminal.said
    assert created.piped.returncode == 0, created.piped
    file = created.daemon.root / "gated.py"
    file.write_text(DAG)
    uploaded = piped(created.daemon, "dags", "create", "--env", "dev", "--file", str(file))
    assert uploaded.returncode == 0, uploaded
    arguments, gate = created.arguments("lines")
    gate.touch()
    created.followed = piped(created.daemon, *arguments)
    assert created.followed.returncode == 0, created.followed
    return created.daemon


@pytest.fixture(scope="module", params=[(24, 40), (5, 160), (5, 40)], ids=["narrow", "short", "tiny"])
def small(request: pytest.FixtureRequest, created: Created, daemon: Daemon) -> Terminal:
    """A small one, on which a run was waited for."""
    rows, columns = request.param
    with created.run(rows=rows, columns=columns) as terminal:
        pass
    return terminal


def rows_of(lines: list[str]) -> list[list[str]]:
    """The lines of tables of tasks, as words."""
    words = [line.split() for line in lines]
    return [row for row in words if row == HEADER or (row and row[0] in TASKS)]


def answer(done: subprocess.CompletedProcess[str]) -> Any:
    assert done.returncode == 0, done
    return json.loads(done.stdout)


def test_creation_progress_is_animated_on_a_terminal(created: Created) -> None:
    assert created.code == 0, created.terminal.said
    # Lines are drawn again in their places, and what is left in the end is what lines in a pipe tell.
    assert "\x1b[2K" in created.terminal.said and SPINNER.search(created.terminal.said)
    done = [line for line in created.piped.stderr.splitlines() if line.startswith("✓ ")]
    expected = [*done, "environment spare is ready"]
    assert created.terminal.shown == [line.replace("spare", "dev") for line in expected]


def test_creation_progress_is_plain_lines_in_a_pipe(created: Created) -> None:
    assert created.piped.returncode == 0, created.piped
    assert created.piped.stdout == "environment spare is ready\n"
    said = created.piped.stderr
    assert "\x1b" not in said and "\r" not in said and not SPINNER.search(said), said
    steps = [re.match("✓ ([^:\n]+)", line) for line in said.splitlines() if not line.startswith("  ")]
    assert all(steps), said
    titles = [step[1] for step in steps if step]
    assert len(set(titles)) == len(titles) > 5, said


def test_run_is_updated_in_place_on_a_terminal(created: Created, daemon: Daemon) -> None:
    with created.run() as terminal:
        # One table, however often it was drawn.
        terminal.wait_until(lambda: [FIRST, "running", "1", "-"] in rows_of(terminal.shown), "row of the first task")
        drawn = rows_of(terminal.shown)
        assert drawn[0] == HEADER and sorted(row[0] for row in drawn[1:]) == TASKS, terminal.shown
    # It has ended by itself, with the run.
    assert terminal.code == 0, terminal.said
    assert terminal.said.count("TASK ") > 2 and re.search(r"\x1b\[\d+A", terminal.said), terminal.said
    told, result, blank, *table = terminal.shown
    assert (told, blank) == (f"run run{created.runs}", "")
    assert re.fullmatch(rf"gated run{created.runs}: success in \d+\.\d s", result)
    assert rows_of(table)[0] == HEADER and len(table) == len(TASKS) + 1, terminal.shown
    assert {(row[0], row[1]) for row in rows_of(table)[1:]} == {(task, "success") for task in TASKS}


def test_run_is_followed_as_plain_lines_in_a_pipe(created: Created, daemon: Daemon) -> None:
    done = created.followed
    told, *changes = done.stderr.splitlines()
    assert told == "run lines" and f"{FIRST} running" in changes, done.stderr
    assert sorted(line for line in changes if line.endswith(" success")) == [f"{task} success" for task in TASKS]
    assert "gated lines: success in " in done.stdout and HEADER in rows_of(done.stdout.splitlines())
    assert "\x1b" not in done.stdout + done.stderr and "\r" not in done.stdout + done.stderr


def test_small_terminals_show_the_result(small: Terminal) -> None:
    assert small.code == 0 and "panicked" not in small.said, small.said
    _, _, result = small.said.rpartition("gated run")
    assert re.match("\\d+: \x1b\\[32msuccess\x1b", result), small.said
    final = {(row[0], COLOUR.sub("", row[1]).replace("\x1b[0m", "")) for row in rows_of(result.splitlines())[1:]}
    assert final == {(task, "success") for task in TASKS}, result


def test_small_terminals_show_one_table(small: Terminal) -> None:
    assert small.text.count("TASK ") == 1, "\n".join(small.shown)


def test_colors_are_used_only_on_color_terminals(daemon: Daemon, created: Created) -> None:
    listed = ("runs", "list", "--env", "dev")
    wrong = ("runs", "list", "--env", "nowhere")
    cases: list[tuple[dict[str, Any], bool]] = [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)]
    for arguments, code in ((listed, 0), (wrong, 1)):
        plain = piped(daemon, *arguments)
        said = plain.stdout + plain.stderr
        assert "\x1b" not in said
        for variables, is_coloured in cases:
            terminal = Terminal(daemon, *arguments, **variables)
            assert terminal.end() == code, terminal.said
            assert bool(COLOUR.search(terminal.said)) == is_coloured, (variables, terminal.said)
            # Wider than the terminal, so the lines are not compared with those that it shows.
            without = re.sub(r"\x1b\[[0-9;]*m", "", terminal.said).replace("\r\n", "\n")
            assert without == said, variables


def test_dumb_terminal_gets_plain_lines(created: Created, daemon: Daemon) -> None:
    with created.run(TERM="dumb") as terminal:
        pass
    assert terminal.code == 0, terminal.said
    assert "\x1b" not in terminal.said


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param({}, id="usual"),
        pytest.param({"rows": 5}, id="short"),
        pytest.param({"TERM": "dumb"}, id="dumb"),
    ],
)
def test_all_steps_are_shown(settings: dict[str, Any], daemon: Daemon) -> None:
    operations = answer(piped(daemon, "operations", "list", "--env", "dev", "--json"))["operations"]
    terminal = Terminal(daemon, "operations", "wait", operations[0]["id"], **settings)
    assert terminal.end() == 0, terminal.said
    # Once as they happened, and once in the result.
    missing = [step["title"] for step in operations[0]["steps"] if terminal.text.count(f"✓ {step['title']}") != 2]
    assert not missing, terminal.shown


def test_environment_variable_selects_the_environment(daemon: Daemon) -> None:
    """It stands in for `--env`, which goes before it."""
    runs = answer(piped(daemon, "runs", "list", "--env", "dev", "--json"))["total_entries"]
    assert runs > 0
    commands = {
        ("env", "show"): lambda shown: shown["name"],
        ("runs", "list"): lambda shown: "dev" if shown["total_entries"] == runs else "spare",
        ("dags", "list"): lambda shown: "dev" if shown["total_entries"] == 1 else "spare",
    }
    for command, name_in in commands.items():
        for variable, flag, expected in (
            ("spare", [], "spare"),
            ("dev", [], "dev"),
            ("spare", ["--env", "dev"], "dev"),
        ):
            done = piped(daemon, *command, *flag, "--json", AIRFLOW_SERVERLESS_ENV=variable)
            assert name_in(answer(done)) == expected, (command, variable, flag, done.stdout)
        without = piped(daemon, *command)
        assert (without.returncode, "--env" in without.stderr) == (2, True), without
        wrong = piped(daemon, *command, AIRFLOW_SERVERLESS_ENV="nowhere")
        assert (wrong.returncode, "no environment nowhere" in wrong.stderr) == (1, True), wrong


def test_cost_estimate_adds_up(daemon: Daemon) -> None:
    def cost(*options: str) -> Any:
        estimate = answer(piped(daemon, "cost", "--env", "dev", *options, "--json"))
        parts = [estimate["tasks"], estimate["scheduler"], estimate["gate"]]
        assert estimate["total_usd"] == pytest.approx(sum(part["usd"] for part in parts))
        period = datetime.fromisoformat(estimate["to"]) - datetime.fromisoformat(estimate["from"])
        monthly = estimate["total_usd"] * (timedelta(days=30) / period)
        # They count in seconds.
        assert estimate["monthly_usd"] == pytest.approx(monthly, rel=2 / period.total_seconds())
        assert estimate["assumptions"]
        return {**estimate, "period": period}

    runs = answer(piped(daemon, "runs", "list", "--env", "dev", "--json"))["total_entries"]
    environment = daemon.ask("GET", "/v1/environments/dev")[1]
    # Nothing cost anything before it was there.
    young = cost()
    assert young["from"] == environment["created_at"], "the estimate does not begin with the environment"
    assert young["tasks"]["calls"] == runs * len(TASKS) and young["tasks"]["usd"] > 0

    make_older(daemon, "dev", timedelta(days=60))
    estimates = {days: cost("--days", str(days)) for days in (1, 2, 10, 30)}
    for days, estimate in estimates.items():
        assert estimate["period"] == timedelta(days=days)
        # The tasks ran today, and the cron always does; times are counted in milliseconds.
        for name in ("tasks", "scheduler"):
            assert estimate[name] == pytest.approx(estimates[1][name], rel=1e-3)
        assert estimate["gate"]["calls"] == days * 86400 // INTERVAL
        assert estimate["gate"]["usd"] == pytest.approx(days * estimates[1]["gate"]["usd"])
        assert estimate["gate"]["container_seconds"] == pytest.approx(days * estimates[1]["gate"]["container_seconds"])
    assert estimates[30]["monthly_usd"] == pytest.approx(estimates[30]["total_usd"])
    assert cost()["period"] == timedelta(days=30)
    assert cost("--days", "90")["period"] < timedelta(days=61), "there was nothing before"

    said = piped(daemon, "cost", "--env", "dev", "--days", "30").stdout
    total = estimates[30]["total_usd"]
    assert f"${total:.4f} in all, ${total:.2f} in 30 days" in said, said
    for name in ("tasks", "scheduler", "gate"):
        item = estimates[30][name]
        shown = "cron" if name == "gate" else name
        row = [shown, str(item["calls"]), f"{item['container_seconds']:.0f}", "s", f"${item['usd']:.4f}"]
        assert row in [line.split() for line in said.splitlines()], said


def make_older(daemon: Daemon, name: str, age: timedelta) -> None:
    """Lets the registry say that an environment was created long ago; the daemon expects no other writer beside it."""
    daemon.stop()
    with closing(sqlite3.connect(daemon.home / "data/registry.db")) as registry, registry:
        created = (datetime.now(UTC) - age).isoformat()
        changed = registry.execute("UPDATE environment SET created_at = ? WHERE name = ?", (created, name))
        assert changed.rowcount == 1
    daemon.start()


def test_deletion_requires_confirmation(daemon: Daemon) -> None:
    """On a terminal it is asked for, twice if data would be lost; nobody is asked elsewhere."""
    delete = ("env", "delete", "--env", "spare", "--purge")
    sure, name, kept = (
        "Delete environment spare? [y/N] ",
        "Type the name of the environment to continue: ",
        "nothing was",
    )

    def is_there() -> bool:
        status, environment = daemon.ask("GET", "/v1/environments/spare")
        operations = daemon.ask("GET", "/v1/operations?environment=spare")[1]["operations"]
        return status == 200 and environment["state"] == "ready" and len(operations) == 1

    # The last one ends the input: Ctrl-D.
    answers = [["no\n"], ["\n"], ["y\n", "dev\n"], ["y\n", "\n"], ["y\n", "SPARE\n"], ["\x04"], ["y\n", "\x04"]]
    for typed in answers:
        terminal = Terminal(daemon, *delete)
        for question, text in zip((sure, name), typed, strict=False):
            terminal.answer(question, text)
        assert (terminal.end(), kept in terminal.said) == (1, True), (typed, terminal.said)
        assert (name in terminal.said) == (len(typed) == 2), (typed, terminal.said)
        assert is_there(), typed
    # Without the purge, one question is enough.
    terminal = Terminal(daemon, *delete[:-1])
    terminal.answer(sure, "n\n")
    assert (terminal.end(), is_there()) == (1, True), terminal.said
    for words in ("stops running tasks", "airflow-dags-spare with DAG files", "stay, and a new `create`"):
        assert words in terminal.said, terminal.said
    # Answers from elsewhere than a terminal are none.
    refused = piped(daemon, *delete, typed="y\nspare\n")
    assert refused.returncode == 1 and "no terminal" in refused.stderr and "`--yes`" in refused.stderr, refused
    assert refused.stdout == "" and is_there()

    # What goes on is drawn, on few lines.
    terminal = Terminal(daemon, *delete, rows=5, columns=40)
    terminal.answer(sure, "Y\n")
    terminal.answer(name, "spare\n")
    assert terminal.end() == 0 and "panicked" not in terminal.said, terminal.said
    print("\n".join(terminal.shown), repr(terminal.said))
    assert "This deletes the Volume airflow-dags-spare" in terminal.text, terminal.shown
    assert terminal.text.rstrip().endswith("environment spare and its data were deleted"), terminal.shown
    assert SPINNER.search(terminal.said) and not SPINNER.search(terminal.text), terminal.shown
    assert daemon.ask("GET", "/v1/environments/spare")[0] == 404
