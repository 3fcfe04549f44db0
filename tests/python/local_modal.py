"""Local Modal and the real SDK for tests: a server in a temporary folder, and SDK scripts in their own processes."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import warm

REPOSITORY = Path(__file__).resolve().parents[2]
APPS = Path(__file__).resolve().parent / "apps"
SCRIPT_LIMIT = 90.0
START_LIMIT = 20.0
SHORTEST_PAUSE, LONGEST_PAUSE = 0.2, 0.5
PRELUDE = """
import json, os, sys, time
import modal

def answer(value): print("\\x1e" + json.dumps(value))

def failure(call):
    try: call()
    except BaseException as error: return type(error).__name__
"""


def binary() -> Path:
    """The server's program: MODAL_LOCAL_BIN, or what the workspace built."""
    return Path(os.environ.get("MODAL_LOCAL_BIN", REPOSITORY / "target/debug/modal-local"))


def wait_until(holds: Callable[[], Any], what: str, limit: float = 30.0) -> Any:
    """Returns the first true value of `holds`, and fails when there is none in time.

    Looks as often as a look is cheap, so that what is waited for gets most of the processor. What a look costs others
    (a tick, or a further round of one) is not seen here, hence the shortest pause.
    """
    until = time.monotonic() + limit
    while True:
        began = time.monotonic()
        if value := holds():
            return value
        ended = time.monotonic()
        assert ended < until, f"waited {limit} s for {what}"
        time.sleep(min(max(SHORTEST_PAUSE, 2 * (ended - began)), LONGEST_PAUSE))


def free_ports(count: int) -> int:
    """The first of so many ports in a row that nobody listens on."""
    # Below those that web functions and outgoing connections get; others may look for some at the same time.
    for first in range(10_000 + os.getpid() % 500 * count, 20_000, count):
        try:
            for port in range(first, first + count):
                socket.create_server(("127.0.0.1", port)).close()
        except OSError:
            continue
        return first
    raise AssertionError("all ports are taken")


class LocalModal:
    """A server that can be stopped, killed and started again on the same data."""

    def __init__(self) -> None:
        # A short path: the socket's has to fit an address.
        self.root = Path(tempfile.mkdtemp(prefix="lm-"))
        self.data = self.root / "data"
        (self.root / "home").mkdir()
        self.log = self.root / "server.log"
        self.python = sys.executable
        self.process: subprocess.Popen[str] | None = None
        self.url = ""
        self.session: warm.Session | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self, *arguments: str) -> None:
        """Starts the server and waits until it is ready."""
        self.process = self.popen(*arguments)
        assert self.process.stdout is not None
        line = self.process.stdout.readline().strip()
        assert line.startswith("MODAL_SERVER_URL="), f"not ready: {line!r}\n{self.log.read_text()}"
        self.url = line.partition("=")[2]

    def popen(self, *arguments: str) -> subprocess.Popen[str]:
        """Starts a server on the data folder without waiting for it."""
        command = [binary(), "serve", "--data-dir", self.data, "--python", self.python, *arguments]
        if "--volumes" not in arguments:
            # The tests that are not about it hold in either mode: `make conformance` runs them in both.
            command += ["--volumes", os.environ.get("LOCAL_MODAL_VOLUMES", "bind")]
        with self.log.open("a") as log:
            return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        """Ends the server and waits for its end; anything but a kill has to be clean."""
        if self.process is None:
            return
        self.keep_counts()
        if self.session:
            self.session.close()
            self.session = None
        self.process.send_signal(how)
        code = self.process.wait(START_LIMIT)
        self.process = None
        if how is not signal.SIGKILL:
            assert code == 0, self.log.read_text()

    def keep_counts(self) -> None:
        """Adds what this server was asked for to the file of LOCAL_MODAL_RPCS, for the table of what is tested."""
        # Without a test, it is the writer of that table who asks.
        counts, test = os.environ.get("LOCAL_MODAL_RPCS"), os.environ.get("PYTEST_CURRENT_TEST")
        # A server may have its data elsewhere, or have ended by itself; then there is nothing to ask.
        if counts and test and (self.data / "admin.sock").exists() and self.process and self.process.poll() is None:
            # One that is not ready yet was asked for nothing.
            with contextlib.suppress(subprocess.CalledProcessError):
                entry = {"test": Path(test.partition("::")[0]).name, "rpcs": self.status()["rpcs"]}
                with Path(counts).open("a") as file:
                    print(json.dumps(entry), file=file)

    def status(self) -> Any:
        """What the server tells of its apps, containers and queues."""
        command = [binary(), "status", "--data-dir", self.data, "--json"]
        return json.loads(subprocess.run(command, stdout=subprocess.PIPE, timeout=20, check=True).stdout)

    def close(self) -> None:
        """Ends the server, and its containers, and removes its data."""
        self.stop()
        assert not self.containers(), "containers outlived their server"
        shutil.rmtree(self.root)

    def containers(self) -> list[int]:
        """Process ids of this server's containers, and of what they started."""
        marker = f"MODAL_CONTAINER_ARGUMENTS_PATH={self.data.resolve()}/".encode()
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            try:
                environment = (process / "environ").read_bytes()
            except OSError:
                continue
            if any(variable.startswith(marker) for variable in environment.split(b"\0")):
                found.append(int(process.name))
        return found

    def token_secret(self) -> str:
        """What the server takes: on a socket anything, on a port the secret in its data folder."""
        path = self.data / "token"
        return path.read_text() if path.exists() else "as-local"

    def environment(self, **more: str) -> dict[str, str]:
        """The environment of an SDK process; nothing of the caller's leaks into it."""
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.root / "home"),
            "PYTHONPATH": str(APPS),
            "MODAL_SERVER_URL": self.url,
            "MODAL_TOKEN_ID": "ak-local",
            "MODAL_TOKEN_SECRET": self.token_secret(),
            **more,
        }

    def sdk(self, script: str, *, limit: float = SCRIPT_LIMIT, **more: str) -> Any:
        """Runs a script with the SDK in a process of its own and returns what it handed to `answer`.

        `failure(call)` is the name of the exception that a call raises.
        """
        script = PRELUDE + textwrap.dedent(script)
        return self._answer(warm.run("-c", script, env=self.environment(**more), timeout=limit))

    def ask(self, script: str) -> Any:
        """Runs a script in the process that the previous one ran in, which is connected already."""
        self.session = self.session or warm.Session(self.environment())
        return self._answer(self.session.run(PRELUDE + textwrap.dedent(script), SCRIPT_LIMIT))

    def _answer(self, done: subprocess.CompletedProcess[str]) -> Any:
        assert done.returncode == 0, f"{done.stderr}\n{self.log.read_text()}"
        answers = done.stdout.rpartition("\x1e")[2]
        return json.loads(answers) if answers else None

    def begin_sdk(self, script: str, **more: str) -> subprocess.Popen[str]:
        """Starts such a script without waiting for it."""
        command = [sys.executable, "-c", PRELUDE + textwrap.dedent(script)]
        return subprocess.Popen(command, env=self.environment(**more), stdout=subprocess.PIPE, text=True)

    def modal(self, *arguments: object, **more: str) -> subprocess.CompletedProcess[str]:
        """Runs the SDK's command line."""
        return warm.run("-m", "modal", *map(str, arguments), env=self.environment(**more), timeout=SCRIPT_LIMIT)

    def deploy(self, app_file: Path) -> subprocess.CompletedProcess[str]:
        """Runs `modal deploy`."""
        return self.modal("deploy", app_file)
