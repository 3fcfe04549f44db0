"""What a user waits for, measured with the real programs in a temporary home: `make bench`.

Each figure is a median; machines are shared and noisy, so compare figures of one run only.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import datetime
from itertools import pairwise
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
BIN = REPOSITORY / "target" / os.environ.get("PROFILE", "debug")
IDLE_SECONDS = 20.0
# Of the daemon with Local Modal inside.
IDLE_MEGABYTES = 40.0
IDLE_PERCENT = 0.1


class Installation:
    """A daemon of its own, driven by the CLI."""

    def __init__(self, home: Path) -> None:
        self.environment = {
            **os.environ,
            "AIRFLOW_SERVERLESS_HOME": str(home),
            "AIRFLOW_SERVERLESS_ENV": "bench",
        }

    def cli(self, *arguments: str) -> str:
        command = [str(BIN / "airflow-serverless"), *arguments]
        return subprocess.run(command, env=self.environment, check=True, capture_output=True, text=True).stdout

    def run(self) -> dict[str, object]:
        """Runs the example DAG to its end."""
        result = json.loads(self.cli("dags", "trigger", "--dag-id", "etl", "--wait", "--json"))
        assert result["state"] == "success", result
        return result

    def pid(self) -> int:
        return int(json.loads(self.cli("daemon", "status", "--json"))["pid"])


# Of an environment in which nothing is due: what is measured are the daemon and Local Modal, not ticks.
RESTING_CONFIG = """\
database:
  type: sqlite
scheduler:
  interval_seconds: 86400
executor:
  parallelism: 2
"""


def timed(action: Callable[[], object], repeats: int = 1) -> float:
    """Median wall time in seconds."""
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        action()
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def hops(run: dict[str, object]) -> list[float]:
    """Seconds between the end of each task and the start of the next."""
    tasks = sorted(run["task_instances"], key=lambda task: task["start_date"])  # type: ignore[call-overload]
    moments = [(datetime.fromisoformat(task["start_date"]), datetime.fromisoformat(task["end_date"])) for task in tasks]
    return [(after[0] - before[1]).total_seconds() for before, after in pairwise(moments)]


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def pss_megabytes(pid: int) -> float:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024


def family(pid: int) -> Iterator[int]:
    """A process and all that it has started and that is there now."""
    yield pid
    with suppress(FileNotFoundError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                yield from family(int(child))


def family_cpu_seconds(pid: int) -> float:
    """CPU time of the family, and of those in it that have ended."""
    ticks = 0
    for member in family(pid):
        with suppress(FileNotFoundError):
            fields = Path(f"/proc/{member}/stat").read_text().rpartition(")")[2].split()
            ticks += sum(map(int, fields[11:15]))
    return ticks / float(os.sysconf("SC_CLK_TCK"))


def family_pss_megabytes(pid: int) -> float:
    total = 0.0
    for member in family(pid):
        with suppress(FileNotFoundError, ProcessLookupError):
            total += pss_megabytes(member)
    return total


def show_idle(what: str, pid: int, seconds: float) -> None:
    """The daemon with Local Modal inside, and what it has started for containers, if anything."""
    before, daemon_before = family_cpu_seconds(pid), cpu_seconds(pid)
    time.sleep(seconds)
    used, daemon_used = family_cpu_seconds(pid) - before, cpu_seconds(pid) - daemon_before
    show(f"{what}: CPU of a core", 100 * daemon_used / seconds, "%", IDLE_PERCENT)
    show(f"{what}: memory (PSS)", pss_megabytes(pid), "MB", IDLE_MEGABYTES)
    if (processes := len(list(family(pid)))) > 1:
        show(f"with all its {processes} processes: CPU of a core", 100 * used / seconds, "%")
        show(f"with all its {processes} processes: memory (PSS)", family_pss_megabytes(pid), "MB")


def show(what: str, value: float, unit: str, most: float | None = None) -> None:
    """Prints a figure, and the most that it should be."""
    target = "" if most is None else f"  (target: at most {most:g})"
    print(f"{what:<58}{value:>10.3f} {unit}{target}", flush=True)


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="asb-") as folder:
        it = Installation(Path(folder))
        examples = REPOSITORY / "examples"
        try:
            show("start of the daemon", timed(lambda: it.cli("daemon", "start")), "s")
            config = str(examples / "config.yaml")
            show(
                "create an environment (Python runtime made before)",
                timed(lambda: it.cli("create", "--config", config)),
                "s",
            )
            etl = str(examples / "dags" / "etl.py")
            show("first upload (the validator starts)", timed(lambda: it.cli("dags", "create", "--file", etl)), "s")
            show("upload with a warm validator", timed(lambda: it.cli("dags", "create", "--file", etl), 5), "s")
            show("first run, cold containers", timed(it.run), "s")
            runs: list[dict[str, object]] = []
            show("run of four tasks, warm containers", timed(lambda: runs.append(it.run()), 7), "s")
            show("hop from task to task, warm", statistics.median(hop for run in runs for hop in hops(run)), "s")
            show("dags list, whole process", timed(lambda: it.cli("dags", "list"), 30), "s")
            show("runs list, whole process", timed(lambda: it.cli("runs", "list"), 30), "s")
            pid = it.pid()
            before = cpu_seconds(pid)
            time.sleep(IDLE_SECONDS)
            show("daemon with Local Modal, idle: CPU of a core", 100 * (cpu_seconds(pid) - before) / IDLE_SECONDS, "%")
            show("daemon with Local Modal, idle: memory (PSS)", pss_megabytes(pid), "MB")
        finally:
            it.cli("daemon", "stop")


if __name__ == "__main__":
    main()
