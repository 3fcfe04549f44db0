"""The app that `local_modal.py` measures with: functions that do nothing, each started in its own way."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import modal

app = modal.App("bench")


@app.function(max_containers=1)
def one(x: int) -> int:
    return x


@app.function(max_containers=4)
def four(x: int) -> int:
    return x


@app.function(single_use_containers=True)
def cold(x: int) -> int:
    return x


@app.function(single_use_containers=True, enable_memory_snapshot=True)
def forked(x: int) -> int:
    return x


@app.function()
def values(count: int) -> Iterator[int]:
    yield from range(count)


@app.function()
@modal.wsgi_app()
def rows() -> Any:
    def respond(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterator[bytes]:
        start_response("200 OK", [("content-type", "text/plain")])
        for n in range(int(environ["QUERY_STRING"])):
            yield b"row %d\n" % n

    return respond


def answer(_environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    start_response("200 OK", [("content-type", "text/plain")])
    return [b"ok"]


# One for each cold request that is measured.


@app.function()
@modal.wsgi_app()
def web_0() -> Any:
    return answer


@app.function()
@modal.wsgi_app()
def web_1() -> Any:
    return answer


@app.function()
@modal.wsgi_app()
def web_2() -> Any:
    return answer
