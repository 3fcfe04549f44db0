"""Packages that DAG files ask for: installed once, seen by the file that asks and by nothing else."""

from __future__ import annotations

import datetime
import hashlib
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

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
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("packages") / "wheels"


@pytest.fixture(scope="module")
def environment(packages: Path) -> Iterator[Environment]:
    wheels, configuration = packages, packages.with_name("uv.toml")
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


def refresh(environment: Environment, name: str) -> Any:
    """Runs a tick; returns what it counted."""
    environment.command(name, kind="refresh")
    return environment.call("run_tick", "test")


def test_each_file_gets_its_own_requirements(environment: Environment) -> None:
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


def test_failed_install_fails_the_task_with_the_reason(environment: Environment) -> None:
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


def note(environment: Environment, **changes: Any) -> dict[str, Any]:
    """The only note of an installation that has failed, or still runs, with these changes written to it."""
    found: dict[str, Any] = environment.modal.ask(f"""
    d = modal.Dict.from_name("airflow-state-test")
    notes = [(key, value) for key, value in d.items() if key.startswith("packages:") and value["status"] != "SUCCESS"]
    key, value = max(notes, key=lambda item: item[1]["at"])
    d[key] = value | {changes!r}
    answer(d[key])
    """)
    return found


def forget_others(environment: Environment) -> None:
    """Remove the files of earlier tests, whose installations would be tried again meanwhile."""
    environment.modal.ask("""
    volume = modal.Volume.from_name("airflow-dags-test")
    answer([volume.remove_file(entry.path, recursive=True) for entry in volume.listdir("dags")])
    """)
    refresh(environment, f"forget-{time.monotonic_ns()}")

    def have_ended() -> bool:
        notes = [value for key, value in environment.state().items() if key.startswith("packages:")]
        return all(note["status"] != "QUEUED" for note in notes)

    wait_until(have_ended, "installations under way", 60)
    environment.modal.ask("""
    d = modal.Dict.from_name("airflow-state-test")
    answer([d.pop(key) for key in list(d.keys()) if key.startswith("packages:")])
    """)


def import_error(environment: Environment, name: str) -> str:
    rows = environment.query("SELECT stacktrace FROM import_error WHERE filename = ?", name)
    return str(rows[0][0]) if rows else ""


def test_failed_install_is_retried_with_backoff(environment: Environment, packages: Path) -> None:
    forget_others(environment)
    source = ASKS.format("greetings==3.0") + DAG.format(dag_id="again", imports="import greetings")
    environment.upload("again.py", source)
    refresh(environment, "again")
    error = wait_until(lambda: import_error(environment, "again.py"), "the import error", 60)
    first = note(environment)
    assert "no version of greetings==3.0" in error and first["attempts"] == 1
    assert f"This is tried again at {moment(first['at'] + 60)}." in error
    # Not before its time, and then at longer and longer intervals.
    refresh(environment, "look-1")
    assert note(environment)["at"] == first["at"]
    note(environment, at=first["at"] - 61)
    refresh(environment, "look-2")
    second = wait_until(lambda: (found := note(environment))["attempts"] == 2 and found, "the second attempt", 60)
    again_at = f"This is tried again at {moment(second['at'] + 120)}."
    wait_until(lambda: again_at in import_error(environment, "again.py"), "the time of the third attempt", 60)
    # At once when the file changes, though nothing else is new; and once the package is there, all is well.
    environment.upload("again.py", source + "# changed\n")
    refresh(environment, "look-3")
    wait_until(lambda: note(environment)["attempts"] == 3, "the third attempt", 60)
    make_wheel(packages, "greetings", "3.0")
    note(environment, at=0.0)
    refresh(environment, "look-4")
    assert run(environment, "again") == ("success", ['"3.0"'])
    assert import_error(environment, "again.py") == ""


def test_files_waiting_for_packages_cause_no_parsing(environment: Environment) -> None:
    forget_others(environment)
    environment.upload("broken.py", "import dag_that_is_not_there\n")
    source = ASKS.format("greetings==4.0") + DAG.format(dag_id="waits", imports="")
    environment.upload("waits.py", source)
    refresh(environment, "waits")
    wait_until(lambda: note(environment)["status"] == "FAILED", "the failure", 60)
    refresh(environment, "look-5")
    # A change, and an installation that takes its time.
    note(environment, status="QUEUED", at=time.time() + 3600)
    environment.upload("waits.py", source + "# changed\n")
    refresh(environment, "look-6")
    for number in range(3):
        assert refresh(environment, f"waiting-{number}")["parsed"] == 0
    note(environment, status="FAILED", at=time.time())


def moment(at: float) -> str:
    return datetime.datetime.fromtimestamp(at, datetime.UTC).isoformat(" ", "seconds")


