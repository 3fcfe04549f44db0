"""The commands of the README and of docs/, as a reader types them: one machine, one daemon, page after page.

All pages have one folder, which looks like the root of a clone, one home, and the environment `dev` of the first page.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from importlib.metadata import distribution
from pathlib import Path

import pytest

import documents
from daemon import OF_PACKAGES, RUNTIMES
from documents import Block
from local_modal import REPOSITORY, binary, free_ports
from postgres import Postgres, serving

pytestmark = pytest.mark.timeout(900)
PAGE_LIMIT = 600.0
PROGRAMS = ("airflowd", "airflow-serverless")
DATABASE = "postgresql://airflow:secret@db.example.org:5432/airflow"
"""The connection string of the pages, for which each page gets a database of its own."""
PORTS = ("8793", "8799")
PREPARED = {
    "cargo build --locked -p airflowd -p airflow-serverless\n",
    "cargo build -p modal-emulator\npython3 -m venv .modal-venv\n.modal-venv/bin/pip install modal==1.6.4\n",
}
"""Commands that have been run before: they take minutes, or need the internet."""
NOT_RUN = {"needs a Modal account", "needs GitHub and a Modal account", "needs systemd"}
MOST_NOT_RUN = 6
EXPECTED = {
    "README.md": ["etl.py uploaded", "Total order value is 1236.70", "airflowd stopped"],
    "tutorial.md": ["2 people greeted", "Hello, Grace", "nothing_like_this", "0 0 * * *"],
    "how-to/watch-a-folder.md": ["in sync"],
    "how-to/postgresql.md": ["environment warehouse is ready", "its data were deleted"],
    "how-to/packages.md": ["slowest answers: [430, 950] ms"],
    "how-to/plugins.md": ["costs 12.50 EUR"],
    "how-to/variables-and-connections.md": ["AIRFLOW_CONN_DWH"],
    "how-to/ci.md": ["from-ci", "success"],
    "how-to/backfill.md": ["completed"],
    "how-to/debug-a-task.md": ["ZeroDivisionError: division by zero"],
    "how-to/local-modal.md": ["    20 the", "books/crow.txt: 70 words", "deployed v1"],
    "how-to/back-up.md": [".db"],
    "how-to/rest-api.md": ["airflowd_build_info", '"dag_id":"branching"'],
    "reference/examples.md": [
        "3 cities, 12.0 degrees on average",
        "approved and published",
        "ask_manager",
        "2 rows loaded, 19 pieces sold",
        "cluster of example deleted",
    ],
}
"""{page: what its commands print}."""
METRICS = """
airflow-serverless daemon start >&2
socket=$(airflow-serverless daemon status --json | python3 -c 'import json, sys; print(json.load(sys.stdin)["socket"])')
curl -sS --unix-socket "$socket" http://localhost/v1/metrics
"""
PRELUDE = """
set -eu -o pipefail
started=()
end_all() { for pid in "${started[@]}"; do kill -TERM -- "-$pid" && wait "$pid" || true; done; }
trap end_all EXIT
# The reader waits until a save has been noticed and uploaded.
sleep() {
    command sleep "$1"
    if test "$1" = 5; then while airflow-serverless watch list | grep -q " pending "; do command sleep 0.2; done; fi
}
"""
IN_BACKGROUND = """
setsid bash -eu -c {command} > {log} 2>&1 &
started+=($!)
for _ in {{1..600}}; do
    if grep -q {text} {log} || ! kill -0 $!; then break; fi
    command sleep 0.2
