"""Much at once, and a server that is killed again and again meanwhile: nothing is lost, mixed up or made up."""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from local_modal import APPS, LocalModal

KILLS = 20


@pytest.fixture(params=["bind", "strict"])
def mode(request: pytest.FixtureRequest) -> str:
    """What containers see of Volumes."""
    return str(request.param)


@pytest.fixture(scope="module")
def loaded() -> Iterator[LocalModal]:
    server = LocalModal()
    server.start()
    deploy(server)
    yield server
    server.close()


def deploy(server: LocalModal) -> None:
    deployed = server.deploy(APPS / "load_app.py")
    assert deployed.returncode == 0, deployed.stdout + deployed.stderr


def test_large_map_keeps_order_and_exceptions(loaded: LocalModal) -> None:
    script = """
    check = modal.Function.from_name("load", "check")
    found = list(check.map(range(2000), return_exceptions=True, wrap_returned_exceptions=False))
    answer([str(f) if isinstance(f, ValueError) else f for f in found])
    """
    assert loaded.sdk(script) == [f"not {n}" if n % 100 == 7 else n for n in range(2000)]


def test_canceled_calls_do_not_affect_others(loaded: LocalModal) -> None:
    script = """
    import asyncio
    function = modal.Function.from_name("load", "when_told")
    notes = modal.Dict.from_name("load-notes", create_if_missing=True)
    async def ask():
        await function.hydrate.aio()
        calls = await asyncio.gather(*(function.spawn.aio(n) for n in range(300)))
        await asyncio.gather(*(call.cancel.aio() for call in calls[::3]))
        await notes.put.aio("go", True)
        return await asyncio.gather(*(call.get.aio(timeout=60) for call in calls), return_exceptions=True)
    found = asyncio.run(ask())
    answer([type(f).__name__ if isinstance(f, BaseException) else f for f in found])
    """
    found = loaded.sdk(script)
    # What runs in the two containers is told to end, and may have come to its own end before.
    ended = [n for n in range(0, 300, 3) if found[n] != "RemoteError"]
    assert len(ended) <= 2
    assert [found[n] for n in ended] == ended
    assert [f for n, f in enumerate(found) if n % 3] == [n for n in range(300) if n % 3]


CLIENTS = """
import io, threading
from pathlib import Path

kept = modal.Function.from_name("load", "keep")
entries = modal.Dict.from_name("load-entries", create_if_missing=True)
queue = modal.Queue.from_name("load-queue", create_if_missing=True)
files = modal.Volume.from_name("load-files", create_if_missing=True)

def upload(n):
    with files.batch_upload() as batch:
        batch.put_file(io.BytesIO(f"file {n}".encode()), f"/{n % 7}/{n}")

requests = {"calls": lambda n: kept.spawn(n).object_id, "entries": lambda n: entries.put(f"entry-{n}", n),
            "items": queue.put, "files": upload}
done = {kind: {} for kind in requests}
asked = dict.fromkeys(requests, 0)
failures = {}

def go_on(kind):
    # One after the other, and each once: what the SDK does not get acknowledged may have been done or not.
    while not Path(os.environ["ENOUGH"]).exists():
        n = asked[kind]
        asked[kind] += 1
        try:
            done[kind][n] = requests[kind](n)
        except Exception as error:
            failures[kind] = repr(error)
        time.sleep(0.03)

threads = [threading.Thread(target=go_on, args=[kind]) for kind in requests]
for thread in threads: thread.start()
for thread in threads: thread.join()
answer([done, asked, failures])
"""
FOUND = """
calls, queue = json.loads(os.environ["CALLS"]), modal.Queue.from_name("load-queue")
results = [modal.FunctionCall.from_id(id).get(timeout=60) for id in calls]
notes, entries = modal.Dict.from_name("load-notes"), modal.Dict.from_name("load-entries")
def contents(name):
    volume = modal.Volume.from_name(name)
    files = [e.path for e in volume.listdir("/", recursive=True) if e.type == modal.volume.FileEntryType.FILE]
    return {path: b"".join(volume.read_file(path)).decode() for path in files}
answer({"results": results, "entries": dict(entries.items()), "items": queue.get_many(100_000, block=False),
        "files": contents("load-files"), "kept": contents("load-volume"), "notes": list(notes.keys())})
"""


def test_acknowledged_writes_survive_repeated_kills(local_modal: LocalModal, mode: str) -> None:
    seed = int(os.environ.get("LOAD_SEED", random.randrange(1 << 32)))
    print(f"LOAD_SEED={seed}")
    local_modal.stop()
    local_modal.start("--volumes", mode)
    deploy(local_modal)
    enough = local_modal.root / "enough"
    clients = local_modal.begin_sdk(CLIENTS, ENOUGH=str(enough))
    kill_again_and_again(local_modal, mode, random.Random(seed))
    enough.touch()
    answers, _ = clients.communicate(timeout=60)
    assert clients.returncode == 0
    done, asked, failures = json.loads(answers.rpartition("\x1e")[2])
    assert all(done.values()), f"something was never acknowledged: {failures}"

    found = local_modal.sdk(FOUND, CALLS=json.dumps(list(done["calls"].values())))
    numbers = {kind: [int(n) for n in numbers] for kind, numbers in done.items()}
    assert found["results"] == numbers["calls"]
    assert_all_there(numbers["entries"], asked["entries"], found["entries"], lambda n: (f"entry-{n}", n))
    assert_all_there(numbers["files"], asked["files"], found["files"], lambda n: (f"{n % 7}/{n}", f"file {n}"))
    assert_all_there(numbers["calls"], asked["calls"], found["kept"], lambda n: (f"kept-{n}", f"kept {n}"))
    assert_all_there(numbers["items"], asked["items"], dict.fromkeys(found["items"]), lambda n: (n, None))
    assert found["items"] == sorted(set(found["items"])), "items are out of order, or there twice"
    assert not [note for note in found["notes"] if note.startswith("overlap")], "a call ran twice at a time"
    assert len(numbers["calls"]) <= count_calls(local_modal.data) <= asked["calls"], "a request made two calls"


def assert_all_there(
    done: list[int], asked: int, found: dict[Any, Any], form: Callable[[int], tuple[object, object]]
) -> None:
    """Everything acknowledged is found, and nothing that was not asked for."""
    assert dict(map(form, done)).items() <= found.items() <= dict(map(form, range(asked))).items()


def kill_again_and_again(server: LocalModal, mode: str, chance: random.Random) -> None:
    for _ in range(KILLS):
        time.sleep(chance.uniform(0.0, 0.9))
        server.stop(signal.SIGKILL)
        if chance.random() < 0.25:
            # One that is not ready yet.
            server.process = server.popen("--volumes", mode)
            time.sleep(chance.uniform(0.0, 0.1))
            server.stop(signal.SIGKILL)
        server.start("--volumes", mode)


def count_calls(data: Path) -> int:
    with sqlite3.connect(data / "state.db") as database:
        (calls,) = database.execute("SELECT count(*) FROM record WHERE kind = 'call'").fetchone()
    return int(calls)
