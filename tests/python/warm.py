"""Python processes that have the Modal SDK imported when they start.

`run` does what `subprocess.run([sys.executable, *arguments])` does, at a twentieth of the cost: it asks a process that
has imported the SDK (this file, run as a program) to fork. That process has no threads, and whatever a fork does stays
in the fork.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import gc
import importlib
import json
import os
import random
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any

PRELOADED = ("modal", "modal.cli.entry_point", "modal.app", "modal.runner")
START_LIMIT = 60.0
SESSION = """
import contextlib, io, json, sys, traceback
for line in sys.stdin:
    failure, printed = "", io.StringIO()
    with contextlib.redirect_stdout(printed):
        try:
            exec(json.loads(line), {"__name__": "__main__"})
        except BaseException:
            failure = traceback.format_exc()
    print(json.dumps([printed.getvalue(), failure]), flush=True)
"""


def run(
    *arguments: str, env: Mapping[str, str], timeout: float, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run `python -c SCRIPT …` or `python -m MODULE …` to its end.

    Raises:
        subprocess.TimeoutExpired: It took longer than `timeout` seconds, and was killed.
    """
    with (
        Path(os.devnull).open() as stdin,
        tempfile.TemporaryFile("w+") as stdout,
        tempfile.TemporaryFile("w+") as stderr,
        _forked(arguments, env, cwd, stdin, stdout, stderr) as connection,
    ):
        connection.settimeout(timeout)
        try:
            answer = connection.makefile().readline()
        except TimeoutError:
            # The end of the connection is the end of the process.
            raise subprocess.TimeoutExpired(arguments, timeout, _text(stdout), _text(stderr)) from None
        assert answer, "the process that forks is gone"
        return subprocess.CompletedProcess(arguments, int(answer), _text(stdout), _text(stderr))


class Session:
    """A process that runs scripts one after the other, in the same environment and with the same connections."""

    def __init__(self, env: Mapping[str, str]) -> None:
        self._requests, theirs = socket.socketpair()
        self._lines = self._requests.makefile()
        with theirs, Path(os.devnull).open("w") as nothing:
            self._process = _forked(("-c", SESSION), env, None, theirs, theirs, nothing)

    def run(self, script: str, timeout: float) -> subprocess.CompletedProcess[str]:
        """Run a script; what it prints and the traceback of its failure are in the answer.

        Raises:
            subprocess.TimeoutExpired: It took longer than `timeout` seconds. The session is of no more use.
        """
        self._requests.settimeout(timeout)
        self._requests.sendall(json.dumps(script).encode() + b"\n")
        try:
            answer = self._lines.readline()
        except TimeoutError:
            self.close()
            raise subprocess.TimeoutExpired(script, timeout) from None
        assert answer, "the session has ended"
        printed, failure = json.loads(answer)
        return subprocess.CompletedProcess(script, bool(failure), printed, failure)

    def close(self) -> None:
        """End the process."""
        for connection in (self._process, self._lines, self._requests):
            connection.close()


def _forked(arguments: tuple[str, ...], env: Mapping[str, str], cwd: Path | None, *streams: Any) -> socket.socket:
    """Start a process with these three streams; gives a connection that says how it ends, and whose end is its end."""
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(_server())
    socket.send_fds(connection, [b"\0"], [stream.fileno() for stream in streams])
    request = {"arguments": arguments, "env": dict(env), "cwd": str(cwd or Path.cwd())}
    connection.sendall(json.dumps(request).encode() + b"\n")
    return connection


def _text(file: Any) -> str:
    file.seek(0)
    return str(file.read())


@functools.cache
def _server() -> str:
    """The address of this process's server, which ends with it."""
    folder = tempfile.mkdtemp(prefix="warm-")
    address = f"{folder}/socket"
    # A home of its own: a configuration of the developer's is read at the import.
    environment = {"PATH": os.environ["PATH"], "HOME": folder}
    process = subprocess.Popen(
        [sys.executable, __file__, address], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdin and process.stdout
    ready, _, _ = select.select([process.stdout], [], [], START_LIMIT)
    assert ready and process.stdout.readline() == b"ready\n", "the SDK cannot be imported"
    stdin = process.stdin

    @atexit.register
    def stop() -> None:
        stdin.close()
        process.wait(START_LIMIT)
        Path(address).unlink()
        Path(folder).rmdir()

    return address


def _serve(address: str) -> dict[str, Any] | None:
    """Fork for each connection; returns the request in each fork, and None at the end of the standard input."""
    for module in PRELOADED:
        importlib.import_module(module)
    assert threading.active_count() == 1, "an import has started a thread"
    gc.collect()
    gc.freeze()
    # The system reaps the forks.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(address)
    listener.listen()
    os.write(1, b"ready\n")
    while True:
        ready, _, _ = select.select([listener, 0], [], [])
        if 0 in ready:
            return None
        connection, _ = listener.accept()
        if os.fork() == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            listener.close()
            return _supervise(connection)
        connection.close()


def _supervise(connection: socket.socket) -> dict[str, Any]:
    """Fork the process that is asked for and answer how it ended; returns the request in that process."""
    _, descriptors, _, _ = socket.recv_fds(connection, 1, 3)
    request: dict[str, Any] = json.loads(connection.makefile().readline())
    process = os.fork()
    if process == 0:
        connection.close()
        os.setsid()
        for target, descriptor in enumerate(descriptors):
            os.dup2(descriptor, target)
            os.close(descriptor)
        return request
    ended, _, _ = select.select([os.pidfd_open(process), connection], [], [])
    if connection in ended:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process, signal.SIGKILL)
    _, status = os.waitpid(process, 0)
    # Who has asked may be gone.
    with contextlib.suppress(OSError):
        connection.sendall(b"%d\n" % os.waitstatus_to_exitcode(status))
    os._exit(0)


def _become(request: dict[str, Any]) -> None:
    """Run the program as the interpreter would, in the environment that is asked for."""
    os.environ.clear()
    os.environ.update(request["env"])
    os.chdir(request["cwd"])
    time.tzset()
    random.seed()
    # Tests rewrite modules faster than the whole seconds by which Python tells an old compiled file.
    sys.dont_write_bytecode = True
    sys.path[:1] = ["", *filter(None, os.environ.get("PYTHONPATH", "").split(":"))]
    kind, program, *arguments = request["arguments"]
    if kind == "-m":
        sys.argv = [program, *arguments]
        runpy.run_module(program, run_name="__main__", alter_sys=True)
    else:
        sys.argv = ["-c", *arguments]
        main = sys.modules["__main__"] = types.ModuleType("__main__")
        exec(compile(program, "<string>", "exec"), main.__dict__)


def _end(status: int) -> None:
    """End as the interpreter does, but without freeing each object: most are shared with the process that forks, and
    would be copied for that."""
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__" and (asked := _serve(sys.argv[1])):
    try:
        _become(asked)
    except SystemExit as end:
        # Anything else than a number is for the interpreter to print.
        if not isinstance(end.code, int | None):
            raise
        _end(end.code or 0)
    _end(0)
