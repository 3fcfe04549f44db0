"""The validator answers for every file, whatever the file does when it is imported."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from environment import FUNCTIONS
from local_modal import REPOSITORY

# A file that writes its own answer to whoever reads it, and what that may be.
FORGERY = """import os
for fd in range(3, 100):
    try: os.write(fd, b'\\n{"result": RESULT}')
    except OSError: pass
os._exit(0)
"""
NO_NUMBER = '{"dags": [], "import_errors": [], "warnings": [], "reads": [], "needs_values": NaN}'

# What each file does, the words of the answer, and the line that it names.
HOSTILE: dict[str, tuple[str, str, int | None]] = {
    "exits": ("import sys\nsys.exit(3)", "sys.exit(3)", 2),
    "leaves": ("import os\nos._exit(0)", "ended the interpreter (exit code 0", None),
    "leaves_with_code": ("import os\nos._exit(7)", "ended the interpreter (exit code 7", None),
    "crashes": ("import ctypes\nctypes.string_at(0)", "segmentation fault", None),
    "loops": ("x = 1\nwhile True:\n    pass", "longer than 1 s", 2),
    "loops_stubbornly": (
        "import signal\nsignal.alarm = None\nsignal.setitimer(signal.ITIMER_REAL, 0)\nwhile True: pass",
        "longer than 3 seconds",
        None,
    ),
    "eats_memory": ("x = []\nwhile True:\n    x.append(bytes(300_000_000))", "memory", 3),
    "recurses": ("def f(): f()\nf()", "RecursionError", 1),
    "has_bad_syntax": ("x = 1\ndef f(:\n", "SyntaxError", 2),
    "imports_nothing": ("import nosuchmodule", "nosuchmodule", 1),
    "interrupts": ("raise KeyboardInterrupt", "KeyboardInterrupt", None),
    "kills_itself": ("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)", "was killed", None),
    "writes_everywhere": (
        "import os\nfor fd in range(100):\n    try: os.write(fd, b'{}\\n')\n    except OSError: pass\nos._exit(1)",
        "exit code 1",
        None,
    ),
    "eats_memory_in_parts": (
        "import os, time\nfor part in range(8):\n    if os.fork() == 0:\n"
        "        x = bytearray(os.urandom(1)) * 200_000_000\n        time.sleep(600)\ntime.sleep(600)",
        "needs more than 1000 MB of memory, with the processes that it starts",
        None,
    ),
    "shares_memory": (
        "import mmap, time\nx = mmap.mmap(-1, 1_200_000_000)\n"
        "for part in range(1200): x.write(b'x' * 1_000_000)\ntime.sleep(600)",
        "needs more than 1000 MB of memory, with the processes that it starts",
        None,
    ),
    "writes_without_end": (
        "import os, signal\nsignal.setitimer(signal.ITIMER_REAL, 0)\nwhile True:\n    for fd in range(3, 30):\n"
        "        try: os.write(fd, b'x')\n        except OSError: pass",
        "longer than 3 seconds",
        None,
    ),
    "kills_its_worker": (
        "import os, signal\nos.kill(os.getppid(), signal.SIGKILL)\nwhile True: pass",
        "ends the",
        None,
    ),
    "suspends_its_worker": ("import os, signal\nos.kill(os.getppid(), signal.SIGSTOP)\nraise ValueError('x')", "x", 3),
    "has_no_text": (r"raise ValueError('\udc80 \ud800')", r"ValueError: \udc80 \ud800", 1),
    "forges_an_answer": (FORGERY.replace("RESULT", "[1]"), "cannot be checked: TypeError", None),
    "forges_a_number": (FORGERY.replace("RESULT", NO_NUMBER), "cannot be checked: ValueError", None),
    "forges_a_line": (
        "class E(Exception):\n    def __str__(self): return f'File \"{__file__}\", line 99999999999'\nraise E",
        "99999999999",
        None,
    ),
    "leaves_a_child": ("import os, time\nif os.fork() == 0: time.sleep(600)\nos._exit(5)", "exit code 5", None),
    # Airflow has a file of this name as well, and the fault is in there.
    "events": (
        "import datetime\nfrom airflow.sdk import DAG, EventsTimetable\n"
        "moments = [datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)]\n"
        "dag = DAG('moments', schedule=EventsTimetable(moments, description='x'))",
        "cannot be serialized",
        None,
    ),
    "names_a_dag_twice": ("from airflow.sdk import DAG\na = DAG('same')\nb = DAG('same')", "more than one DAG", None),
    "has_a_cycle": (
        "from airflow.sdk import DAG\nfrom airflow.providers.standard.operators.empty import EmptyOperator as E\n"
        "with DAG('round'):\n    a = E(task_id='a'); b = E(task_id='b'); a >> b >> a",
        "Cycle",
        None,
    ),
}


# A module in which an error passes through many frames that are not the user's.
HELPER = """import copy

