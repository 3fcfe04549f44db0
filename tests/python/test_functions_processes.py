"""A task that is ended leaves no process behind, and its log says why it was ended."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from environment import DATABASES, Environment, deployed
from local_modal import wait_until

# Each way for a process to get out of sight: another group, another session, no parent, no ear for SIGTERM.
DAG = """
import datetime, os, signal, subprocess, sys, time
from pathlib import Path
from airflow.sdk import DAG, get_current_context, task

STUBBORN = "trap '' TERM; while :; do sleep 1; done"
DAEMON = '''
import os, signal, sys, time
if os.fork(): os._exit(0)
os.setsid()
if os.fork(): os._exit(0)
signal.signal(signal.SIGTERM, signal.SIG_IGN)
open(sys.argv[1] + f"/{os.getpid()}", "w").close()
time.sleep(600)
'''

def noted(folder, pid):
    (folder / str(pid)).touch()

def populate():
    folder = Path(get_current_context()["dag_run"].conf["folder"])
    folder.mkdir(exist_ok=True)
    noted(folder, os.getpid())
    (folder / "container").write_text(str(os.getppid()))
    quiet = dict(stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    noted(folder, subprocess.Popen(["sleep", "600"], **quiet).pid)
    noted(folder, subprocess.Popen(["sleep", "600"], start_new_session=True, **quiet).pid)
    noted(folder, subprocess.Popen(["sh", "-c", STUBBORN], start_new_session=True, **quiet).pid)
    subprocess.run([sys.executable, "-c", DAEMON, str(folder)], check=True, **quiet)
    if os.fork() == 0:
        # With all that the task has open.
        os.setsid()
        if os.fork():
            os._exit(0)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        noted(folder, os.getpid())
        time.sleep(600)
    while len(list(folder.glob("[0-9]*"))) < 6:
        time.sleep(0.01)
    (folder / "ready").touch()

def dag(name):
    return DAG(name, schedule=None, start_date=datetime.datetime(2026, 1, 1))

with dag("stays"):
    @task
    def stays():
        if get_current_context()["ti"].try_number == 1:
            populate()
            time.sleep(600)
    stays()

with dag("times_out"):
    @task(execution_timeout=datetime.timedelta(seconds=3))
    def stays():
        populate()
        time.sleep(600)
    stays()

with dag("fails"):
    @task
    def stays():
        populate()
        raise ValueError("fails")
    stays()

with dag("dies"):
    @task
    def stays():
        populate()
        os.kill(os.getpid(), signal.SIGKILL)
    stays()

with dag("leaves"):
    @task
    def stays():
        folder = Path(get_current_context()["dag_run"].conf["folder"])
        folder.mkdir()
        (folder / "container").write_text(str(os.getppid()))
        left = subprocess.Popen(["sleep", "600"], start_new_session=True, stdout=subprocess.DEVNULL,
                                stderr=subprocess.DEVNULL)
        noted(folder, left.pid)
    stays()
"""


@pytest.fixture(scope="module", params=DATABASES)
def environment(request: pytest.FixtureRequest) -> Iterator[Environment]:
    with deployed(request.param, executor={"parallelism": 1, "task_timeout": 60}) as environment:
        environment.upload("ended.py", DAG)
        yield environment


def begin(environment: Environment, dag_id: str, run_id: str) -> Path:
    """Triggers a run; returns the folder in which its task notes the ids of its processes."""
    folder = environment.modal.root / run_id
    environment.command(run_id, kind="trigger", dag_id=dag_id, run_id=run_id, conf={"folder": str(folder)})
    environment.call("run_tick", "test")
    return folder


def command(environment: Environment, run_id: str, **command: Any) -> None:
    environment.command(f"stop-{run_id}", **command, run_id=run_id)
    environment.call("run_tick", "test")
    answer = wait_until(lambda: environment.state().get(f"reply:stop-{run_id}"), "the reply")
    assert answer["ok"], answer


def wait_for_run(environment: Environment, run_id: str, state: str) -> None:
    def reached() -> bool:
        return environment.query("SELECT state FROM dag_run WHERE run_id = ?", run_id) == [(state,)]

    wait_until(reached, f"run {run_id} to be {state}", 90)


def running(folder: Path) -> list[str]:
    """The noted processes that have not ended; those that nobody has waited for yet have no command line."""
    pids = [path.name for path in folder.glob("[0-9]*")]
    return [pid for pid in pids if (line := Path("/proc", pid, "cmdline")).exists() and line.read_bytes()]


def log_of(environment: Environment, dag_id: str, run_id: str) -> str:
    [log] = environment.volumes(f"logs/dag_id={dag_id}/run_id={run_id}/task_id=stays/attempt=1.log")
    return log.read_text()


STOPS: dict[str, tuple[dict[str, Any], str, str]] = {
    "mark-failed": (
        {"kind": "mark_tasks", "dag_id": "stays", "task_id": "stays", "new_state": "failed"},
        "failed",
        "failed",
    ),
    "mark-success": (
        {"kind": "mark_tasks", "dag_id": "stays", "task_id": "stays", "new_state": "success"},
        "success",
        "success",
    ),
    "mark-run": ({"kind": "mark_run", "dag_id": "stays", "state": "failed"}, "failed", "it was marked failed"),
    "clear": ({"kind": "clear_tasks", "dag_id": "stays", "task_id": "stays"}, "success", "it was cleared"),
}


@pytest.mark.parametrize("how", STOPS)
def test_marked_or_cleared_task_leaves_no_processes(environment: Environment, how: str) -> None:
    stop, state, words = STOPS[how]
    folder = begin(environment, "stays", how)
    wait_until((folder / "ready").exists, "the task to have begun", 60)
    assert len(running(folder)) == 6
    command(environment, how, **stop)
    wait_for_run(environment, how, state)
    wait_until(lambda: not running(folder), "the end of its processes")
    key = f"task:stays:stays:{how}"
    wait_until(lambda: environment.state()[key]["status"] in ("SUCCESS", "FAILED"), "the end of its call")
    log = log_of(environment, "stays", how)
    # With PostgreSQL, the heartbeat of a task may learn of it first.
    assert words in log and ("The task was stopped: it was" in log or "shouldn't be running anymore" in log), log


@pytest.mark.parametrize(
    ("dag_id", "words"),
    [
        ("times_out", "Timed out after 3 s, the task's execution_timeout"),
        ("fails", "ValueError"),
        ("dies", "Process terminated by signal"),
    ],
)
def test_failed_task_leaves_no_processes(environment: Environment, dag_id: str, words: str) -> None:
    folder = begin(environment, dag_id, dag_id)
    wait_for_run(environment, dag_id, "failed")
    assert (folder / "ready").exists() and not running(folder)
    assert words in log_of(environment, dag_id, dag_id)


def test_background_processes_run_until_the_next_task(environment: Environment) -> None:
    first = begin(environment, "leaves", "first")
    wait_for_run(environment, "first", "success")
    assert len(running(first)) == 1
    second = begin(environment, "leaves", "second")
    wait_for_run(environment, "second", "success")
    assert (first / "container").read_text() == (second / "container").read_text()
    assert not running(first) and len(running(second)) == 1


def test_killed_container_is_named_in_the_task_log(environment: Environment) -> None:
    folder = begin(environment, "stays", "lost")
    wait_until((folder / "ready").exists, "the task to have begun", 60)
    os.kill(int((folder / "container").read_text()), signal.SIGKILL)
    wait_for_run(environment, "lost", "failed")
    wait_until(lambda: not running(folder), "the end of its processes")
    assert "the container was lost while the task ran" in log_of(environment, "stays", "lost")


def test_lost_call_is_named_in_the_task_log(environment: Environment) -> None:
    """The worker can say nothing any more, so the scheduler does."""
    folder = begin(environment, "stays", "gone")
    wait_until((folder / "ready").exists, "the task to have begun", 60)
    key = "task:stays:stays:gone"
    gone = environment.state()[key] | {"call_id": "fc-gone", "queued_at": 0.0, "started_at": 0.0}
    environment.modal.sdk(f"""
    state = modal.Dict.from_name("airflow-state-test")
    state[{key!r}] = {gone!r}
    state.pop("heartbeat:{gone["ti_id"]}", None)
    state.put("wake", {{"reason": "test", "at": 0.0}}, skip_if_exists=True)
    """)
    environment.call("run_tick", "test")
    wait_for_run(environment, "gone", "failed")
    assert "The task's call ended without a result" in log_of(environment, "stays", "gone")
    os.kill(int((folder / "container").read_text()), signal.SIGKILL)
