"""The commands of the README's section "Run any Modal app locally", word for word."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from local_modal import REPOSITORY, binary, wait_until

SECTION = re.compile(r"^## Run any Modal app locally\n(.*?)^## ", re.MULTILINE | re.DOTALL)
BLOCK = re.compile(r"^```sh\n(.*?)^```", re.MULTILINE | re.DOTALL)
COMMANDS_LIMIT = 240.0


def blocks() -> list[str]:
    section = SECTION.search((REPOSITORY / "README.md").read_text())
    assert section
    return BLOCK.findall(section[1])


@pytest.fixture
def clone(tmp_path: Path) -> Iterator[Path]:
    """What the first commands leave: a checkout with a built server, and an interpreter with the SDK."""
    if not shutil.which("unshare") or subprocess.run(["unshare", "-rm", "true"], check=False).returncode:
        pytest.skip("the app reads its Volume at its mount point, and this system lets no process mount anything")
    # A short path, for the socket in the data folder.
    clone = Path("/tmp", f"clone-{os.getpid()}")
    clone.mkdir()
    (clone / "target/debug").mkdir(parents=True)
    (clone / "target/debug/modal-local").symlink_to(binary())
    (clone / "examples").symlink_to(REPOSITORY / "examples")
    (clone / ".modal-venv").symlink_to(sys.prefix)
    yield clone
    shutil.rmtree(clone)


def test_the_commands_do_what_is_said(clone: Path, tmp_path: Path) -> None:
    build, serve, tour, faults = blocks()
    assert "cargo build -p modal-emulator" in build and ".modal-venv" in build
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    log = clone / "server.log"
    with log.open("w") as output:
        server = subprocess.Popen(serve.split(), cwd=clone, env=environment, stdout=output, stderr=output)
    try:
        wait_until(lambda: "MODAL_SERVER_URL=" in log.read_text(), "the server")
        done = subprocess.run(
            ["bash", "-eu", "-o", "pipefail", "-c", tour + faults],
            cwd=clone,
            env=environment,
            capture_output=True,
            text=True,
            timeout=COMMANDS_LIMIT,
            check=False,
        )
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}\n{log.read_text()}"
        assert done.stdout.count("2 books") == 3
        assert done.stdout.count("    20 the") == 2, done.stdout
        assert '{"the":20,' in done.stdout.replace(" ", "")
        assert "books/crow.txt: 70 words" in done.stdout, "the logs"
        assert "word-count" in done.stdout and "deployed v1" in done.stdout, "the status"
    finally:
        server.send_signal(signal.SIGTERM)
        assert server.wait(30) == 0, log.read_text()
