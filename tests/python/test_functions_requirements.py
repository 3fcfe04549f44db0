"""Packages that DAG files ask for: installed once, seen by the file that asks and by nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from airflow_serverless.dags.requirements import Environments, RequirementsError, declared
from environment import Environment, deployed
from local_modal import wait_until
from wheels import make_wheel

DAG = """
import datetime
from airflow.sdk import DAG, task
{imports}

with DAG("{dag_id}", schedule=None, start_date=datetime.datetime(2026, 1, 1)):
    @task
    def version():
        import subprocess, sys
        import greetings
        code = "import greetings; print(greetings.VERSION)"
        again = subprocess.run([sys.executable, "-c", code], capture_output=True)
        assert again.stdout.decode().strip() == greetings.VERSION
        return greetings.VERSION
    version()
"""
ASKS = '# /// script\n# requires-python = ">=3.11"\n# dependencies = ["{}"]\n# ///\n'


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Environment]:
    folder = tmp_path_factory.mktemp("packages")
    wheels, configuration = folder / "wheels", folder / "uv.toml"
    for version in ("1.0", "2.0"):
        make_wheel(wheels, "greetings", version)
    configuration.write_text(f"no-index = true\nfind-links = [{str(wheels)!r}]\n")
    with deployed("sqlite", UV_CONFIG_FILE=str(configuration)) as environment:
        yield environment


def run(environment: Environment, dag_id: str) -> tuple[str, list[str]]:
    """State of a triggered run, and the results of its tasks."""
    wait_until(lambda: environment.query("SELECT 1 FROM dag WHERE dag_id = ?", dag_id), f"the DAG {dag_id}", 60)
    environment.command(dag_id, kind="trigger", dag_id=dag_id, run_id=dag_id)
    environment.call("run_tick", "test")

    def ended() -> str | None:
        states = environment.query("SELECT state FROM dag_run WHERE run_id = ?", dag_id)
        return states[0][0] if states and states[0][0] in ("success", "failed") else None

    state = wait_until(ended, f"the end of {dag_id}", 60)
    return state, [path.read_text() for path in environment.volumes(f"xcom/{dag_id}/{dag_id}/version/return_value")]


def refresh(environment: Environment, name: str) -> None:
    environment.command(name, kind="refresh")
    environment.call("run_tick", "test")


def test_each_file_has_what_it_asks_for(environment: Environment) -> None:
    top = "import greetings"
    environment.upload("one.py", ASKS.format("greetings==1.0") + DAG.format(dag_id="one", imports=top))
    environment.upload("two.py", ASKS.format("greetings>=1.5") + DAG.format(dag_id="two", imports=""))
    environment.upload("folder/three.py", DAG.format(dag_id="three", imports=top))
    environment.upload("folder/requirements.txt", "# The newest.\ngreetings\n")
    environment.upload("none.py", DAG.format(dag_id="none", imports=""))
    refresh(environment, "first")
    assert run(environment, "one") == ("success", ['"1.0"'])
    assert run(environment, "two") == ("success", ['"2.0"'])
    assert run(environment, "three") == ("success", ['"2.0"'])
    assert run(environment, "none") == ("failed", [])
    assert len(environment.volumes("venvs/*/greetings")) == 3, "one folder for each set of requirements"
    assert not environment.volumes("venvs/.installing*")


def test_a_failing_install_fails_the_task_with_the_reason(environment: Environment) -> None:
    environment.upload("late.py", ASKS.format("greetings==9.9") + DAG.format(dag_id="late", imports=""))
    refresh(environment, "second")
    assert run(environment, "late") == ("failed", [])
    [log] = environment.volumes("logs/dag_id=late/run_id=late/task_id=version/attempt=1.log")
    assert "greetings==9.9" in log.read_text() and "no version of greetings" in log.read_text()

    environment.upload(
        "early.py", ASKS.format("greetings==8.8") + DAG.format(dag_id="early", imports="import greetings")
    )
    refresh(environment, "third")
    errors = "SELECT stacktrace FROM import_error WHERE filename = 'early.py'"
    [(error,)] = wait_until(lambda: environment.query(errors), "the import error", 60)
    assert "no version of greetings" in error


def test_declarations(tmp_path: Path) -> None:
    file = tmp_path / "dag.py"
    cases = {
        "import os\n": (),
        ASKS.format("b") + ASKS.format("c"): "more than one",
        "# /// script\n# dependencies = [\n# ///\n": "not valid",
        '# /// script\n# dependencies = "one"\n# ///\n': "not a list",
        ASKS.format("b==1; python_version > '3'") + "x = 1\n": ("b==1; python_version > '3'",),
        "# /// script\n# ///\n": (),
    }
    for text, expected in cases.items():
        file.write_text(text)
        if isinstance(expected, tuple):
            assert declared(file, tmp_path) == expected
        else:
            with pytest.raises(RequirementsError, match=expected):
                declared(file, tmp_path)
    # A block speaks for its file, also one that asks for nothing.
    (tmp_path / "requirements.txt").write_text("a\n\n# no\nb\n")
    assert declared(file, tmp_path) == ()
    file.write_text("import os\n")
    assert declared(file, tmp_path) == ("a", "b")


def test_what_nothing_asks_for_goes_after_a_while(tmp_path: Path) -> None:
    environments = Environments(tmp_path)
    for name in ("used", "new", "old"):
        (tmp_path / name).mkdir()
    environments.collect({"used"})
    mark = tmp_path / "old" / ".unused"
    import os

    os.utime(mark, (0, 0))
    environments.collect({"used"})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new", "used"]
    environments.collect({"used", "new"})
    assert not (tmp_path / "new" / ".unused").exists()
