"""Copies of a process that has imported Airflow, each of which deals with one request at a time.

Nothing here outlives its parent: the kernel tells a worker when that is gone, and the worker ends what it has started.
"""

from __future__ import annotations

import codecs
import contextlib
import gc
import json
import os
import selectors
import signal
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from airflow_serverless.dags import process_tree

Answer = Callable[[str], dict[str, Any]]

MOST_WAITING = 1000
"""Requests that are read before others are answered."""
MOST_BYTES = 8 << 20
"""Of one answer or one request."""
CHUNK = 1 << 16
GRACE_SECONDS = 2.0
LOOK_SECONDS = 1.0
"""A file can suspend the worker that imports it: busy workers are resumed as often."""
REPEAT_SECONDS = 3.0
"""A request whose worker dies later is not given to another one: two imports would take longer than one may."""
IDLE_SECONDS = 5.0
"""A worker that has had nothing to do for as long ends: a fork is cheap, and a copy of Airflow that waits is not."""


@dataclass
class Worker:
    """A forked process, and the pipes to and from it; `line` is the request at hand."""

    process: int
    requests: int
    answers: int
    line: bytes | None = None
    began: float = 0.0
    buffer: bytearray = field(default_factory=bytearray)


class Pool:
    """Answers requests, a line each, by up to `size` workers; the answers go to the descriptor `output`, in any order.

    A request whose worker dies soon is given to another one, once. What a worker leaves behind ends with it.
    """

    def __init__(self, answer: Answer, size: int, output: int) -> None:
        self._answer = answer
        self._size = size
        self._output = output
        self._workers: dict[int, Worker] = {}
        self._waiting: deque[bytes] = deque()
        self._repeated: set[bytes] = set()
        self._selector = selectors.DefaultSelector()

    def serve(self, source: int) -> None:
        """Answer what comes from the descriptor `source`; when that ends, so does all that is under way."""
        with process_tree.adopting_orphans():
            self._serve(source)

    def _serve(self, source: int) -> None:
        buffer = bytearray()
        self._selector.register(source, selectors.EVENT_READ)
        try:
            while True:
                is_busy = any(worker.line is not None for worker in self._workers.values())
                ready = self._selector.select(LOOK_SECONDS if is_busy else IDLE_SECONDS if self._workers else None)
                if not ready:
                    self._resume_busy() if is_busy else self._end_idle()
                for key, _ in ready:
                    if key.fd == source:
                        chunk = os.read(source, CHUNK)
                        if not chunk:
                            return
                        buffer += chunk
                        *lines, rest = buffer.split(b"\n")
                        buffer = rest[:MOST_BYTES]
                        self._waiting.extend(bytes(line) for line in lines)
                    elif key.fd in self._workers:
                        self._hear(self._workers[key.fd])
                self._hand_out()
                self._listen(source, len(self._waiting) < MOST_WAITING)
        finally:
            self.stop()

    def stop(self) -> None:
        """End the workers, and what they have started."""
        for worker in self._workers.values():
            os.close(worker.requests)
            with contextlib.suppress(ProcessLookupError):
                os.kill(worker.process, signal.SIGTERM)
        deadline = time.monotonic() + GRACE_SECONDS
        while self._workers:
            fd, worker = self._workers.popitem()
            while not os.waitpid(worker.process, os.WNOHANG)[0]:
                if time.monotonic() > deadline:
                    os.kill(worker.process, signal.SIGKILL)
                    os.waitpid(worker.process, 0)
                    break
                time.sleep(0.005)
            os.close(fd)
        self._selector.close()

    def _listen(self, source: int, wanted: bool) -> None:
        is_listening = source in self._selector.get_map()
        if wanted and not is_listening:
            self._selector.register(source, selectors.EVENT_READ)
        elif is_listening and not wanted:
            self._selector.unregister(source)

    def _hand_out(self) -> None:
        while self._waiting:
            worker = next((worker for worker in self._workers.values() if worker.line is None), None)
            if worker is None:
                if len(self._workers) == self._size:
                    return
                worker = self._start()
            line = self._waiting.popleft()
            worker.line = line
            worker.began = time.monotonic()
            with contextlib.suppress(BrokenPipeError):
                _write(worker.requests, line + b"\n")

    def _hear(self, worker: Worker) -> None:
        chunk = os.read(worker.answers, CHUNK)
        worker.buffer += chunk
        if not chunk or len(worker.buffer) > MOST_BYTES:
            self._bury(worker)
        elif worker.buffer.endswith(b"\n"):
            _write(self._output, bytes(worker.buffer))
            self._repeated.discard(worker.line or b"")
            worker.buffer.clear()
            worker.line = None

    def _resume_busy(self) -> None:
        for worker in self._workers.values():
            with contextlib.suppress(ProcessLookupError):
                os.kill(worker.process, signal.SIGCONT)

    def _end_idle(self) -> None:
        for worker in [worker for worker in self._workers.values() if worker.line is None]:
            self._bury(worker)

    def _bury(self, worker: Worker) -> None:
        self._selector.unregister(worker.answers)
        del self._workers[worker.answers]
        os.close(worker.requests)
        os.close(worker.answers)
        with contextlib.suppress(ProcessLookupError):
            os.kill(worker.process, signal.SIGKILL)
        os.waitpid(worker.process, 0)
        process_tree.end_all_but({other.process for other in self._workers.values()}, GRACE_SECONDS)
        line = worker.line
        if line is None:
            return
        if line not in self._repeated and time.monotonic() - worker.began < REPEAT_SECONDS:
            self._repeated.add(line)
            self._waiting.appendleft(line)
            return
        self._repeated.discard(line)
        _write(self._output, _encoded(_verdict(line, "importing the file ends the process that imports it")))

    def _start(self) -> Worker:
        request_reader, request_writer = os.pipe()
        answer_reader, answer_writer = os.pipe()
        parent = os.getpid()
        process = os.fork()
        if process == 0:
            self._work(parent, request_reader, answer_writer)
        os.close(request_reader)
        os.close(answer_writer)
        worker = Worker(process, request_writer, answer_reader)
        self._workers[answer_reader] = worker
        self._selector.register(answer_reader, selectors.EVENT_READ)
        return worker

    def _work(self, parent: int, requests: int, answers: int) -> NoReturn:
        """The life of a worker. What is the parent's is not this process's to clean up."""
        try:
            signal.signal(signal.SIGTERM, _leave)
            process_tree.die_with_parent(parent, signal.SIGTERM)
            gc.freeze()
            self._selector.close()
            for other in self._workers.values():
                os.close(other.requests)
                os.close(other.answers)
            null = os.open(os.devnull, os.O_RDONLY)
            os.dup2(null, 0)
            os.close(self._output)
            with os.fdopen(requests, encoding="utf-8", errors="replace") as lines:
                for line in lines:
                    _write(answers, self._answered(line))
        except BrokenPipeError:
            pass
        finally:
            os._exit(0)

    def _answered(self, line: str) -> bytes:
        """The answer to a request, whatever comes of it: without one, its sender would wait for ever."""
        try:
            return _encoded(self._answer(line))
        except Exception as error:
            return _encoded(_verdict(line.encode(), f"the file cannot be checked: {type(error).__name__}: {error}"))


