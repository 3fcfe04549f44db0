"""An app whose inputs are run twice: the first run of the second input of each map fails or ends its container."""

import os
import signal
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
