"""What Local Modal takes for what an app does all the time, with the real SDK and a native client: `make bench`.

Each figure is a median; machines are shared and noisy, so compare figures of one run only. Figures of a debug build say
little.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

from first_light import BIN, cpu_seconds, pss_megabytes, show

APP = Path(__file__).with_name("modal_local_app.py")
IDLE_SECONDS = 10.0
ROUNDS = 3
# Prints a JSON object of lists of seconds.
SDK = """
import asyncio, json, time, urllib.request
import modal

def timed(repeats, action):
    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        action()
        seconds.append(time.perf_counter() - started)
    return seconds

async def spawn_many(function):
    # What the SDK looks up once is not what is measured.
    await function.hydrate.aio()
    started = time.perf_counter()
    await asyncio.gather(*(function.spawn.aio(n) for n in range(1000)))
    seconds = time.perf_counter() - started
    # A queue is served in order: after this nothing is in the way of what is measured next.
    await function.remote.aio(1)
    return seconds

one, four, cold, forked = (modal.Function.from_name("bench", name) for name in ("one", "four", "cold", "forked"))
client = modal.Client.from_env()
urls = [modal.Function.from_name("bench", f"web_{n}").get_web_url() for n in range(3)]
fetch = lambda url: urllib.request.urlopen(url).read()
values, rows = modal.Function.from_name("bench", "values"), modal.Function.from_name("bench", "rows").get_web_url()
for function in (one, forked):
    function.remote(1)
list(values.remote_gen(1))
fetch(rows + "?1")
list(four.map(range(100)))

def without_server():
    # What the SDK takes to hand on as many values that it need not fetch.
    async def numbers(*_, **__):
        for n in range(10_000):
            yield n
    import modal._functions as functions
    stream, functions._stream_function_call_data = functions._stream_function_call_data, numbers
    try:
        return timed(ROUNDS, lambda: list(values.remote_gen(10_000)))
    finally:
        functions._stream_function_call_data = stream

print(json.dumps({
    "hello": timed(200, client.hello),
    "remote": timed(200, lambda: one.remote(1)),
    "map": timed(ROUNDS, lambda: list(four.map(range(1000)))),
    "cold": timed(5, lambda: cold.remote(1)),
    "forked": timed(5, lambda: forked.remote(1)),
    "web_cold": [seconds for url in urls for seconds in timed(1, lambda: fetch(url))],
    "web_warm": timed(100, lambda: fetch(urls[0])),
    "spawns": [asyncio.run(spawn_many(four)) for _ in range(ROUNDS)],
    "yielded": timed(ROUNDS, lambda: list(values.remote_gen(10_000))),
    "yielded_without_server": without_server(),
    "first_yielded": timed(20, lambda: list(values.remote_gen(1))),
    "rows": timed(ROUNDS, lambda: fetch(rows + "?10000")),
    "first_row": timed(20, lambda: fetch(rows + "?1")),
}))
""".replace("ROUNDS", str(ROUNDS))

# When this one is done, all are.
LAST = """
import modal
modal.Function.from_name("bench", "four").remote(1)
"""


class Server:
    """A server of its own in a temporary folder."""

    def __init__(self, folder: Path) -> None:
        command = [BIN / "modal-local", "serve", "--data-dir", folder, "--python", sys.executable]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        url = self.process.stdout.readline().strip().partition("=")[2]
        # On a socket any token does.
        token = {"MODAL_TOKEN_ID": "ak-local", "MODAL_TOKEN_SECRET": "as-local"}
        self.environment = {**os.environ, "MODAL_SERVER_URL": url, **token}

    def run(self, *command: str | Path) -> str:
        """What a client prints."""
        return subprocess.run(command, env=self.environment, check=True, stdout=subprocess.PIPE, text=True).stdout

    def idle(self, which: str) -> None:
        before = cpu_seconds(self.process.pid)
        time.sleep(IDLE_SECONDS)
        used = cpu_seconds(self.process.pid) - before
        show(f"{which}: CPU of a core", 100 * used / IDLE_SECONDS, "%")
        show(f"{which}: memory (PSS)", pss_megabytes(self.process.pid), "MB")

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait()


def show_sdk(seconds: dict[str, list[float]]) -> None:
    floor, remote = median(seconds["hello"]), median(seconds["remote"])
    show("SDK: ClientHello, the SDK's own floor", 1000 * floor, "ms")
    show("SDK: warm remote()", 1000 * remote, "ms")
    show("SDK: warm remote(), in floors", remote / floor, "x")
    show("SDK: map of 1,000 inputs over 4 containers", 1000 / median(seconds["map"]), "inputs/s")
    show("SDK: 1,000 spawns at once, accepted", median(seconds["spawns"]), "s")
    show("SDK: remote() with a cold container", 1000 * median(seconds["cold"]), "ms")
    show("SDK: remote() with a container of a fork server", 1000 * median(seconds["forked"]), "ms")
    show("web request, cold", 1000 * median(seconds["web_cold"]), "ms")
    show("web request, warm", 1000 * median(seconds["web_warm"]), "ms")
    yielded, without_server = median(seconds["yielded"]), median(seconds["yielded_without_server"])
    show("SDK: generator of 10,000 values", yielded, "s")
    show("the same, in what the SDK takes without a server", yielded / without_server, "x")
    show("SDK: generator of one value", 1000 * median(seconds["first_yielded"]), "ms")
    show("WSGI stream of 10,000 rows", median(seconds["rows"]), "s")
    show("WSGI stream of one row", 1000 * median(seconds["first_row"]), "ms")


def show_native(runs: list[dict[str, float]]) -> None:
    def middle(name: str) -> float:
        return median(run[name] for run in runs)

    show("native: 1,000 spawns, 32 at a time, accepted", middle("spawns"), "s")
    show("native: Dict get, 32 at a time", 1000 / middle("gets"), "/s")
    show("native: Dict put, 32 at a time", 1000 / middle("puts"), "/s")
    show("native: upload of 1,000 small files", middle("upload"), "s")
    floor = median(files_made() for _ in range(ROUNDS))
    show("the same, in what this disk takes to make 1,000 files", middle("upload") / floor, "x")


def files_made() -> float:
    """Seconds to write 1,000 small files where servers have theirs: what a disk can do differs a lot."""
    with tempfile.TemporaryDirectory(prefix="lmb-") as folder:
        started = time.perf_counter()
        for n in range(1000):
            partial = Path(folder, f"{n}.partial")
            partial.write_bytes(b"x" * 1000)
            partial.rename(Path(folder, str(n)))
        return time.perf_counter() - started


def native(server: Server) -> dict[str, float]:
    seconds: dict[str, float] = json.loads(server.run(BIN / "examples" / "load", "bench", "four"))
    server.run(sys.executable, "-c", LAST)
    return seconds


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="lmb-") as folder:
        server = Server(Path(folder))
        try:
            server.idle("Local Modal, idle")
            server.run(sys.executable, "-m", "modal", "deploy", APP)
            measured: dict[str, Any] = json.loads(server.run(sys.executable, "-c", SDK))
            show_sdk(measured)
            show_native([native(server) for _ in range(ROUNDS)])
            server.idle("Local Modal, after all this")
        finally:
            server.stop()


if __name__ == "__main__":
    main()
