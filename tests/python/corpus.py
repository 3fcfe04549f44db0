"""The corpus of DAGs: its folder, what is triggered, and what a database says came of it.

Both the recorder, which asks stock Airflow, and the comparison use it, so that they cannot disagree by what they read.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import zipfile
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from local_modal import REPOSITORY

CORPUS = REPOSITORY / "tests/corpus"
EXPECTED = CORPUS / "expected.json"
VARIABLES = {
    "AIRFLOW_VAR_CORPUS_GREETING": "hello",
    "AIRFLOW_VAR_CORPUS_SETTINGS": '{"rows": [1, 2]}',
    "AIRFLOW_CONN_CORPUS_STORE": "postgres://reader:secret@store.example:5433/orders?sslmode=require",
    "CORPUS_PLAIN": "plain",
}
"""What DAGs find in the environment of their processes; CORPUS_NOTES, a folder, comes with it."""
EXAMPLE_FOLDERS = ("airflow/example_dags", "airflow/providers/standard/example_dags")
SCHEDULES = r'"[^"\n]*"|(datetime\.)?timedelta\([^)\n]*\)|CronPartitionTimetable\([^)\n]*\)'
"""What examples have for schedules."""
UNFINISHED = ("queued", "running")
LONGEST_VALUE = 300

Query = Callable[[str], Iterable[tuple[Any, ...]]]


class Trigger(NamedTuple):
    dag_id: str
    run_id: str
    logical_date: str | None
    conf: dict[str, Any]
    partition_key: str | None


@cache
def table() -> dict[str, Any]:
    """The table of what is run."""
    return yaml.safe_load((CORPUS / "runs.yaml").read_text())


def triggers() -> list[Trigger]:
    """All runs that are asked for. DAGs with a schedule of their own are not: they run by themselves."""
    document = table()
    found = []
    examples = {dag_id: [{}] for dag_ids in document["examples"].values() for dag_id in dag_ids}
    for dag_id, runs in {**document["triggered"], **examples}.items():
        for run in runs or [{}]:
            date = run.get("logical_date", "2026-01-05T00:00:00+00:00")
            found.append(
                Trigger(dag_id, run.get("run_id", "once"), date, run.get("conf", {}), run.get("partition_key"))
            )
    return found


def example_files() -> Iterator[tuple[str, Path]]:
    """All files with example DAGs that are installed with Airflow: the name in the table, and where the file is."""
    for folder in EXAMPLE_FOLDERS:
        package, _, path = folder.partition("/")
        specification = find_spec(package)
        assert specification and specification.submodule_search_locations, package
        for file in sorted((Path(next(iter(specification.submodule_search_locations))) / path).glob("*.py")):
            if file.name != "__init__.py":
                yield f"{folder}/{file.name}", file


def build_folder(target: Path) -> None:
    """Copy the corpus, its archive, and the examples that are installed with Airflow, to an empty DAG folder.

    Examples lose their schedules, as what would run by itself, and how often, depended on the day; and the timeouts of
    their runs, which a slow machine may not keep.
    """
    shutil.copytree(CORPUS / "dags", target, ignore=shutil.ignore_patterns("__pycache__"))
    with zipfile.ZipFile(target / "archive.zip", "w") as archive:
        for file in sorted((CORPUS / "archive").glob("*.py")):
            archive.write(file, file.name)
    files = dict(example_files())
    for name in table()["examples"]:
        text = files[name].read_text()
        text = re.sub(rf"schedule=({SCHEDULES})", "schedule=None", text)
        text = re.sub(r"dagrun_timeout=(datetime\.)?timedelta\([^)\n]*\),", "", text)
        copy = target / "examples" / files[name].name
        copy.parent.mkdir(exist_ok=True)
        copy.write_text(text)


def unfinished(query: Query) -> list[tuple[str, str]]:
    """(DAG, run) of triggered runs that are absent, and of all runs that have not ended, and are going to."""
    states = {(dag_id, run_id): state for dag_id, run_id, state in query("SELECT dag_id, run_id, state FROM dag_run")}
    absent = [(one.dag_id, one.run_id) for one in triggers() if (one.dag_id, one.run_id) not in states]
    stuck = {(dag_id, run_id) for dag_id, run_ids in table()["never_end"].items() for run_id in run_ids}
    return absent + [run for run, state in states.items() if state in UNFINISHED and run not in stuck]


def collect(query: Query, payload: Callable[[Any], Any], notes: Path, places: dict[str, str]) -> dict[str, Any]:
    """What came of it; where an example has a schedule in spite of all, the runs that this caused are left out.

    {"dags": {dag_id: {"runs": {run: {"state", "tasks", "xcoms"}}, "notes"}}, "import_errors": {file: message}}.

    `payload` gives the serialized value that a stored XCom stands for. `places` are texts that differ from one machine
    to the next, with the words to put for them.
    """
    cleaner = _Cleaner(places)
    rows = query(
        "SELECT dag_id, run_id, run_type, dag_run.state FROM dag_run JOIN dag USING (dag_id)"
        " WHERE run_type <> 'scheduled' OR relative_fileloc NOT LIKE 'examples/%'"
    )
    runs = {(dag_id, run_id): (run_type, state) for dag_id, run_id, run_type, state in rows}
    results: dict[tuple[str, str], dict[str, Any]] = {
        run: {"state": state, "tasks": {}, "xcoms": {}} for run, (_, state) in runs.items()
    }
    for dag_id, run_id, task_id, index, state, tries in query(
        "SELECT dag_id, run_id, task_id, map_index, state, try_number FROM task_instance"
    ):
        if (dag_id, run_id) in results:
            results[dag_id, run_id]["tasks"][_name(task_id, index)] = f"{state} {tries}"
    for dag_id, run_id, task_id, index, key, value in query(
        "SELECT dag_id, run_id, task_id, map_index, key, CAST(value AS TEXT) FROM xcom"
    ):
        if (dag_id, run_id) not in results:
            continue
        volatile = f"{dag_id}.{task_id}.{key}" in table()["volatile"]
        stored = payload(json.loads(value)) if value is not None else None
        shown = f"<{type(stored).__name__}>" if volatile else cleaner.clean(stored)
        if key == "skipmixin_key":
            # Airflow collects the ids in sets.
            shown = {what: sorted(ids) for what, ids in shown.items()}
        results[dag_id, run_id]["xcoms"][f"{_name(task_id, index)}.{key}"] = shown
    dags: dict[str, Any] = defaultdict(lambda: {"runs": {}, "notes": []})
    # Runs without a name of their own are numbered: in an order that the database has no part in.
    for (dag_id, run_id), result in sorted(results.items(), key=lambda item: json.dumps(item[1], sort_keys=True)):
        _enter(dags[dag_id]["runs"], run_id, runs[dag_id, run_id][0], result)
    for note in sorted(notes.rglob("*")):
        if note.is_file():
            dags[note.relative_to(notes).parts[0]]["notes"].append(note.relative_to(notes).as_posix())
    errors = {
        file: cleaner.clean(text.strip().splitlines()[-1])
        for file, text in query("SELECT filename, stacktrace FROM import_error")
    }
    document = {"dags": dags, "import_errors": errors}
    return json.loads(json.dumps(document, sort_keys=True))


def _enter(runs: dict[str, Any], run_id: str, run_type: str, result: dict[str, Any]) -> None:
    """Names that Airflow makes up contain the time. How many events a run takes that assets caused is a matter of time
    as well, so equal ones count once. Names of runs of a partition end in chance."""
    run_id = re.sub(r"^(scheduled__.+__.+)__\w{8}$", r"\1", run_id)
    if run_type != "asset_triggered" and not run_id.startswith("manual__"):
        runs[run_id] = result
        return
    number = 1
    while runs.setdefault(f"{run_type} #{number}", result) != result:
        number += 1


def _name(task_id: str, index: int) -> str:
    return task_id if index < 0 else f"{task_id}[{index}]"


class _Cleaner:
    """Puts words for what differs by nature: times of the day of the run, ids, places; digests for what is long."""

    def __init__(self, places: dict[str, str]) -> None:
        self._places = sorted(places.items(), key=lambda place: -len(place[0]))

    def clean(self, value: Any) -> Any:
        if isinstance(value, dict):
            return {key: self.clean(item) for key, item in value.items()}
        if isinstance(value, list):
            cleaned = [self.clean(item) for item in value]
            text = json.dumps(cleaned)
            return cleaned if len(text) <= LONGEST_VALUE else _digest(text)
        if not isinstance(value, str):
            return value
        for place, word in self._places:
            value = value.replace(place, word)
        value = re.sub(r"\b[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\b", "<id>", value)
        value = re.sub(r"manual__[-\dT:.+]+", "<manual run>", value)
        value = re.sub(r"^https?://(localhost|127\.0\.0\.1)(:\d+)?/", "/", value)
        return value if len(value) <= LONGEST_VALUE else _digest(value)


def _digest(text: str) -> str:
    return f"<{len(text)} characters, sha256 {hashlib.sha256(text.encode()).hexdigest()[:16]}>"
