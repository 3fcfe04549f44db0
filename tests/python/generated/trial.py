"""Runs cases in an environment, beside a canary: a DAG that has to go on whatever the cases do."""

from __future__ import annotations

import contextlib
import itertools
import json
import shutil
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from environment import Environment, deployed
from generated.cases import Case, Command
from test_functions_validator import Validator

BATCH = 20
BATCHES = 10
"""So many batches share an environment, whose database grows with them."""
LIMIT = 180.0
"""Seconds for the canary to run beside a batch, and for a tick to begin and end then."""
CANARY = """
from airflow.sdk import DAG, Variable, task

Variable.get("read by the canary", None)
with DAG("canary", schedule=None):
    @task(pool="canary", priority_weight=2**31 - 1)
    def sings(): ...
    sings()
"""
CANARY_POOL = {"name": "canary", "slots": 4, "description": "", "include_deferred": False}
VALUES = {"variables": {}, "connections": {}, "environment": {}}
# Leaves the commands, calls ticks until the last of them is answered, and answers with the first failure of a tick.
TICKS = """
import queue, threading
store = modal.Dict.from_name("airflow-state-test")
for number, command in enumerate({commands!r}):
    store[f"command:{{command['id']}}"] = {{"at": time.time() + number / 1000, **command}}
store.put("wake", {{"reason": "test", "at": 0.0}}, skip_if_exists=True)
tick = modal.Function.from_name("airflow-serverless-test", "run_tick")
call, until, failure = tick.spawn("test"), time.time() + {limit}, "no tick has answered in {limit} s"
failures = 0
while time.time() < until:
    if store.get("reply:{last}") is not None:
        failure = None
        break
    try:
        call.get(timeout=0.2)
        call = tick.spawn("test")
    except TimeoutError:
        pass
    except Exception as error:
        failures += 1
        if failures == 2:
            failure = f"{{type(error).__name__}}: {{error}}"
            break
        call = tick.spawn("test")
answer(failure)
"""


class Stopped(Exception):
    """The scheduler does not go on beside a batch."""


@dataclass
class Outcome:
    """What came of cases: `refused` by the validator, in the database (`stored`) or not (`left_out`), and the smallest
    batches that stop the scheduler, with the reason of each."""

    cases: int = 0
    refused: int = 0
    stored: int = 0
    left_out: list[str] = field(default_factory=list)
    quarantined: list[str] = field(default_factory=list)
    stopped: list[tuple[list[Case], str]] = field(default_factory=list)

    def add(self, other: Outcome) -> None:
        for name, value in vars(other).items():
            setattr(self, name, getattr(self, name) + value)

    def __str__(self) -> str:
        accepted = self.cases - self.refused
        return (
            f"{self.cases} cases: {self.refused} refused, {accepted} accepted, of which {self.stored} were stored, "
            f"{len(self.left_out)} were not, and {len(self.quarantined)} were quarantined; "
            f"{len(self.stopped)} stopped the scheduler"
        )


@contextlib.contextmanager
def validators(folder: Path, workers: int = 2) -> Iterator[Validators]:
    """The validator of uploads; `folder` is for its files."""
    process = Validator("--workers", str(workers))
    try:
        yield Validators(process, folder)
    finally:
        process.close()


class Validators:
    def __init__(self, process: Validator, folder: Path) -> None:
        self._process = process
        self._folder = folder
        self.messages: dict[str, str] = {}
        """{file: why it was refused}"""

    def accepted(self, cases: Iterable[Case]) -> list[Case]:
        """Those whose files the validator accepts, each in a folder of its own, as an upload does."""
        found, requests = list(cases), {}
        for number, case in enumerate(found):
            root = self._folder / str(number)
            shutil.rmtree(root, ignore_errors=True)
            for path in put(root, case):
                if path.suffix == ".py":
                    requests[len(requests)] = (number, path)
                    line = {"id": len(requests) - 1, "path": str(path), "root": str(root), "values": VALUES}
                    self._process.send(json.dumps(line))
        refused = set()
        for _ in requests:
            answer = self._process.read()
            number, path = requests[answer["id"]]
            is_plugin = path.parent.name == "plugins"
            if "error" in answer or answer["import_errors"] or not (is_plugin or answer["dags"]):
                refused.add(number)
                self.messages[path.name] = str(answer.get("import_errors") or answer)[:2000]
        return [case for number, case in enumerate(found) if number not in refused]


def put(root: Path, case: Case) -> list[Path]:
    """Write the files of a case below a folder."""
    paths = []
    for name, content in case.files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, "utf-8", "surrogateescape")
        paths.append(path)
    return paths


