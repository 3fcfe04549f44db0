"""What the scheduler cannot do is seen from outside; a damaged SQLite database is replaced by a backup."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from environment import DATABASES, Environment, deployed
from local_modal import wait_until

DAG = """
from airflow.sdk import DAG, task

with DAG("waits", schedule=None):
    @task
    def waits(gate=None):
        import os, time
        from airflow.sdk import get_current_context
        gate = get_current_context()["dag_run"].conf.get("gate")
        while gate and not os.path.exists(gate):
            time.sleep(0.1)
    waits()
"""


@pytest.fixture(scope="module")
def environment() -> Iterator[Environment]:
    with deployed("sqlite") as environment:
        environment.upload("waits.py", DAG)
        run(environment, "first")
        yield environment


def trigger(environment: Environment, run_id: str, **conf: str) -> None:
    environment.command(run_id, kind="trigger", dag_id="waits", run_id=run_id, conf=conf)
    environment.call("run_tick", "test")


def run(environment: Environment, run_id: str) -> None:
    trigger(environment, run_id)
    wait_until(lambda: state_of(environment, run_id) == "success", f"the end of {run_id}", 60)


def state_of(environment: Environment, run_id: str) -> str | None:
    rows = environment.query("SELECT state FROM dag_run WHERE run_id = ?", run_id)
    return rows[0][0] if rows else None


def health(environment: Environment) -> dict[str, Any]:
    return environment.state()["health"]


def failing_tick(environment: Environment, reason: str) -> str:
    """The message that a tick leaves when it fails for this reason."""

    def failure() -> Any:
        environment.modal.sdk("""
        modal.Dict.from_name("airflow-state-test").put("wake", {"reason": "test", "at": 0.0}, skip_if_exists=True)
        """)
        try:
            environment.call("run_tick", "test")
        except AssertionError:
            found = health(environment)["failure"]
            return found["message"] if found["reason"] == reason else None
        return None

    return str(wait_until(failure, f"a tick that fails: {reason}", 60))


def empty(content: bytes) -> bytes:
    return b""


def cut(content: bytes) -> bytes:
    return content[:-4096]


def without_header(content: bytes) -> bytes:
    return b"SQLite format 2\0" + content[16:]


def scrambled(content: bytes) -> bytes:
    """All pages but the first are something else."""
    return content[:4096] + b"\xff" * (len(content) - 4096)


@pytest.mark.parametrize(
    ("damage", "words"),
    [(empty, "it is empty"), (cut, "bytes"), (without_header, "not a SQLite database"), (scrambled, "malformed")],
)
def test_damaged_database_is_reported(environment: Environment, damage: Callable[[bytes], bytes], words: str) -> None:
    at_rest(environment)
    [published] = environment.volumes("data/airflow.db")
    content = published.read_bytes()
    write(published, damage(content))
    failure = failing_tick(environment, "database_damaged")
    assert words in failure
    assert "the newest backup is" in failure or damage is scrambled
    write(published, content)
    run(environment, f"after-{damage.__name__}")
    assert health(environment)["failure"] is None


def at_rest(environment: Environment) -> None:
    """No tick is under way, which would write its own database."""

    def rests() -> bool:
        state = environment.state()
        latest = state[f"lock:scheduler:{state['lock:scheduler']['fence']}"]
        return latest["expires_at"] == 0.0 and "wake" not in state

    # With PostgreSQL there is no file that it could replace.
    if environment.connection_string is None:
        wait_until(rests, "the end of the tick", 60)


def write(path: Path, content: bytes) -> None:
    partial = path.with_suffix(".partial")
    partial.write_bytes(content)
    partial.replace(path)


def test_missing_database_is_reported(environment: Environment) -> None:
    at_rest(environment)
    [published] = environment.volumes("data/airflow.db")
    content = published.read_bytes()
    published.unlink()
    failing_tick(environment, "database_missing")
    write(published, content)
    run(environment, "after-it-was-missing")
    assert health(environment)["failure"] is None


def test_damaged_database_is_replaced_by_a_backup(environment: Environment) -> None:
    gate = environment.modal.root / "gate"
    run(environment, "late")
    trigger(environment, "interrupted", gate=str(gate))
    wait_until(lambda: state_of(environment, "interrupted") == "running", "the run", 60)
    at_rest(environment)
    [backup] = environment.volumes("data/backups/*.db")
    [published] = environment.volumes("data/airflow.db")
    write(published, b"damaged")
    environment.command("back-none", kind="roll_back", backup="20200101T000000Z-1.db")
    failing_tick(environment, "database_damaged")
    environment.command("back", kind="roll_back", backup=backup.name)
    environment.state()

    def replied() -> Any:
        try:
            environment.call("run_tick", "test")
        except AssertionError:
            return None
        return environment.state().get("reply:back")

    assert wait_until(replied, "the reply", 60)["result"] == {"backup": backup.name}
    assert state_of(environment, "late") is None
    assert state_of(environment, "interrupted") is None
    assert [path.read_bytes() for path in environment.volumes("data/backups/*.damaged.db")] == [b"damaged"]
    run(environment, "after-the-roll-back")
    assert health(environment)["failure"] is None
    # The other one is refused now, and the same one once more is not a second roll-back.
    assert environment.state()["reply:back-none"]["reason"] == "not_found"
    environment.command("back", kind="roll_back", backup=backup.name)
    run(environment, "after-it-was-repeated")
    assert state_of(environment, "after-the-roll-back") == "success"
    assert not gate.exists()


def test_missing_database_without_a_backup_is_reported() -> None:
    with deployed("sqlite") as environment:
        environment.upload("waits.py", DAG)
        [published] = environment.volumes("data/airflow.db")
        published.unlink()
        environment.command("look", kind="refresh")
        assert "there is no backup" in failing_tick(environment, "database_missing")


def test_lost_database_is_not_initialized_again() -> None:
    with deployed("sqlite") as environment:
        environment.upload("waits.py", DAG)
        run(environment, "kept")
        at_rest(environment)
        [backup] = environment.volumes("data/backups/*.db")
        [published] = environment.volumes("data/airflow.db")
        published.unlink()
        refused = environment.modal.sdk("""
        try: modal.Function.from_name("airflow-serverless-test", "initialize_database").remote()
        except Exception as error: answer(str(error))
        """)
        assert "is missing on the Volume" in refused and backup.name in refused
        assert environment.volumes("data/airflow.db") == []
        environment.command("back", kind="roll_back", backup=backup.name)
        wait_until(lambda: environment.call("run_tick", "test") and environment.state().get("reply:back"), "it", 60)
        assert not environment.call("initialize_database")["created"]


def test_roll_back_can_be_undone(environment: Environment) -> None:
    run(environment, "before-the-roll-back")
    at_rest(environment)
    first = environment.volumes("data/backups/*Z-*.db")[0].name
    for number, backup in enumerate((first, None)):
        name = backup or environment.volumes("data/backups/*.replaced.db")[-1].name
        environment.command(f"undo-{number}", kind="roll_back", backup=name)
        key = f"reply:undo-{number}"
        wait_until(lambda: environment.call("run_tick", "test") and environment.state().get(key), "the reply", 60)  # noqa: B023
        assert (state_of(environment, "before-the-roll-back") is None) == (number == 0)
        at_rest(environment)


DOWNGRADE = """
from airflow.utils import db
heads = list(db._REVISION_HEADS_MAP.values())
db.downgrade(to_revision=heads[-2])
print(heads[-2])
"""


def test_database_is_backed_up_before_a_migration() -> None:
    with deployed("sqlite") as environment:
        environment.upload("waits.py", DAG)
        run(environment, "before-the-migration")
        at_rest(environment)
        [published] = environment.volumes("data/airflow.db")
        older = environment.modal.root / "older.db"
        shutil.copyfile(published, older)
        variables = {
            "PATH": os.environ["PATH"],
            "AIRFLOW_HOME": str(environment.modal.root / "airflow"),
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{older}",
        }
        done = subprocess.run(
            [sys.executable, "-c", DOWNGRADE], env=variables, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        revision = done.stdout.split()[-1]
        with contextlib.closing(sqlite3.connect(older)) as database:
            database.execute("UPDATE airflow_serverless_version SET generation = generation + 1")
            database.commit()
        older.replace(published)
        assert environment.volumes("data/backups/*.replaced.db") == []
        assert environment.call("initialize_database")["migrated"]
        run(environment, "after-the-migration")
        [kept] = environment.volumes("data/backups/*.replaced.db")
        with contextlib.closing(sqlite3.connect(kept)) as database:
            assert database.execute("SELECT version_num FROM alembic_version").fetchone() == (revision,)
            assert database.execute("SELECT run_id FROM dag_run").fetchall()[-1] == ("before-the-migration",)
        # What needs no migration makes no copy.
        assert not environment.call("initialize_database")["migrated"]
        assert environment.volumes("data/backups/*.replaced.db") == [kept]


@pytest.mark.parametrize("database", DATABASES)
def test_newer_database_is_refused(database: str) -> None:
    with deployed(database) as environment:
        environment.upload("waits.py", DAG)
        run(environment, "first")
        at_rest(environment)
        [(revision,)] = environment.query("SELECT version_num FROM alembic_version")
        environment.execute("UPDATE alembic_version SET version_num = 'ffffffffffff'")
        if database == "sqlite":
            environment.execute("UPDATE airflow_serverless_version SET generation = generation + 1")
        failure = failing_tick(environment, "database_newer")
        assert "ffffffffffff" in failure
        environment.execute(f"UPDATE alembic_version SET version_num = '{revision}'")
        if database == "sqlite":
            environment.execute("UPDATE airflow_serverless_version SET generation = generation + 1")
        run(environment, "second")
        assert health(environment)["failure"] is None
        if database == "postgres":
            name = environment.query("SELECT current_database()")[0][0]
            environment.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
            others = "FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
            environment.execute(f"SELECT pg_terminate_backend(pid) {others}")
            failing_tick(environment, "database_read_only")
            environment.execute(f"SET TRANSACTION READ WRITE; ALTER DATABASE {name} RESET ALL")
            run(environment, "third")


def test_quarantined_files_are_reported(environment: Environment) -> None:
    [dags] = environment.volumes("dags")
    (dags / "asset.py").write_text(
        "from airflow.sdk import DAG, Asset, task\n"
        "with DAG('asset', schedule=None):\n"
        "    @task(outlets=[Asset('corpus://größe/1')])\n"
        "    def nothing(): ...\n"
        "    nothing()\n"
    )
    run(environment, "beside-a-quarantined-file")
    found = health(environment)
    assert (found["failure"], found["quarantined_count"]) == (None, 1)
    assert [(one["kind"], one["name"]) for one in found["quarantined"]] == [("file", "asset.py")]
    (dags / "asset.py").unlink()
    run(environment, "after-it-is-gone")
    assert health(environment)["quarantined"] == []


def test_errors_are_classified_by_reason(tmp_path: Path) -> None:
    from sqlalchemy import NullPool, create_engine, text
    from sqlalchemy.exc import DBAPIError

    from airflow_serverless.scheduler.health import explain

    path = tmp_path / "some.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE some (content TEXT)")

    def error(
        before: str, statement: str = "INSERT INTO some VALUES (zeroblob(100000))", mode: str = "rw"
    ) -> Exception:
        uri = f"{path.as_uri()}?mode={mode}"
        engine = create_engine(
            "sqlite://", creator=lambda: sqlite3.connect(uri, uri=True, timeout=0), poolclass=NullPool
        )
        with engine.connect() as connection, pytest.raises(DBAPIError) as raised:
            connection.exec_driver_sql(before)
            connection.execute(text(statement))
        return raised.value

    assert explain(error("PRAGMA max_page_count = 2"))[0] == "disk_full"
    assert explain(error("SELECT 1", mode="ro"))[0] == "database_read_only"
    with sqlite3.connect(path) as other:
        other.execute("BEGIN EXCLUSIVE")
        assert explain(error("SELECT 1", "SELECT 1 FROM some"))[0] == "database_locked"
    assert explain(error("SELECT 1", "SELECT nothing FROM some"))[0] == "database_unavailable"
    assert explain(OSError(28, "no space"))[0] == "disk_full"
    assert explain(OSError(30, "read-only"))[0] == "database_read_only"
    assert explain(ValueError("anything")) == ("tick_failed", "ValueError: anything")
