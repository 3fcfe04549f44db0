"""What a client was told stays: over kills of the server under load, and over deployments."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any

import pytest

from local_modal import LocalModal

APP = """
import json, os, time
from pathlib import Path
import modal

app = modal.App("durable")
volume = modal.Volume.from_name("durable-volume", create_if_missing=True)
given = modal.Secret.from_name("durable-secret")
VERSION = {version}

@app.function(volumes={{"/data": volume}}, max_containers=2)
def store(n: int) -> int:
    folder = json.loads(os.environ.get("MODAL_LOCAL_VOLUMES", "{{}}")).get("/data", "/data")
    Path(folder, f"stored-{{n}}").write_text(str(n))
    volume.commit()
    return n

@app.function(secrets=[given], max_containers=2)
def work(n: int, seconds: float = 0.1) -> list:
    time.sleep(seconds)
    return [n, VERSION, os.environ["GIVEN"]]
"""
# Writes for as long as it is allowed to, notes what was acknowledged, and goes on after failures.
LOAD = """
import io, threading
volume = modal.Volume.from_name("durable-volume", create_if_missing=True)
notes = modal.Dict.from_name("durable-notes", create_if_missing=True)
queue = modal.Queue.from_name("durable-queue", create_if_missing=True)
store = modal.Function.from_name("durable", "store")

def upload(n):
    with volume.batch_upload() as batch: batch.put_file(io.BytesIO(str(n).encode()), f"/uploaded-{n}")

kinds = {"note": lambda n: notes.put(f"note-{n}", n), "item": queue.put, "file": upload, "call": store.remote}
kept = {kind: [] for kind in kinds}

def insist(kind):
    for n in range(10_000):
        if os.path.exists(STOP): return
        try: kinds[kind](n)
        except Exception: time.sleep(0.05)
        else: kept[kind].append(n)

threads = [threading.Thread(target=insist, args=[kind]) for kind in kinds]
for thread in threads: thread.start()
for thread in threads: thread.join()
answer(kept)
"""
CHECK = """
volume, queue = modal.Volume.from_name("durable-volume"), modal.Queue.from_name("durable-queue")
notes = dict(modal.Dict.from_name("durable-notes").items())
files = {entry.path for entry in volume.listdir("/")}
items = queue.get_many(10_000)
read = lambda name: b"".join(volume.read_file(name)).decode()
answer({
    "note": [n for n in kept["note"] if notes.get(f"note-{n}") != n],
    "item": sorted(set(kept["item"]) - set(items)),
    "file": [n for n in kept["file"] if f"uploaded-{n}" not in files or read(f"uploaded-{n}") != str(n)],
    "call": [n for n in kept["call"] if f"stored-{n}" not in files],
})
"""


def deploy(server: LocalModal, version: int) -> None:
    path = server.root / "durable.py"
    path.write_text(APP.format(version=version))
    done = server.deploy(path)
    assert done.returncode == 0, done.stdout + done.stderr


def create_secret(server: LocalModal) -> None:
    done = server.modal("secret", "create", "durable-secret", "GIVEN=kept")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("mode", ["bind", "strict"])
def test_acknowledged_writes_survive_kills(local_modal: LocalModal, mode: str) -> None:
    local_modal.stop()
    local_modal.start("--volumes", mode)
    create_secret(local_modal)
    deploy(local_modal, 1)
    stop = local_modal.root / "stop"
    with ThreadPoolExecutor() as pool:
        client = pool.submit(local_modal.sdk, f"STOP = {str(stop)!r}\n{LOAD}")
        try:
            # Long enough in between for something to be acknowledged, and not always the same.
            for n in range(4):
                wait([client], timeout=2.0 + 0.37 * n)
                local_modal.stop(signal.SIGKILL)
                local_modal.start("--volumes", mode)
            wait([client], timeout=3.0)
        finally:
            stop.touch()
        kept = client.result()
    assert all(kept.values()), "each kind was acknowledged at least once"
    assert local_modal.sdk(f"kept = json.loads({json.dumps(kept)!r})\n{CHECK}") == {kind: [] for kind in kept}
    # The Secret and the app are as they were.
    assert local_modal.sdk('answer(modal.Function.from_name("durable", "work").remote(1))') == [1, 1, "kept"]


def scrambled(content: bytes) -> bytes:
    return content[:4096] + b"\xff" * (len(content) - 4096)


@pytest.mark.parametrize("damage", [lambda content: b"no database at all" * 9, scrambled], ids=["text", "scrambled"])
def test_damaged_database_is_reported_with_a_hint(local_modal: LocalModal, damage: Callable[[bytes], bytes]) -> None:
    local_modal.sdk("""
    with modal.Volume.from_name("kept", create_if_missing=True).batch_upload() as batch:
        import io
        batch.put_file(io.BytesIO(b"content"), "/file")
    """)
    local_modal.stop()
    database = local_modal.data / "state.db"
    database.write_bytes(damage(database.read_bytes()))
    process = local_modal.popen()
    assert process.wait(60) != 0
    told = local_modal.log.read_text().splitlines()[-1]
    for words in (f"the database {database} is damaged", "move it away", f"stay in {local_modal.data / 'volumes'}"):
        assert words in told, told
    for path in local_modal.data.glob("state.db*"):
        path.rename(path.with_name(f"moved-{path.name}"))
    local_modal.start()
    assert [path.read_bytes() for path in local_modal.data.glob("volumes/*/file")] == [b"content"]


def test_redeployment_loses_no_inputs_and_runs_new_code(local_modal: LocalModal) -> None:
    create_secret(local_modal)
    deploy(local_modal, 1)
    script = """
    work = modal.Function.from_name("durable", "work")
    answer([work.spawn(n, 0.3).object_id for n in range(60)])
    """
    calls = local_modal.sdk(script)

    def results(ids: list[str]) -> Any:
        return local_modal.sdk(f"answer([modal.FunctionCall.from_id(id).get(timeout=80) for id in {ids!r}])")

    results(calls[:1])
    for version in (2, 3):
        deploy(local_modal, version)
        new = local_modal.sdk('answer(modal.Function.from_name("durable", "work").spawn(0, 0.0).object_id)')
        calls.append(new)
    found = results(calls)
    assert [n for n, _, _ in found] == [*range(60), 0, 0]
    assert found[0][1] == 1 and found[-1][1] == 3, "what is asked of the new version is done by it"
    versions = [version for _, version, _ in found[:60]]
    assert set(versions) <= {1, 2, 3} and versions[0] == 1