class Canary:
    """An environment with a canary, in which batches of accepted cases are run one after the other."""

    def __init__(self, environment: Environment) -> None:
        self._environment = environment
        self._numbers = itertools.count()
        self._held: set[str] = set()
        self._environment.upload("canary.py", CANARY)
        [self._dags] = environment.volumes("dags")
        self._tick([{"kind": "put_pools", "pools": [CANARY_POOL]}])
        self._sing()

    def run(self, cases: Sequence[Case], outcome: Outcome) -> None:
        """Have the canary run beside these cases, and one more tick; raises Stopped."""
        try:
            for case in cases:
                put(self._dags, case)
            self._tick([command for case in cases for command in case.commands])
            self._sing()
            self._tick([])
            self._note(cases, outcome)
        finally:
            self._clear()

    def _tick(self, commands: Sequence[Command]) -> None:
        """A tick that carries out these commands, and that of the canary's next run; raises Stopped."""
        prefix = f"batch{next(self._numbers)}"
        last = {"kind": "trigger", "dag_id": "canary", "run_id": prefix}
        self._run = prefix
        named = [{"id": f"{prefix}-{n}", **command} for n, command in enumerate([*commands, last])]
        script = TICKS.format(commands=_Literal(named), last=named[-1]["id"], limit=LIMIT)
        if failure := self._environment.modal.sdk(script):
            raise Stopped(failure)

    def _sing(self) -> None:
        """Wait until the task of the canary's newest run runs or has run."""
        states = "SELECT state FROM task_instance WHERE dag_id = 'canary' AND run_id = ?"
        until = time.monotonic() + LIMIT
        while self._environment.query(states, self._run) not in ([("running",)], [("success",)]):
            if time.monotonic() > until:
                raise Stopped(f"the canary is {self._environment.query(states, self._run)} after {LIMIT} s")
            time.sleep(0.1)

    def _note(self, cases: Sequence[Case], outcome: Outcome) -> None:
        files = {path for (path,) in self._environment.query("SELECT relative_fileloc FROM dag")}
        rows = self._environment.query("SELECT kind, name, traceback FROM airflow_serverless_quarantine")
        held = {f"{kind} {name}: {text.strip().splitlines()[-1]}" for kind, name, text in rows}
        outcome.quarantined += sorted(held - self._held)
        self._held |= held
        for case in cases:
            # What an .airflowignore leaves out is nowhere.
            is_whole = not any(name.endswith("/.airflowignore") for name in case.files)
            names = [name for name in case.files if is_whole and not name.startswith("plugins/")]
            if files.issuperset(names):
                outcome.stored += 1
            else:
                outcome.left_out += names

    def _clear(self) -> None:
        for path in self._dags.iterdir():
            if path.name != "canary.py":
                # Compiled files may appear at any time.
                shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink()


class _Literal(list[Any]):
    """Commands as an expression: JSON numbers that are none have no literal."""

    def __repr__(self) -> str:
        return f"json.loads({json.dumps(list(self))!r})"


def run(cases: Sequence[Case], database: str, outcome: Outcome, validator: Validators, **variables: str) -> None:
    """Run all cases in batches, and find those that stop the scheduler."""
    batches = [cases[at : at + BATCH] for at in range(0, len(cases), BATCH)]
    while batches:
        with deployed(database, **variables) as environment:
            canary = Canary(environment)
            for _ in range(min(BATCHES, len(batches))):
                batch = batches.pop(0)
                accepted = validator.accepted(batch)
                outcome.cases += len(batch)
                outcome.refused += len(batch) - len(accepted)
                try:
                    canary.run(accepted, outcome)
                except Stopped as stopped:
                    outcome.stopped.append((accepted, str(stopped)))
                    break
        if outcome.stopped and outcome.stopped[-1][0] is accepted:
            outcome.stopped[-1] = smallest(accepted, database, outcome.stopped[-1][1])


def smallest(cases: Sequence[Case], database: str, reason: str) -> tuple[list[Case], str]:
    """The one of these cases that stops the scheduler alone, or all of them if none does."""
    left = list(cases)
    while len(left) > 1:
        half = left[: len(left) // 2]
        for part in (half, left[len(half) :]):
            if failure := stops(part, database):
                left, reason = part, failure
                break
        else:
            return left, reason
    return left, reason


def stops(cases: Sequence[Case], database: str) -> str | None:
    """Why these cases stop the scheduler of an environment of their own; None if they do not."""
    with deployed(database) as environment:
        try:
            Canary(environment).run(cases, Outcome())
        except Stopped as stopped:
            return str(stopped)
    return None