class Refused(Exception): pass
refused = Refused('the first line\\n\\n  the third line')
refused.add_note('with a note')
class Deep:
    def __deepcopy__(self, memo): raise refused
def load():
    value = Deep()
    for _ in range(30): value = [value]
    copy.deepcopy(value)
"""

# What is refused in tests/corpus/refused.py: the line that is named, and words of the reason.
REFUSED = {
    10: "asset 'refused://watched' has watchers",
    15: "a schedule of 0.01 s is finer",
    19: "specifies executor 'KubernetesExecutor', but all tasks run on Modal",
    22: "run_as_user='joe' is not possible",
    25: "an execution_timeout of 2 days, 0:00:00 is longer",
}


ALERT = (
    "deadline=DeadlineAlert(DeadlineReference.DAGRUN_QUEUED_AT, timedelta(1), "
    "AsyncCallback('a.b', {'x': float('nan')}))"
)
# Arguments of a DAG and of its task, and why Airflow cannot store it: all of it imports.
UNSTORABLE = {
    "an asset": ("", 'outlets=[Asset("corpus://größe/1")]', "'stored' cannot be stored: ValueError: URI must be ascii"),
    "a description": (r'description="\udc80"', "", r"description of DAG has a character that is not valid in text"),
    "a tag": (r'tags=["\ud800"]', "", "tags of DAG has a character"),
    "an owner": ("", r'owner="\0"', "owner of task 'stored' has a character"),
    "documentation": ("", r'doc_md="\udc80"', "doc_md of task 'stored' has a character"),
    "an extra": ("", r'outlets=[Asset("s3://a/b", extra={"of": ["\udc80"]})]', "has a character"),
    "a number": ("max_active_runs=2**70", "", "max_active_runs of DAG must be from -2147483648 to 2147483647"),
    "a start": ('schedule="@daily", start_date=datetime.max.replace(tzinfo=UTC)', "", "year 10000 is out of range"),
    "a size": ("max_active_tasks=2**31", "", "max_active_tasks of DAG must be from -2147483648 to 2147483647"),
    "slots": ("", "pool_slots=2**31", "pool_slots of task 'stored' must be from"),
    "a name": ('dag_display_name="x" * 2001', "", "dag_display_name of DAG is longer than 2000 characters"),
    "a configuration": ("", "executor_config=True", "executor_config of task 'stored': Input should be a valid dict"),
    "no number": (ALERT, "", "has a number that JSON does not have: nan"),
    "a color": ("", r'task_group=TaskGroup("g", ui_color="\0")', "ui_color of g of DAG has a character"),
    "an interval": ("schedule=relativedelta(microseconds=1)", "", "a schedule of 1e-06 s is finer"),
    "a retry": ("", "retry_delay=timedelta(days=3_000_000)", "a retry_delay of 3000000 days ends after the last date"),
    "a timeout": ("dagrun_timeout=timedelta.max", "", "a dagrun_timeout of 999999999 days is longer"),
}
STORED = """from datetime import UTC, datetime, timedelta
from dateutil.relativedelta import relativedelta
from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG, Asset, AsyncCallback, DeadlineAlert, DeadlineReference, TaskGroup

with DAG("stored", OF_DAG) as dag:
    EmptyOperator(task_id="stored", OF_TASK)