def _leave(number: int, frame: Any) -> NoReturn:
    raise SystemExit(128 + number)


def _write(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _encoded(answer: dict[str, Any]) -> bytes:
    """A line of JSON. Raises ValueError and TypeError for what JSON does not have."""
    return json.dumps(answer, ensure_ascii=False, allow_nan=False).encode("utf-8", NO_SURROGATES) + b"\n"


def _spell_out(error: UnicodeError) -> tuple[str, int]:
    """Characters that UTF-8 does not have as text that says which they were: a backslash of JSON, and their number."""
    assert isinstance(error, UnicodeEncodeError)
    found = error.object[error.start : error.end]
    return "".join(f"\\\\u{ord(character):04x}" for character in found), error.end


NO_SURROGATES = "airflow_serverless.no_surrogates"
codecs.register_error(NO_SURROGATES, _spell_out)


def _verdict(line: bytes, message: str) -> dict[str, Any]:
    """The answer for a file that cannot be imported for this reason."""
    try:
        request = json.loads(line)
        path = str(request["path"])
    except (ValueError, KeyError, TypeError):
        return {"error": message}
    error = {"file": Path(path).name, "line": None, "message": message, "traceback": message}
    answer = {"path": path, "dags": [], "import_errors": [error], "warnings": [], "seconds": 0.0}
    return answer | ({"id": request["id"]} if "id" in request else {})
