"""An app whose functions yield."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator

import modal

app = modal.App("streams")
notes = modal.Dict.from_name("stream-notes", create_if_missing=True)
image = modal.Image.debian_slim()


class OddError(Exception):
    pass


@app.function(image=image)
def count(n: int, fail_at: int = -1) -> Iterator[int]:
    for value in range(n):
        if value == fail_at:
            raise OddError(f"at {value}")
        yield value


@app.function(image=image)
async def count_slowly(n: int, pause: float) -> AsyncIterator[int]:
    for value in range(n):
        yield value
        await asyncio.sleep(pause)


@app.function(image=image)
def blocks(count: int, size: int) -> Iterator[bytes]:
    for value in range(count):
        yield bytes([value % 256]) * size


@app.function(image=image, max_containers=1)
def unread(marker: str) -> Iterator[bytes]:
    for value in range(4_000):
        # A request for each would cost more than the data.
        if value % 32 == 0:
            notes[marker] = value
        yield b"x" * (128 << 10)


@app.function(image=image)
def step(marker: str, n: int) -> Iterator[int]:
    """Yields a value, and goes on when the note says so."""
    for value in range(n):
        yield value
        until = time.monotonic() + 60
        while notes.get(marker, -1) < value:
            assert time.monotonic() < until
            time.sleep(0.02)


@app.function(image=image)
def sum_up(n: int) -> int:
    return sum(count.remote_gen(n))


@app.function(image=image)
async def sum_up_async(n: int) -> int:
    total = 0
    async for value in count_slowly.remote_gen.aio(n, 0.0):
        total += value
    return total


@app.cls(image=image)
class Counter:
    @modal.enter()
    def begin(self) -> None:
        self.start = 100

    @modal.method()
    def upwards(self, n: int) -> Iterator[int]:
        yield from range(self.start, self.start + n)