"""


class Validator:
    """The validator in a process of its own."""

    def __init__(self, *arguments: str, **variables: str) -> None:
        environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(FUNCTIONS), **variables}
        self.work = variables.get("TMPDIR", "/tmp")
        self.process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "airflow_serverless.dags.validator", *arguments],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.read()["ready"]

    def send(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def read(self) -> Any:
        assert self.process.stdout is not None
        return json.loads(self.process.stdout.readline())

    def ask(self, line: str) -> dict[str, Any]:
        self.send(line)
        answer: dict[str, Any] = self.read()
        return answer

    def validate(self, path: Path, **more: Any) -> dict[str, Any]:
        return self.ask(json.dumps({"path": str(path), **more}))

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        assert self.process.wait(20) == 0


@pytest.fixture(scope="module")
def validator() -> Iterator[Validator]:
    running = Validator()
    yield running
    running.close()


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_file_is_an_import_error(validator: Validator, tmp_path: Path, name: str) -> None:
    source, words, line = HOSTILE[name]
    path = tmp_path / f"{name}.py"
    path.write_text(source)
    # Memory takes its time on a busy machine.
    answer = validator.validate(path, imports_all=True, timeout_seconds=60 if "memory" in name else 1, memory_mb=1000)
    [error] = answer["import_errors"]
    assert words in error["message"]
    assert (error["file"], error["line"]) == (path.name, line)
    assert list(tmp_path.iterdir()) == [path], "the import left files behind"


def test_file_that_does_not_mention_dags_is_not_imported(validator: Validator, tmp_path: Path) -> None:
    path = tmp_path / "script.py"
    for source in ("import sys\nsys.exit(3)\n", "def broken(:\n", "import os, signal\nos.kill(os.getppid(), 9)\n"):
        path.write_text(source)
        answer = validator.validate(path)
        assert (answer["dags"], answer["import_errors"], answer["warnings"]) == ([], [], [])
        # One word is enough, wherever it is and however it is written.
        path.write_text(source + "# for AirFlow\n")
        assert len(validator.validate(path)["import_errors"]) == 1
    (tmp_path / "plugins").mkdir()
    plugin = tmp_path / "plugins/script.py"
    plugin.write_text("raise ValueError\n")
    assert len(validator.validate(plugin, root=str(tmp_path))["import_errors"]) == 1


def test_import_error_has_the_full_text_and_user_frames(validator: Validator, tmp_path: Path) -> None:
    path = tmp_path / "tells.py"
    (tmp_path / "helper.py").write_text(HELPER)
    path.write_text("import helper\n\nhelper.load()  # for a DAG\n")
    [error] = validator.validate(path)["import_errors"]
    exception, *frames = error["message"].partition("\n  File ")
    assert exception == "helper.Refused: the first line\n\n  the third line\nwith a note"
    frames = re.findall(r'File "(.*)", line (\d+), in (.*)', "".join(frames))
    expected = [("tells.py", "3", "<module>"), ("helper.py", "11", "load"), ("helper.py", "7", "__deepcopy__")]
    assert frames == [(str(tmp_path / file), line, name) for file, line, name in expected]
    assert (error["file"], error["line"]) == ("tells.py", 3)
    # The traceback has them all, but for those of Airflow's importer.
    found = re.findall(r'File "(.*)", line', error["traceback"])
    assert found[0] == str(path) and len(found) > 60 and exception in error["traceback"]
    # The line that cannot be read is a part of a SyntaxError, in whatever file it is.
    (tmp_path / "helper.py").write_text("x = (\n")
    [error] = validator.validate(path)["import_errors"]
    assert error["message"].startswith("SyntaxError: '(' was never closed\n")
    assert f'File "{tmp_path}/helper.py", line 1\n    x = (' in error["message"]


def test_valid_file_is_described(validator: Validator, tmp_path: Path) -> None:
    (tmp_path / "helper.py").write_text("NAME = 'helped'")
    path = tmp_path / "good.py"
    path.write_text(
        "import os\nimport warnings\nfrom airflow.sdk import DAG, task\nfrom helper import NAME\n"
        "print('noise' * 10000)\nos.system('echo noise; echo noise >&2')\nwarnings.warn('careful')\n"
        "with DAG(NAME, schedule='@daily'):\n    @task\n    def one(): pass\n    one()\nDAG_TWO = DAG('bare')\n"
    )
    answer = validator.validate(path)
    assert answer["import_errors"] == []
    assert answer["dags"] == [
        {"dag_id": "bare", "schedule": None, "task_count": 0},
        {"dag_id": "helped", "schedule": "@daily", "task_count": 1},
    ]
    assert any("careful" in warning for warning in answer["warnings"])


def test_unsupported_features_are_refused_by_name(validator: Validator) -> None:
    answer = validator.validate(REPOSITORY / "tests/corpus/refused.py")
    found = {error["line"]: error["message"] for error in answer["import_errors"]}
    assert found.keys() == REFUSED.keys()
    for line, words in REFUSED.items():
        assert words in found[line]
    assert [dag["dag_id"] for dag in answer["dags"]] == ["accepted"]


@pytest.mark.parametrize("what", UNSTORABLE)
def test_dag_that_cannot_be_stored_is_refused(validator: Validator, tmp_path: Path, what: str) -> None:
    of_dag, of_task, words = UNSTORABLE[what]
    path = tmp_path / "stored.py"
    path.write_text(STORED.replace("OF_DAG", of_dag).replace("OF_TASK", of_task))
    answer = validator.validate(path)
    [error] = answer["import_errors"]
    assert words in error["message"] and error["line"] in (6, 7), error
    assert answer["dags"] == []
    path.write_text(STORED.replace("OF_DAG", 'description="größe"').replace("OF_TASK", 'outlets=[Asset("s3://a/b")]'))
    assert [dag["dag_id"] for dag in validator.validate(path)["dags"]] == ["stored"]


def test_invalid_requests_are_refused(validator: Validator, tmp_path: Path) -> None:
    assert "not a valid request" in validator.ask("nonsense")["error"]
    assert "not a valid request" in validator.ask("[1]")["error"]
    assert "no such file" in validator.validate(tmp_path / "absent.py")["error"]
    (tmp_path / "empty.py").touch()
    assert validator.validate(tmp_path / "empty.py")["dags"] == []
