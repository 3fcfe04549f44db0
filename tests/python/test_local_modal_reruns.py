"""Inputs that run more than once: each has one result, whatever ran it, however it was called. And inputs that must not
run more than once because another one was canceled."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from local_modal import APPS, LocalModal

FUNCTIONS = ["plain", "single_use", "threads", "tasks", "batches", "Plain.method"]
CALLS = ["starmap", "unordered", "for_each", "spawn", "remote", "spawn_map"]
GENERATORS = ["values", "async_values", "Concurrent.values"]
ROWS = [
    *((name, how, "map") for name in FUNCTIONS for how in ("fails", "killed")),
    ("Concurrent.method", "killed", "map"),
    *(("plain", how, call) for call in CALLS for how in ("fails", "killed")),
    *((name, "killed", "generator") for name in GENERATORS),
    ("hopeless", "fails", "return_exceptions"),
]

# All rows at once, as most of them wait for the start of a container. One that hangs has no result.
SCRIPT = """
import threading

notes = modal.Dict.from_name("reruns-notes")
results = {}

def named(name):
    cls, _, method = name.rpartition(".")
    return getattr(modal.Cls.from_name("reruns", cls)(), method) if cls else modal.Function.from_name("reruns", name)

def call(row, name, how, call):
    function, inputs = named(name), [(row, n, how) for n in range(4)]
    if call == "generator":
        return list(function.remote_gen(row, 4, how))
    if call == "return_exceptions":
        return [str(value) for value in function.map(range(4), return_exceptions=True)]
    if call == "spawn":
        return [spawned.get() for spawned in [function.spawn(*arguments) for arguments in inputs]]
    if call == "remote":
        return [function.remote(*arguments) for arguments in inputs]
    if call == "starmap":
        return list(function.starmap(inputs))
    if call == "spawn_map":
        return list(function.experimental_spawn_map(*zip(*inputs)).iter())
    if call == "unordered":
        return sorted(function.map(*zip(*inputs), order_outputs=False))
    if call == "for_each":
        function.for_each(*zip(*inputs))
        return [notes.get(f"{row}-{n}") for n in range(4)]
    return list(function.map(*zip(*inputs)))

def run(row):
    try:
        results["/".join(row)] = call("/".join(row), *row)
    except Exception as error:
        results["/".join(row)] = repr(error)

threads = [threading.Thread(target=run, args=(row,), daemon=True) for row in ROWS]
for thread in threads: thread.start()
until = time.monotonic() + 75
for thread in threads: thread.join(max(0.0, until - time.monotonic()))
answer(results)
sys.stdout.flush()
os._exit(0)
"""


@pytest.fixture(scope="module")
def server() -> Iterator[LocalModal]:
    with LocalModal() as server:
        server.start()
        done = server.deploy(APPS / "rerun_app.py")
        assert done.returncode == 0, done.stdout + done.stderr
        yield server


@pytest.fixture(scope="module")
def results(server: LocalModal) -> Any:
    return server.sdk(f"ROWS = {ROWS!r}\n{SCRIPT}")


@pytest.mark.parametrize("row", ["/".join(row) for row in ROWS])
def test_each_input_has_one_result(results: dict[str, Any], row: str) -> None:
    expected: list[object] = [0, 10, 20, 30]
    if row.endswith("return_exceptions"):
        expected = ["0", "always 1", "20", "30"]
    assert results.get(row, "no result in time") == expected


CANCEL = """
notes = modal.Dict.from_name("reruns-notes", create_if_missing=True)

def wait_for(key):
    until = time.monotonic() + 60
    while not notes.get(key):
        assert time.monotonic() < until, key
        time.sleep(0.05)

function = modal.Function.from_name("reruns", NAME)
names = [f"{NAME}-canceled", f"{NAME}-stays"]
calls = [function.spawn(name) for name in names]
for name in names: wait_for(f"{name}-runs")
calls[0].cancel()
try:
    end = calls[0].get(timeout=60)
except Exception as error:
    end = str(error)
notes[f"{names[1]}-may-end"] = True
stayed = calls[1].get(timeout=60)
runs = [notes[f"{name}-runs"] for name in names]
again = [function.spawn(name) for name in (names[1], names[1])] if NAME == "loops" else []
answer([end, stayed == names[1], *runs, [call.get(timeout=60) for call in again]])
"""


@pytest.mark.parametrize("function", ["loops", "blocks", "awaits"])
def test_cancellation_of_a_concurrent_input_leaves_the_others_alone(server: LocalModal, function: str) -> None:
    end, stayed, canceled_runs, other_runs, later = server.sdk(f"NAME = {function!r}\n{CANCEL}")
    assert (end, stayed) == ("the call was cancelled", True)
    assert canceled_runs == other_runs and len(other_runs) == 1, "one container, and one run of each"
    assert later == (["loops-stays"] * 2 if function == "loops" else []), "both places are free again"


def test_rest_of_a_canceled_batch_runs_again(server: LocalModal) -> None:
    end, stayed, canceled_runs, other_runs, _ = server.sdk(f"NAME = 'batch_waits'\n{CANCEL}")
    assert (end, stayed) == ("the call was cancelled", True)
    assert (len(canceled_runs), len(other_runs)) == (1, 2)
