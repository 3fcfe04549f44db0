"""Parsing of one DAG file: the same import for the scheduler and for the validator. Runs in a child process."""

from __future__ import annotations

import os
import re
import sys
import traceback
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

from airflow_serverless import regular
from airflow_serverless.config import BUNDLE
from airflow_serverless.dags import plugins, refusals, requirements, tracebacks
from airflow_serverless.dags.isolation import ChildFailed, Limits, run_in_child
from airflow_serverless.dags.lookups import Lookups
from airflow_serverless.dags.reads import Read, recorded
from airflow_serverless.dags.refusals import Refusal
from airflow_serverless.dags.values import Write

if TYPE_CHECKING:
    from airflow_serverless.dags.trial import Trial


DUPLICATE = "AirflowDagDuplicatedIdException"


class ParsedDag(TypedDict):
    """`schedule` is Airflow's one-line summary; `data` is the serialized DAG."""

    dag_id: str
    schedule: str | None
    task_count: int
    data: dict[str, Any]


class FileError(TypedDict):
    """`file` is relative to the DAG folder; `line` is the last line of that file in the traceback, if any."""

    file: str
    line: int | None
    message: str
    traceback: str


class ParsedFile(TypedDict):
    """The result of parsing a file.

    `reads`: what the import read, see `reads.py`. `writes`: the Variables that it set. `needs_values`: the import
    requested a value, but none were passed; ignore all other fields.
    """

    dags: list[ParsedDag]
    import_errors: list[FileError]
    warnings: list[str]
    reads: list[Read]
    writes: list[Write]
    needs_values: bool


def parse_isolated(
    path: Path,
    root: Path,
    limits: Limits,
    lookups: Lookups,
    packages: Path | None = None,
    trial: Trial | None = None,
) -> ParsedFile:
    """Parse `path` as part of the DAG folder `root` in a child process; never raises for what the file does.

    `lookups` has the values that the file may read. `packages` is where the packages are that it asks for. With a
    `trial` its DAGs are also stored there.

    Airflow's own import timeout comes first, as it can name the line; a file that evades it is killed a little later.
    """

    def parse() -> ParsedFile:
        parsed = parse_file(path, root, limits.seconds, lookups)
        return trial.check(path, root, parsed) if trial and not parsed["needs_values"] else parsed

    try:
        with requirements.active_in_children(packages):
            parsed: ParsedFile = run_in_child(parse, limits.with_grace())
            # JSON has lists only.
            parsed["reads"] = [(kind, name) for kind, name in parsed["reads"]]
    except ChildFailed as failure:
        return refused(path, root, f"{path.name} {failure} while it was imported")
    return parsed


def mentions_dags(path: Path) -> bool:
    """Whether a file may define DAGs: an archive, or a file with the word `dag` or `airflow`.

    Others are not imported, as in stock Airflow, whose heuristic requires more.
    """
    content = regular.read_bytes(path).lower()
    return path.suffix != ".py" or b"dag" in content or b"airflow" in content


def not_imported() -> ParsedFile:
    """The answer for a file that does not mention DAGs."""
    return _empty()


def check_plugin(path: Path, root: Path, limits: Limits, lookups: Lookups) -> ParsedFile:
    """Load the plugins of the DAG folder `root` in a child process; tells of what is wrong with the one in `path`."""
    name = path.relative_to(root).as_posix()
    loaded = plugins.try_out(root, limits, lookups)
    found = {file: text for file, text in loaded["errors"].items() if file == name or not loaded["is_safe"]}
    hint = f"{name} defines no plugin: only what a class that extends AirflowPlugin lists is known to Airflow"
    errors = [_error(path, root, _message(text, root, limits.seconds), text) for text in found.values()]
    hints = [] if found or name in loaded["sources"] else [hint]
    return {**_empty(), "import_errors": errors, "warnings": hints, "needs_values": loaded["needs_values"]}


def _empty() -> ParsedFile:
    return {"dags": [], "import_errors": [], "warnings": [], "reads": [], "writes": [], "needs_values": False}


def refused(path: Path, root: Path, reason: str) -> ParsedFile:
    """The answer for a file that is not imported, for this reason."""
    return {**_empty(), "import_errors": [_error(path, root, reason, reason)]}


