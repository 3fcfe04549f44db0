"""Runs a function in a forked child that may die, hang, print or eat memory without harm to its parent."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import select
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from airflow_serverless.dags import process_tree

POLL_SECONDS = 0.01
GRACE_SECONDS = 2
END_SECONDS = 5
"""For ending what a child leaves behind."""
MEMORY_SECONDS = 0.25
"""Between two looks at the memory of a child and all that it has started."""
MOST_BYTES = 256 << 20
"""Of an answer."""


@dataclass(frozen=True)
class Limits:
    """What a child may use: wall time in seconds, and memory in MiB, together with the processes that it starts."""

    seconds: float
    memory_mb: int

    def with_grace(self) -> Limits:
        """The same for a child that watches its own time, and can say where it was when that was over."""
        return replace(self, seconds=self.seconds + GRACE_SECONDS)


class ChildFailed(Exception):
    """The child gave no answer; the message says in plain words how it ended."""


def run_in_child(function: Callable[[], Any], limits: Limits) -> Any:
    """Return what `function` returns in a forked child (JSON types only).

    Raises ChildFailed if the child exits early, is killed by a signal, or exceeds its limits. Everything the child
    started is killed with it, wherever it has put itself.
    """
    with process_tree.adopting_orphans():
        before = process_tree.children()
        try:
            return _run(function, limits)
        finally:
            if not process_tree.end_all_but(before, END_SECONDS):
                # Whoever starts processes faster than they are ended is not to be waited for.
                raise ChildFailed("starts processes without end")


def _run(function: Callable[[], Any], limits: Limits) -> Any:
    reader, writer = os.pipe()
    parent = os.getpid()
    process = os.fork()
    if process == 0:
        os.close(reader)
        _child(function, writer, limits, parent)
    os.close(writer)
    status: int | None = None
    try:
        answer, status = _collect(process, reader, limits)
    finally:
        os.close(reader)
        _kill_group(process)
        if status is None:
            os.kill(process, signal.SIGKILL)
            os.waitpid(process, 0)
    if status is None:
        raise ChildFailed(f"took longer than {limits.seconds:g} seconds")
    try:
        reply = json.loads(answer.rpartition(b"\n")[2])
        if "error" in reply:
            raise ChildFailed(reply["error"])
        return reply["result"]
    except (ValueError, KeyError, TypeError):
        raise ChildFailed(_describe(os.waitstatus_to_exitcode(status), limits)) from None


def _child(function: Callable[[], Any], writer: int, limits: Limits, parent: int) -> None:
    """Never returns: the parent's clean-up handlers and stack are not the child's to unwind."""
    try:
        os.setsid()
        process_tree.die_with_parent(parent)
        null = os.open(os.devnull, os.O_RDWR)
        for descriptor in range(3):
            os.dup2(null, descriptor)
        # Code under test must not find the parent's files and sockets by their numbers.
        os.closerange(3, writer)
        os.closerange(writer + 1, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
        limit = limits.memory_mb * 1024 * 1024
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        _keep_default_crashes()
        # A compiled copy in the DAG folder could outlive a quick edit, and would be one more file on the volume.
        sys.dont_write_bytecode = True
        try:
            reply = {"result": function()}
        except MemoryError:
            reply = {"error": f"needs more than {limits.memory_mb} MB of memory"}
        except BaseException as error:
            reply = {"error": f"{type(error).__name__}: {error}"}
        try:
            text = json.dumps(reply)
        except Exception as error:
            text = json.dumps(
                {"error": f"has a result that cannot be written as JSON ({type(error).__name__}: {error})"}
            )
        with os.fdopen(writer, "wb") as stream:
            stream.write(b"\n" + text.encode())
    finally:
        os._exit(0)


def _keep_default_crashes() -> None:
    """Airflow's importer handles SIGSEGV in Python, which re-runs the faulting instruction for ever."""
    original = signal.signal

    def guarded(number: int, handler: Any) -> Any:
        return signal.SIG_DFL if number == signal.SIGSEGV else original(number, handler)

    original(signal.SIGSEGV, signal.SIG_DFL)
    original(signal.SIGTERM, signal.SIG_DFL)
    signal.signal = guarded  # type: ignore[assignment]


def _collect(process: int, reader: int, limits: Limits) -> tuple[bytes, int | None]:
    """What the child wrote and its wait status, which is None if it has not ended by the end of its time.

    The end of the stream alone proves nothing: a grandchild may hold the pipe open, a child may close it early.
    """
    chunks: list[bytes] = []
    size = 0
    os.set_blocking(reader, False)
    sources = [reader]
    deadline = time.monotonic() + limits.seconds
    measured = time.monotonic()
    while (remaining := deadline - time.monotonic()) > 0:
        select.select(sources, [], [], min(remaining, POLL_SECONDS))
        ended, status = os.waitpid(process, os.WNOHANG)
        # Whoever writes without end does not get more time by that.
        while (chunk := _read(reader)) and time.monotonic() < deadline:
            chunks.append(chunk)
            size += len(chunk)
            if size > MOST_BYTES:
                raise ChildFailed(f"gave more than {MOST_BYTES >> 20} MB of results")
        if chunk == b"":
            sources = []
        if ended:
            return b"".join(chunks), status
        if time.monotonic() - measured > MEMORY_SECONDS:
            if process_tree.memory_mb({process}, limits.memory_mb) > limits.memory_mb:
                raise ChildFailed(f"needs more than {limits.memory_mb} MB of memory, with the processes that it starts")
            measured = time.monotonic()
    return b"", None


def _read(reader: int) -> bytes | None:
    """A chunk, b"" at the end of the stream, None if nothing is there yet."""
    try:
        return os.read(reader, 1 << 16)
    except BlockingIOError:
        return None


def _kill_group(process: int) -> None:
    """The group outlives its leader for as long as something that the child started is alive."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process, signal.SIGKILL)


def _describe(code: int, limits: Limits) -> str:
    if code == -signal.SIGSEGV:
        return "crashed the interpreter (segmentation fault)"
    if code == -signal.SIGABRT:
        return f"crashed the interpreter (aborted; the memory limit is {limits.memory_mb} MB)"
    if code == -signal.SIGKILL:
        return "was killed (out of memory?)"
    if code < 0:
        return f"was ended by signal {signal.Signals(-code).name}"
    return f"ended the interpreter (exit code {code}, as with os._exit)"
