"""Processes of tasks share no state that should differ, though they are forked from one that has run others."""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from environment import Environment, deployed
from local_modal import wait_until

END = ("success", "failed")
DAG = """
import asyncio, datetime, json, multiprocessing, os, random, secrets, shutil, signal, ssl, tempfile, threading, time
import uuid
from multiprocessing import resource_tracker, util
from pathlib import Path
from airflow.sdk import DAG, task

async def sleeps():
    await asyncio.sleep(0)
    return "slept"

def look():
    os.umask(mask := os.umask(0))
    own = {signal.SIGTERM, signal.SIGALRM, signal.SIGSEGV}
    found = {
        "container": os.getppid(),
        "differs": {
            "random": random.random(),
            "secrets": secrets.token_hex(),
            "ssl": ssl.RAND_bytes(16).hex(),
            "uuid1": str(uuid.uuid1()),
            "uuid4": str(uuid.uuid4()),
            "authkey": multiprocessing.current_process().authkey.hex(),
            "temporary": next(tempfile._get_candidate_names()),
            "folder of multiprocessing": util.get_temp_dir(),
        },
        "tempdir": tempfile.gettempdir(),
        "own folder": os.environ["TMPDIR"],
        "python": shutil.which("python"),
        "state": {
            "tracker": resource_tracker._resource_tracker._pid,
            "threads": len(threading.enumerate()),
            "handlers": [n for n in signal.valid_signals() if callable(signal.getsignal(n)) and n not in own],
            "wakeup": signal.set_wakeup_fd(-1),
            "blocked": list(signal.pthread_sigmask(signal.SIG_BLOCK, [])),
            "loop": asyncio.get_event_loop_policy()._local._loop is not None,
            "cwd": os.getcwd(),
            "umask": mask,
            "left": os.environ.get("LEFT"),
        },
        "slept": asyncio.get_event_loop().run_until_complete(sleeps()),
    }
    # None of this may be seen by another task.
    random.seed(1), os.umask(0o077), os.chdir("/"), os.environ.update(LEFT="behind")
    tempfile.tempdir = "/nowhere"
    signal.signal(signal.SIGUSR1, lambda *_: None)
    return found

def dag(name):
    return DAG(name, schedule=None, start_date=datetime.datetime(2026, 1, 1))

with dag("state"):
    @task
    def looks(index, folder):
        folder, found = Path(folder), look()
        (folder / f"{index}.part").write_text(json.dumps(found))
        (folder / f"{index}.part").rename(folder / f"{index}.json")
        until = time.monotonic() + 60
        # Side by side, in two containers.
        while len(list(folder.glob("*.json"))) < 2 and time.monotonic() < until:
            time.sleep(0.01)
    looks.partial(folder="{{ dag_run.conf['folder'] }}").expand(index=[0, 1])

with dag("parallel"):
    @task
    def counts():
        with multiprocessing.get_context("fork").Pool(2) as forked, multiprocessing.get_context("spawn").Pool(1) as new:
            return sum(forked.map(abs, [-1, 2])) + sum(new.map(abs, [-3]))

    @task.bash
    def environment():
        # What `task.virtualenv` runs, but for the packages that it fetches.
        return "cd $TMPDIR && uv venv --python python own && own/bin/python -c 'import sys; print(sys.version[:4])'"

    counts(), environment()
"""


@pytest.fixture(scope="module")
def environment() -> Iterator[Environment]:
    with pytest.MonkeyPatch.context() as patch:
        # Where there is no `python`, as on many systems.
        folder = Path(tempfile.mkdtemp(prefix="bin-"))
        for program in (one for place in os.environ["PATH"].split(":") for one in Path(place).glob("*")):
            if not program.name.startswith("python") and not (folder / program.name).is_symlink():
                (folder / program.name).symlink_to(program)
        patch.setenv("PATH", str(folder))
        with deployed("sqlite") as environment:
            environment.upload("state.py", DAG)
            yield environment
        shutil.rmtree(folder)


def run(environment: Environment, dag_id: str, run_id: str, **conf: str) -> None:
    environment.command(run_id, kind="trigger", dag_id=dag_id, run_id=run_id, conf=conf)
    environment.call("run_tick", "test")

    def ended() -> list[tuple[str]]:
        return [row for row in environment.query("SELECT state FROM dag_run WHERE run_id = ?", run_id) if row[0] in END]

    state = wait_until(ended, f"the end of {run_id}", 180)
    logs = [log.read_text() for log in environment.volumes(f"logs/dag_id={dag_id}/**/*.log")]
    assert state == [("success",)], "\n".join(logs)


@pytest.fixture(scope="module")
def looks(environment: Environment) -> list[dict[str, Any]]:
    """What four tasks see of themselves: twice two at once."""
    found = []
    for run_id in ("one", "two"):
        folder = environment.modal.root / run_id
        folder.mkdir()
        run(environment, "state", run_id, folder=str(folder))
        found += [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
    assert len(found) == 4 and len({look["container"] for look in found}) == 2, "each container was to run two tasks"
    return found


def test_random_values_differ_between_tasks(looks: list[dict[str, Any]]) -> None:
    drawn = [look["differs"] for look in looks]
    same = {name for name in drawn[0] if len({one[name] for one in drawn}) < len(drawn)}
    assert not same


def test_temporary_files_are_in_the_containers_own_folder(looks: list[dict[str, Any]]) -> None:
    for look in looks:
        assert look["tempdir"] == look["own folder"]
        assert Path(look["differs"]["folder of multiprocessing"]).parent == Path(look["own folder"])


def test_task_starts_without_inherited_process_state(looks: list[dict[str, Any]]) -> None:
    fresh = {"tracker": None, "threads": 1, "handlers": [], "wakeup": -1, "blocked": [], "loop": False, "left": None}
    for look in looks:
        assert look["state"] == {**fresh, "cwd": look["state"]["cwd"], "umask": looks[0]["state"]["umask"]}
        assert look["state"]["cwd"] != "/" and look["slept"] == "slept"


def test_tasks_find_python_and_start_processes(environment: Environment, looks: list[dict[str, Any]]) -> None:
    assert all(look["python"] and Path(look["python"]).name == "python" for look in looks)
    run(environment, "parallel", "parallel")
    [counted] = environment.volumes("xcom/parallel/parallel/counts/return_value")
    assert json.loads(counted.read_text()) == 6
    [version] = environment.volumes("xcom/parallel/parallel/environment/return_value")
    assert json.loads(version.read_text()) == sys.version[:4]