def parse_file(path: Path, root: Path, seconds: float, lookups: Lookups) -> ParsedFile:
    """Import the file within so many seconds, validate and serialise its DAGs.

    Leaves traces in the interpreter and its environment: use a child.
    """
    os.environ["AIRFLOW__CORE__DAGBAG_IMPORT_TIMEOUT"] = str(seconds)
    plugins.follow(root)
    lookups.install()
    from airflow.dag_processing.dagbag import BundleDagBag
    from airflow.exceptions import AirflowDagDuplicatedIdException
    from airflow.sdk import DAG
    from airflow.serialization.serialized_objects import DagSerialization

    class StrictDagBag(BundleDagBag):
        """Airflow lets one of several DAGs with the same id win; the others would vanish silently."""

        def bag_dag(self, dag: DAG) -> None:
            if self.dags.get(dag.dag_id, dag) is not dag:
                raise AirflowDagDuplicatedIdException(dag.dag_id, dag.fileloc, self.dags[dag.dag_id].fileloc)
            super().bag_dag(dag)

    # Airflow collects DAGs in sets, where one that looks like another would replace it before anybody can tell.
    DAG.__eq__, DAG.__hash__ = object.__eq__, object.__hash__  # type: ignore[method-assign]
    with warnings.catch_warnings(), recorded(root) as reads:
        warnings.simplefilter("default")
        bag = StrictDagBag(
            dag_folder=str(path), bundle_path=root, bundle_name=BUNDLE, load_op_links=False, safe_mode=False
        )
    errors = [_import_error(path, root, text, seconds) for text in bag.import_errors.values()]
    dags: list[ParsedDag] = []
    for dag in sorted(bag.dags.values(), key=lambda found: found.dag_id):
        try:
            data = DagSerialization.to_dict(dag)
        except Exception:
            text = traceback.format_exc()
            message = f"DAG {dag.dag_id!r} cannot be serialized: {_message(text, root, seconds)}"
            errors.append(_error(path, root, message, text))
            continue
        if found := [_refusal(path, root, refusal) for refusal in refusals.refusals(dag)]:
            errors += found
            continue
        # A timetable of the user's own can have anything there.
        schedule = str(getattr(dag.timetable, "summary", None) or dag.schedule or "") or None
        dags.append({"dag_id": dag.dag_id, "schedule": schedule, "task_count": len(dag.tasks), "data": data})
    # Only what the user's own files cause: they cannot do anything about warnings between other packages.
    own = [line for lines in bag.captured_warnings.values() for line in lines if line.startswith(str(root))]
    return {
        "dags": dags,
        "import_errors": errors,
        "warnings": own,
        "reads": sorted(reads | lookups.reads),
        "writes": lookups.writes,
        "needs_values": lookups.needs_values,
    }


def _import_error(path: Path, root: Path, text: str, seconds: float) -> FileError:
    if refusal := refusals.executor_refusal(text.strip()):
        return _refusal(path, root, refusal)
    return _error(path, root, _message(text, root, seconds), tracebacks.from_own_code(text, root))


def _refusal(path: Path, root: Path, refusal: Refusal) -> FileError:
    """An error without a traceback: the file is good Python, but asks for what cannot be had."""
    error = _error(path, root, refusal.reason, refusal.reason)
    return {**error, "line": refusals.line_of(path, refusal)}


def _error(path: Path, root: Path, message: str, text: str) -> FileError:
    lines = re.findall(rf'File "{re.escape(str(path))}", line (\d+)', text)
    return {
        "file": path.relative_to(root).as_posix(),
        # What looks like a line of a traceback may be a part of a message.
        "line": int(lines[-1]) if lines and len(lines[-1]) < 10 else None,
        "message": message,
        "traceback": text,
    }


def _message(text: str, root: Path, seconds: float) -> str:
    """The exception with its whole text, in words where these are not enough, and the user's own frames."""
    exception, frames = tracebacks.read(text, root)
    if exception == "SystemExit" or exception.startswith("SystemExit:"):
        argument = exception.partition(":")[2].strip()
        exception = f"the file calls sys.exit({argument}) when it is imported"
    elif exception.startswith(("MemoryError", "RecursionError")):
        exception = f"{exception} (the file uses too much memory or recursion when it is imported)"
    elif DUPLICATE in exception.partition(":")[0]:
        told = exception.partition(": ")[2].replace("Ignoring DAG", "more than one DAG has the id")
        return told.partition(" from ")[0]
    elif "AirflowTaskTimeout" in text:
        exception = f"the import takes longer than {seconds:g} s"
    return "\n".join([exception, *frames])


def warm_up() -> None:
    """Import what nearly every DAG file imports, so that forked children find it loaded."""
    import airflow.dag_processing.dagbag
    import airflow.providers.standard.operators.bash
    import airflow.providers.standard.operators.empty
    import airflow.providers.standard.operators.python
    import airflow.sdk
    import airflow.sdk.definitions.asset.metadata
    import airflow.sdk.execution_time.timeout
    import airflow.serialization.serialized_objects  # noqa: F401
    import jinja2.ext  # noqa: F401

    # Airflow's lazy exports are resolved on first use; resolve the common ones once, here.
    for name in ("DAG", "task", "dag", "Asset", "Param"):
        getattr(sys.modules["airflow.sdk"], name)
