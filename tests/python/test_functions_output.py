"""What tasks print and log is in their logs in the order in which they do it, whatever it goes through."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from environment import DATABASES, Environment, deployed
from local_modal import wait_until

TASKS, ROUNDS = 20, 10
DAG = f"""
import atexit, datetime, logging, os, signal, subprocess, sys, threading
from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG, task

def dag(name):
    return DAG(name, schedule=None, start_date=datetime.datetime(2026, 1, 1))

def echo(text, stream=1):
    subprocess.run(["sh", "-c", f"echo {{text}} >&{{stream}}"], check=True)

with dag("ordered"):
    @task
    def speaks(index):
        log = logging.getLogger("own")
        for round in range({ROUNDS}):
            print(f"step {{round}} 0 printed")
            log.info("step %d 1 logged", round)
            print(f"step {{round}} 2 to stderr", file=sys.stderr)
            echo(f"step {{round}} 3 echoed")
            log.warning("step %d 4 logged", round)
            echo(f"step {{round}} 5 echoed to stderr", 2)
            thread = threading.Thread(target=print, args=[f"step {{round}} 6 of a thread"])
            thread.start()
            thread.join()
            os.write(1, f"step {{round}} 7 written\\n".encode())
            log.info("step %d 8 logged", round)
            print(f"step {{round}} 9 in ", end="", flush=True)
            print("parts")
    speaks.expand(index=list(range({TASKS})))

with dag("talkative"):
    BashOperator(task_id="bash", bash_command="for n in $(seq 50); do echo line $n; done")

    @task
    def last_words():
        atexit.register(print, "said at exit")
        print("said before")
        sys.stdout.write("unfinished")

    @task
    def long_words():
        print("x" * 300_000)
        logging.getLogger("own").info("logged %s", "y" * 300_000)
        print("a\\n\\nb")
        sys.stdout.buffer.write(b"\\xff not UTF-8\\n")
        print("end")

    @task
    def redirects(folder):
        kept, file = os.dup(1), os.open(folder + "/redirected", os.O_WRONLY | os.O_CREAT)
        os.dup2(file, 1)
        print("into the file")
        os.dup2(kept, 1)
        print("into the log")

    @task
    def forks():
        print("before the fork")
        if (child := os.fork()) == 0:
            print("said by the child")
            sys.stdout.flush()
            os._exit(0)
        os.waitpid(child, 0)
        print("after the fork")

    @task
    def dies():
        print("the last print")
        os.write(2, b"the last write\\n")
        os.kill(os.getpid(), signal.SIGKILL)

    last_words(), long_words(), redirects("{{{{ dag_run.conf['folder'] }}}}"), forks(), dies()
"""


@pytest.fixture(scope="module", params=DATABASES)
def environment(request: pytest.FixtureRequest) -> Iterator[Environment]:
    with deployed(request.param) as environment:
        environment.upload("output.py", DAG)
        for dag_id in ("ordered", "talkative"):
            conf = {"folder": str(environment.modal.root)}
            environment.command(dag_id, kind="trigger", dag_id=dag_id, run_id=dag_id, conf=conf)
        environment.call("run_tick", "test")

        def ended() -> bool:
            states = environment.query("SELECT state FROM dag_run")
            return len(states) == 2 and {state for (state,) in states} <= {"success", "failed"}

        wait_until(ended, "the end of the runs", 180)
        yield environment


def events(log: Path) -> list[str]:
    return [line["event"] for line in lines(log)]


def lines(log: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.read_text().splitlines()]


def task_log(environment: Environment, task_id: str) -> Path:
    [log] = environment.volumes(f"logs/dag_id=talkative/run_id=talkative/task_id={task_id}/attempt=1.log")
    return log


def test_prints_and_log_lines_are_in_order(environment: Environment) -> None:
    logs = environment.volumes("logs/dag_id=ordered/run_id=ordered/task_id=speaks/map_index=*/attempt=1.log")
    assert len(logs) == TASKS
    wrong = {}
    for log in logs:
        found = events(log)
        steps = [tuple(map(int, event.split()[1:3])) for event in found if event.startswith("step ")]
        first, last = found.index("step 0 0 printed"), found.index(f"step {ROUNDS - 1} 9 in parts")
        in_place = found.index("::group::Post Execute") > last and found.index("::endgroup::") < first
        if steps != [(round, step) for round in range(ROUNDS) for step in range(10)] or not in_place:
            wrong[log.parent.name] = found
    assert not wrong, f"{len(wrong)} of {TASKS} logs, such as {next(iter(wrong.values()))}"


def test_streams_have_airflow_logger_names_and_levels(environment: Environment) -> None:
    log = environment.volumes("logs/dag_id=ordered/run_id=ordered/task_id=speaks/map_index=0/attempt=1.log")[0]
    found = {line["event"]: (line["logger"], line["level"]) for line in lines(log) if "step 0" in line["event"]}
    assert found["step 0 0 printed"] == found["step 0 3 echoed"] == ("task.stdout", "info")
    assert found["step 0 2 to stderr"] == found["step 0 5 echoed to stderr"] == ("task.stderr", "error")
    assert found["step 0 4 logged"] == ("own", "warning")


def test_command_output_is_in_order(environment: Environment) -> None:
    found = events(task_log(environment, "bash"))
    printed = [f"line {number}" for number in range(1, 51)]
    assert [event for event in found if event.startswith("line ")] == printed
    assert found.index("line 50") < found.index("::group::Post Execute")


def test_output_at_exit_is_kept(environment: Environment) -> None:
    found = events(task_log(environment, "last_words"))
    assert found.index("said before") < found.index("::group::Post Execute")
    assert "".join(found[-2:]).replace("unfinished", "") == "said at exit" or "unfinishedsaid at exit" in found


def test_long_lines_and_invalid_utf8_are_kept(environment: Environment) -> None:
    found = events(task_log(environment, "long_words"))
    start = found.index("x" * 300_000)
    assert found[start + 1] == "logged " + "y" * 300_000
    assert found[start + 2 : start + 7] == ["a", "", "b", "� not UTF-8", "end"]


def test_redirected_stream_is_not_logged(environment: Environment) -> None:
    assert (environment.modal.root / "redirected").read_text() == "into the file\n"
    found = events(task_log(environment, "redirects"))
    assert "into the log" in found and "into the file" not in found


def test_prints_of_forked_processes_are_in_order(environment: Environment) -> None:
    found = events(task_log(environment, "forks"))
    said = ["before the fork", "said by the child", "after the fork"]
    assert [event for event in found if event in said] == said


def test_last_output_of_a_killed_task_precedes_its_end(environment: Environment) -> None:
    found = events(task_log(environment, "dies"))
    killed = next(i for i, event in enumerate(found) if event.startswith("Process terminated by signal"))
    assert found.index("the last print") < killed and found.index("the last write") < killed