done
grep -q {text} {log} || {{ cat {log} >&2; exit 1; }}
"""


class Machine:
    """The machine of a reader: a clone with built programs, and a home."""

    def __init__(self, root: Path, postgres: Postgres) -> None:
        self.root, self.postgres = root, postgres
        self.clone, self.home = root / "clone", root / "home"
        programs = self.clone / "target/debug"
        for folder in (programs, self.home):
            folder.mkdir(parents=True)
        for program in PROGRAMS:
            (programs / program).symlink_to(REPOSITORY / "target/debug" / program)
        (programs / "modal-local").symlink_to(binary())
        (self.clone / "examples").symlink_to(REPOSITORY / "examples")
        (self.clone / ".modal-venv").symlink_to(sys.prefix)
        packages = {name: value for name, value in os.environ.items() if name.startswith(OF_PACKAGES)}
        self.environment = {
            **packages,
            "PATH": f"{programs}:{os.environ['PATH']}",
            "HOME": str(self.home),
            "AIRFLOW_SERVERLESS_RUNTIMES": RUNTIMES,
        }
        ports = free_ports(len(PORTS))
        self.ports = {port: str(ports + number) for number, port in enumerate(PORTS)}

    def run(self, page: str, script: str) -> subprocess.CompletedProcess[str]:
        """Runs a script in the clone."""
        if DATABASE in script:
            script = script.replace(DATABASE, self.postgres.create(re.sub(r"\W", "_", page)))
        for written, port in self.ports.items():
            script = script.replace(written, port)
        return subprocess.run(
            ["bash", "-c", script],
            cwd=self.clone,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PAGE_LIMIT,
            check=False,
        )

    def take_packages_from(self, folder: Path) -> None:
        """From now on packages are in this folder, and nowhere else."""
        wheel(folder, "sortedcontainers")
        (folder / "uv.toml").write_text(f"no-index = true\nfind-links = [{str(folder)!r}]\n")
        self.environment["UV_CONFIG_FILE"] = str(folder / "uv.toml")


def wheel(folder: Path, package: str) -> None:
    """Writes the wheel of a package of this interpreter, which has nothing but Python in it."""
    found = distribution(package)
    folder.mkdir()
    with zipfile.ZipFile(folder / f"{package}-{found.version}-py3-none-any.whl", "w") as archive:
        for file in found.files or ():
            if file.suffix != ".pyc" and file.name not in ("INSTALLER", "REQUESTED", "direct_url.json"):
                archive.write(file.locate(), str(file))


@pytest.fixture(scope="module")
def machine() -> Iterator[Machine]:
    # A short path, for the sockets in it.
    root = Path(tempfile.mkdtemp(prefix="docs-"))
    with serving() as postgres:
        machine = Machine(root, postgres)
        if list(Path(RUNTIMES).glob("*/.complete")):
            machine.take_packages_from(root / "wheels")
        yield machine
        stopped = machine.run("", "airflow-serverless daemon stop")
    assert stopped.returncode == 0, stopped
    shutil.rmtree(root)


def script_of(blocks: list[Block]) -> str:
    """The commands of a page, in which the reader also writes the files."""
    parts = [PRELUDE]
    for number, block in enumerate(blocks):
        parts.append(f"echo '# {block.page}:{block.line}' >&2\n")
        if block.file:
            folder = Path(block.file).parent
            parts.append(f"mkdir -p {folder}\ncat > {block.file} <<'END_OF_FILE'\n{block.text}END_OF_FILE\n")
        elif block.until:
            log = f"background-{number}.log"
            command, text = shlex.quote(block.text), shlex.quote(block.until)
            parts.append(IN_BACKGROUND.format(command=command, text=text, log=log))
        else:
            parts.append(block.text)
    return "".join(parts)


def commands() -> dict[str, list[Block]]:
    """{page: the blocks that its reader types or writes}, of pages with commands."""
    found = {
        documents.name(page): [block for block in documents.blocks(page) if block.is_run or block.file]
        for page in documents.pages()
    }
    return {page: blocks for page, blocks in found.items() if any(block.is_run for block in blocks)}


COMMANDS = commands()


@pytest.mark.parametrize("page", COMMANDS)
def test_documented_commands_succeed_with_the_expected_output(machine: Machine, page: str) -> None:
    done = machine.run(page, script_of(COMMANDS[page]))
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    missing = [part for part in EXPECTED.get(page, []) if part not in done.stdout + done.stderr]
    assert not missing, f"{missing} not in\n{done.stdout}\n{done.stderr}"


def test_folders_of_the_volume_are_documented(machine: Machine) -> None:
    text = (documents.BOOK / "reference/state.md").read_text()
    volumes = machine.home.glob(".local/share/airflow-serverless/modal/volumes/*")
    found = {path.name for volume in volumes if (volume / "data/airflow.db").exists() for path in volume.iterdir()}
    assert {"dags", "data", "xcom", "logs", "venvs"} <= found
    assert [name for name in found if f"`{name}/" not in text] == []


def test_all_metrics_are_documented(machine: Machine) -> None:
    done = machine.run("", METRICS)
    suffixes = {"counter": "_total", "info": "_info"}
    found = re.findall(r"^# TYPE (\w+) (\w+)$", done.stdout, re.MULTILINE)
    served = {(name + suffixes.get(kind, ""), kind) for name, kind in found}
    text = (documents.BOOK / "reference/metrics.md").read_text()
    documented = set(re.findall(r"^\| `(\w+)` \| (\w+) \|", text, re.MULTILINE))
    assert served and served <= documented, done
    # What has not happened since the daemon was started has no figure yet.
    source = (REPOSITORY / "daemon/src/metrics.rs").read_text()
    assert [name for name, _ in documented - served if f'"{name.removesuffix("_total")}"' not in source] == []


def test_skipped_blocks_are_few_and_have_a_reason(machine: Machine) -> None:
    blocks = [block for page in documents.pages() for block in documents.blocks(page)]
    assert {block.text for block in blocks if block.is_prepared} == PREPARED
    left_out = [block for block in blocks if block.not_run]
    assert {block.not_run for block in left_out} == NOT_RUN and len(left_out) <= MOST_NOT_RUN
    # Their commands exist, with these options.
    lines = [line for block in left_out for line in block.text.splitlines() if line.startswith("airflow-serverless ")]
    done = machine.run("", "set -eu\n" + "".join(f"{line} --help\n" for line in lines))
    assert done.returncode == 0, done.stderr
