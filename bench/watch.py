"""How long it takes from a save to the Volume and to the database, for one file and for many: `make bench`.

The daemon waits 200 ms after the last event of a burst, which is left out of the figures for uploads, and imports a
changed DAG file before it uploads it, which is not.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from first_light import RESTING_CONFIG, Installation, show, show_idle

DEBOUNCE_SECONDS = 0.2
REPEATS = 9
MANY = 10_000
CHECKOUT = 500
WATCHES = 10
IDLE_SECONDS = 60.0
LIMIT_SECONDS = 600.0
TO_THE_VOLUME_SECONDS = 0.05
TO_THE_DATABASE_SECONDS = 1.5
DAG = """
from airflow.sdk import DAG
dag = DAG("saved", description="{word}", schedule=None)
"""


def wait(what: str, look: Callable[[], bool]) -> float:
    """Seconds until it is so."""
    started = time.perf_counter()
    while not look():
        if time.perf_counter() - started > LIMIT_SECONDS:
            raise TimeoutError(what)
        time.sleep(0.001)
    return time.perf_counter() - started


def watch(it: Installation, folder: Path) -> dict[str, Any]:
    watches = json.loads(it.cli("watch", "list", "--json"))["watches"]
    found: dict[str, Any] = next(one for one in watches if one["directory"] == str(folder))
    return found


def is_in_sync(it: Installation, folder: Path) -> Callable[[], bool]:
    return lambda: bool(watch(it, folder)["state"] == "in_sync")


def content(path: Path) -> str | None:
    return path.read_text() if path.exists() else None


def save(folder: Path, volume: Path, name: str, text: str) -> float:
    """Seconds from a save to the Volume, without the wait for the end of the burst."""
    (folder / name).write_text(text)
    return wait(name, lambda: content(volume / name) == text) - DEBOUNCE_SECONDS


def saves(it: Installation, folder: Path, volume: Path) -> None:
    folder.mkdir()
    (folder / "saved.py").write_text(DAG.format(word="first"))
    it.cli("watch", "add", str(folder), "--wait")
    words = [f"word{number}" for number in range(REPEATS)]
    data = median(save(folder, volume, "saved.sql", word) for word in words)
    show("save of a data file → on the Volume", data, "s", TO_THE_VOLUME_SECONDS)
    show(
        "save of a DAG file → checked and on the Volume",
        median(save(folder, volume, "saved.py", DAG.format(word=word)) for word in words),
        "s",
    )

    def into_the_database(word: str) -> float:
        (folder / "saved.py").write_text(DAG.format(word=word))
        shown = lambda: json.loads(it.cli("dags", "show", "--dag-id", "saved", "--json"))["description"]  # noqa: E731
        return wait("the database", lambda: bool(shown() == word))

    wait("the first parse", lambda: '"saved"' in it.cli("dags", "list", "--json"))
    show(
        "save of a DAG file → in the metadata database",
        median(map(into_the_database, words)),
        "s",
        TO_THE_DATABASE_SECONDS,
    )


def git(folder: Path, *arguments: str) -> None:
    command = ["git", "-c", "user.name=bench", "-c", "user.email=bench@localhost", *arguments]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)


def checkout(it: Installation, folder: Path, volume: Path) -> None:
    folder.mkdir()
    git(folder, "init", "--initial-branch", "one")
    for branch in ("one", "two"):
        if branch == "two":
            git(folder, "checkout", "-b", branch)
        for number in range(CHECKOUT):
            (folder / f"file_{number}.sql").write_text(f"select '{branch}'")
        git(folder, "add", "--all")
        git(folder, "commit", "--message", branch)
    it.cli("watch", "add", str(folder), "--wait")
    before = watch(it, folder)["uploads"]
    git(folder, "checkout", "one")
    last = volume / f"file_{CHECKOUT - 1}.sql"
    show(f"git checkout of {CHECKOUT} files → on the Volume", wait("a", lambda: content(last) == "select 'one'"), "s")
    wait("the end", is_in_sync(it, folder))
    show("… in so many uploads", watch(it, folder)["uploads"] - before, "")


def many(it: Installation, folder: Path) -> None:
    for number in range(MANY):
        path = folder / f"{number % 100}" / f"many_{number}.sql"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"select {number}")
    started = time.perf_counter()
    it.cli("watch", "add", str(folder), "--wait")
    show(f"first upload of {MANY} files", time.perf_counter() - started, "s")
    it.cli("daemon", "stop")
    started = time.perf_counter()
    it.cli("daemon", "start")
    show("start of the daemon", time.perf_counter() - started, "s")
    wait("the reconciliation", is_in_sync(it, folder))
    show(f"… and {MANY} files compared with the Volume", time.perf_counter() - started, "s")


def idle(it: Installation, folder: Path) -> None:
    for number in range(WATCHES - 1):
        one = folder / f"idle_{number}"
        (one / "package").mkdir(parents=True)
        (one / f"idle_{number}.sql").touch()
        it.cli("watch", "add", str(one), "--wait")
    # Without a validator: only what stays.
    it.cli("daemon", "restart")
    for number in range(WATCHES - 1):
        wait("the reconciliation", is_in_sync(it, folder / f"idle_{number}"))
    # (An environment that looks for what is due each minute costs that tick, here as at Modal; and what has imported
    # Airflow is kept for 20 minutes, for the next container.)
    show_idle(f"idle with {WATCHES} watches", it.pid(), IDLE_SECONDS)


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="asw-") as root:
        it = Installation(Path(root, "home"))
        try:
            config = Path(root, "config.yaml")
            config.write_text(RESTING_CONFIG)
            it.cli("create", "--config", str(config))
            volumes = Path(root, "home/data/modal/volumes")
            volume = next(volumes.iterdir()) / "dags"
            saves(it, Path(root, "dags"), volume)
            idle(it, Path(root, "idle"))
            checkout(it, Path(root, "checkout"), volume)
            many(it, Path(root, "many"))
        finally:
            it.cli("daemon", "stop")


if __name__ == "__main__":
    main()
