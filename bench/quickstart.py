"""Measures `make quickstart` in a fresh clone with an empty home, and the processes that it leaves running.

`make bench-quickstart`. Downloads of cargo and uv may come from caches (CARGO_HOME, RUSTUP_HOME and UV_CACHE_DIR are
kept); everything else is made from nothing.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from first_light import REPOSITORY, family, show

# Idle containers are gone after 90 s, the validator's workers after 5 s.
SETTLED_SECONDS = 100.0


class Clone:
    """A fresh clone of what is committed, and an empty home."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "clone"
        home = folder / "home"
        home.mkdir()
        kept = {name: os.environ.get(name, str(Path.home() / default)) for name, default in CACHES.items()}
        kept |= {name: value for name, value in os.environ.items() if name.upper().startswith(OF_DOWNLOADS)}
        self.environment = {"PATH": os.environ["PATH"], "HOME": str(home), **kept}
        subprocess.run(["git", "clone", "--quiet", REPOSITORY, self.root], check=True)

    def run(self, *command: str) -> str:
        done = subprocess.run(
            command,
            check=False,
            cwd=self.root,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert done.returncode == 0, done.stdout[-5000:]
        return done.stdout

    def cli(self, *arguments: str) -> str:
        return self.run(str(self.root / "target/debug/airflow-serverless"), *arguments)

    def daemon(self) -> int:
        return int(json.loads(self.cli("daemon", "status", "--json"))["pid"])


CACHES = {"CARGO_HOME": ".cargo", "RUSTUP_HOME": ".rustup"}
OF_DOWNLOADS = ("UV_", "PIP_", "SSL_CERT_", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")
"""How this machine reaches package registries."""


def processor_seconds(pid: int | None = None) -> float:
    """User time of all commands that have ended; with a process id, that of it and of what it has started."""
    if pid is None:
        return resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    ticks = 0
    for member in family(pid):
        fields = Path(f"/proc/{member}/stat").read_text().rpartition(")")[2].split()
        # Its own, and that of its children that have ended.
        ticks += int(fields[11]) + int(fields[13])
    return ticks / float(os.sysconf("SC_CLK_TCK"))


def with_airflow(daemon: int) -> list[str]:
    """The processes below the daemon that have imported Airflow and stay: fork servers, the validator, its workers."""
    commands = [Path(f"/proc/{pid}/cmdline").read_text().split("\0") for pid in family(daemon)]
    return [
        " ".join(command) for command in commands if "airflow_serverless.dags.validator" in command or preloads(command)
    ]


def preloads(command: list[str]) -> bool:
    """Whether it is a fork server that imports more than the SDK."""
    return "serve" in command and bool(json.loads(Path(command[command.index("serve") + 1]).read_text())["preload"])


def timed(action: Callable[[], object]) -> float:
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="asq-") as folder:
        clone = Clone(Path(folder))
        before = processor_seconds()
        try:
            wall = timed(lambda: clone.run("make", "quickstart"))
            daemon = clone.daemon()
            used = processor_seconds() - before + processor_seconds(daemon)
            show("make quickstart from nothing: processor time (user)", used, "s", 550)
            show("make quickstart from nothing: wall clock", wall, "s")
            time.sleep(SETTLED_SECONDS)
            show("processes that have imported Airflow, after the run", len(with_airflow(daemon)), "", 2)
            clone.run("make", "quickstart")
            show("second make quickstart", timed(lambda: clone.run("make", "quickstart")), "s", 2.5)
            config = str(clone.root / "examples/config.yaml")
            create = lambda name: clone.cli("create", "--env", name, "--config", config)  # noqa: E731
            times = sorted(timed(lambda name=name: create(name)) for name in ("one", "two", "three"))
            show("create of another environment, runtime present", times[1], "s", 6)
        finally:
            # A failed quickstart leaves a daemon, too, if it got that far.
            if (clone.root / "target/debug/airflow-serverless").exists():
                clone.cli("daemon", "stop")


if __name__ == "__main__":
    main()