def test_declarations_are_parsed_or_refused(tmp_path: Path) -> None:
    file = tmp_path / "dag.py"
    cases: dict[str, str | tuple[str, ...]] = {
        "import os\n": (),
        ASKS.format("b") + ASKS.format("c"): "more than one",
        "# /// script\n# dependencies = [\n# ///\n": "not valid",
        "# /// script\n# dependencies = ['b']\nimport os\n": "at line 1 of dag.py has no end",
        "import os\n# /// script\n# dependencies = ['b']\nimport os\n# ///\n": "at line 2 of dag.py has no end",
        "# /// script\n" + ASKS.format("b"): "not valid",
        '# /// script\n# requires-python = "<3"\n# ///\n': "is '<3', and DAGs are run by Python 3",
        "# /// script\n# requires-python = '3.x'\n# ///\n": "not a version specifier: '3.x'",
        "# /// script\n# requires-python = 3\n# ///\n": "not a version specifier: 3",
        '# /// script\n# dependencies = "one"\n# ///\n': "not a list",
        ASKS.format("b==1; python_version > '3'") + "x = 1\n": ("script.txt\nb==1; python_version > '3'\n",),
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
    beside = tmp_path / "requirements.txt"
    beside.write_text("a\n\n# no\nb\n")
    assert declared(file, tmp_path) == ()
    file.write_text("import os\n")
    assert declared(file, tmp_path) == ("requirements.txt\na\n\n# no\nb\n",)
    beside.write_text("\n# nothing yet\n")
    assert declared(file, tmp_path) == ()


def test_included_requirements_files_are_read(tmp_path: Path) -> None:
    file, beside = tmp_path / "team/dag.py", tmp_path / "team/requirements.txt"
    file.parent.mkdir()
    file.write_text("import os\n")
    (tmp_path / "common.txt").write_text("b\n-c team/limits.txt # ours\n-r https://example.com/more.txt\n")
    (tmp_path / "team/limits.txt").write_bytes(b"\xef\xbb\xbfb<2\r\n--requirement=requirements.txt\r\n")
    beside.write_text("a \\\n  --hash=sha256:00\n-r../common.txt\n")
    assert declared(file, tmp_path) == (
        "team/requirements.txt\n" + beside.read_text(),
        "common.txt\n" + (tmp_path / "common.txt").read_text(),
        "team/limits.txt\nb<2\n--requirement=requirements.txt\n",
    )
    refused = {
        "-r ../../outside.txt": "includes ../../outside.txt, which is not in the DAG folder",
        "-c /etc/hostname": "includes /etc/hostname, which is not in the DAG folder",
        "-r none.txt": "team/none.txt cannot be read: No such file",
        "-r .": "team cannot be read: it is a folder, not a regular file",
        "-r pipe.txt": "pipe.txt cannot be read: it is a named pipe",
        "-r latin.txt": "latin.txt is not text in UTF-8",
    }
    os.mkfifo(tmp_path / "team/pipe.txt")
    (tmp_path / "team/latin.txt").write_bytes(b"# \xe9\n")
    for text, words in refused.items():
        beside.write_text(text + "\n")
        with pytest.raises(RequirementsError, match=re.escape(words)):
            declared(file, tmp_path)


def test_uv_installs_from_the_declared_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheels = {}
    for name, version in (("greetings", "1.0"), ("greetings", "2.0"), ("farewells", "1.0")):
        wheel = make_wheel(tmp_path / "wheels", name, version)
        wheels[name, version] = hashlib.sha256(wheel.read_bytes()).hexdigest()
    (tmp_path / "uv.toml").write_text(f"no-index = true\nfind-links = [{str(tmp_path / 'wheels')!r}]\n")
    monkeypatch.setenv("UV_CONFIG_FILE", str(tmp_path / "uv.toml"))
    file, beside = tmp_path / "dags/dag.py", tmp_path / "dags/requirements.txt"
    file.parent.mkdir()
    file.touch()
    (tmp_path / "dags/more.txt").write_text("farewells; python_version > '3'\nnothing; python_version < '3'\n")
    (tmp_path / "dags/limits.txt").write_text("greetings<2\n")

    def installed(text: str) -> set[str]:
        beside.write_text(text)
        folder = Environments(tmp_path / "venvs").provide(declared(file, tmp_path / "dags"))
        return {path.name.removesuffix(".dist-info") for path in folder.glob("*.dist-info")}

    assert installed("-r more.txt\n-c limits.txt\ngreetings\n") == {"greetings-1.0", "farewells-1.0"}
    # What is included counts as well: with another content it is another set of packages.
    (tmp_path / "dags/limits.txt").write_text("greetings>=2\n")
    assert installed("-r more.txt\n-c limits.txt\ngreetings\n") == {"greetings-2.0", "farewells-1.0"}
    assert installed(f"--find-links {tmp_path / 'wheels'}\ngreetings==1.0\n") == {"greetings-1.0"}
    hashed = "greetings==1.0 \\\n    --hash=sha256:{}\n"
    assert installed(hashed.format(wheels["greetings", "1.0"])) == {"greetings-1.0"}
    with pytest.raises(RequirementsError, match=r"[Hh]ash"):
        installed(hashed.format(wheels["greetings", "2.0"]))
    # Errors name files as the folder has them.
    with pytest.raises(RequirementsError) as refused:
        installed("# größe\ngreetings\nnot a line !!\n")
    assert "in line 3 of requirements.txt" in str(refused.value) and str(tmp_path) not in str(refused.value)
    (tmp_path / "dags/more.txt").write_text("farewells\n\nnot a line\n")
    with pytest.raises(RequirementsError, match=r"line 3 of more\.txt"):
        installed("greetings\n-r more.txt\n")
    # A pinned file has packages that Airflow has anyhow, which are checked as well.
    with pytest.raises(RequirementsError, match=r"[Hh]ash"):
        installed(hashed.format(wheels["greetings", "1.0"]) + "farewells==1.0\n")


def test_unused_packages_are_deleted_after_a_while(tmp_path: Path) -> None:
    environments = Environments(tmp_path)
    for name in ("used", "new", "old"):
        (tmp_path / name).mkdir()
    environments.collect({"used"})
    mark = tmp_path / "old" / ".unused"
    os.utime(mark, (0, 0))
    environments.collect({"used"})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new", "used"]
    environments.collect({"used", "new"})
    assert not (tmp_path / "new" / ".unused").exists()
