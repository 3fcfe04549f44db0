"""An app whose inputs are run twice: the first run of the second input of each map fails or ends its container.

And functions that run several inputs at once, of which one is canceled.
"""

import asyncio
import os
import signal
import threading
import time
from collections.abc import AsyncIterator, Iterator

import modal

app = modal.App("reruns")
notes = modal.Dict.from_name("reruns-notes", create_if_missing=True)
retries = modal.Retries(max_retries=2, initial_delay=0.0, backoff_coefficient=1.0)


def disturb(row: str, n: int, how: str) -> None:
    """Fails, or ends the process, at the first call for the second input of a row."""
    if n == 1 and notes.put(f"{row}-disturbed", True, skip_if_exists=True):
        if how == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        raise ValueError(how)


def work(row: str, n: int, how: str) -> int:
    disturb(row, n, how)
    notes.put(f"{row}-{n}", n * 10)
    return n * 10


@app.function(retries=retries, max_containers=2)
def plain(row: str, n: int, how: str) -> int:
    return work(row, n, how)


@app.function(retries=retries, max_containers=2, single_use_containers=True)
def single_use(row: str, n: int, how: str) -> int:
    return work(row, n, how)


@app.function(retries=retries, max_containers=2)
@modal.concurrent(max_inputs=3)
def threads(row: str, n: int, how: str) -> int:
    return work(row, n, how)


@app.function(retries=retries, max_containers=2)
@modal.concurrent(max_inputs=3)
async def tasks(row: str, n: int, how: str) -> int:
    return work(row, n, how)


@app.function(retries=retries, max_containers=2)
@modal.batched(max_batch_size=2, wait_ms=100)
def batches(row: list[str], n: list[int], how: list[str]) -> list[int]:
    return [work(*arguments) for arguments in zip(row, n, how, strict=True)]


@app.cls(retries=retries, max_containers=2)
class Plain:
    size: int = modal.parameter(default=10)

    @modal.method()
    def method(self, row: str, n: int, how: str) -> int:
        return work(row, n, how)


@app.cls(max_containers=2)
@modal.concurrent(max_inputs=2)
class Concurrent:
    @modal.method()
    def method(self, row: str, n: int, how: str) -> int:
        return work(row, n, how)

    @modal.method()
    def values(self, row: str, count: int, how: str) -> Iterator[int]:
        for n in range(count):
            disturb(row, n, how)
            yield n * 10


@app.function(max_containers=2)
def values(row: str, count: int, how: str) -> Iterator[int]:
    for n in range(count):
        disturb(row, n, how)
        yield n * 10


@app.function(max_containers=2)
@modal.concurrent(max_inputs=2)
async def async_values(row: str, count: int, how: str) -> AsyncIterator[int]:
    for n in range(count):
        disturb(row, n, how)
        yield n * 10


@app.function(retries=modal.Retries(max_retries=1, initial_delay=0.0), max_containers=2)
def hopeless(n: int) -> int:
    if n == 1:
        raise ValueError(f"always {n}")
    return n * 10


def begin(name: str) -> None:
    notes[f"{name}-runs"] = [*notes.get(f"{name}-runs", []), os.getpid()]


def may_end(name: str) -> bool:
    return bool(notes.get(f"{name}-may-end"))


@app.function(max_containers=1)
@modal.concurrent(max_inputs=2)
def loops(name: str) -> str:
    begin(name)
    while not may_end(name):
        time.sleep(0.05)
    return name


@app.function(max_containers=1)
@modal.concurrent(max_inputs=2)
def blocks(name: str) -> str:
    """Waits where no exception reaches it, unless it may end."""
    begin(name)
    if "canceled" in name:
        threading.Event().wait(300)
    while not may_end(name):
        time.sleep(0.05)
    return name


@app.function(max_containers=1)
@modal.concurrent(max_inputs=2)
async def awaits(name: str) -> str:
    begin(name)
    while not may_end(name):
        await asyncio.sleep(0.05)
    return name


@app.function(max_containers=1)
@modal.batched(max_batch_size=2, wait_ms=4_000)
def batch_waits(name: list[str]) -> list[str]:
    for one in name:
        begin(one)
    while not all(may_end(one) for one in name):
        time.sleep(0.05)
    return name
