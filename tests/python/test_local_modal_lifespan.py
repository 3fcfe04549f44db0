"""When containers begin and end, and when what failed is tried again; with Volumes seen in both ways."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from local_modal import APPS, LocalModal, wait_until

PRELUDE = """
def fn(name): return modal.Function.from_name("lifespan", name)
def visitor(): return modal.Cls.from_name("lifespan", "Visitor")()
notes = modal.Dict.from_name("lifespan-notes")
volume = modal.Volume.from_name("lifespan-volume")
"""


@pytest.fixture(scope="module", params=["bind", "strict"])
def mode(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def server(mode: str) -> Iterator[LocalModal]:
    yield from deployed(mode)


@pytest.fixture(scope="module")
def plain() -> Iterator[LocalModal]:
    """A server for what has nothing to do with Volumes."""
    yield from deployed("bind")


def deployed(mode: str) -> Iterator[LocalModal]:
    server = LocalModal()
    server.start("--volumes", mode)
    done = server.deploy(APPS / "lifespan_app.py")
    assert done.returncode == 0, done.stdout + done.stderr
    yield server
    server.close()


def run(server: LocalModal, script: str) -> Any:
    return server.sdk(PRELUDE + textwrap.dedent(script))


def recorded_visits(server: LocalModal, pid: int) -> list[Any]:
    """What a Visitor left behind: in the Dict, and on the Volume."""
    return run(
        server,
        f"""
        names = [entry.path for entry in volume.listdir("/")]
        left = b"".join(volume.read_file("left-{pid}")).decode() if "left-{pid}" in names else None
        answer([notes.get("left-{pid}"), left])
        """,
    )


def test_failures_are_retried_after_their_delays(plain: LocalModal) -> None:
    script = """
    try: fn("flaky").remote("delayed")
    except ValueError as error: said = str(error)
    first, second, third = notes["delayed"]
    answer([said, second - first, third - second, fn("flaky_at_first").remote("default"),
            fn("slow_at_first").remote("slow"), failure(lambda: fn("always_slow").remote("slower")), notes["slower"]])
    """
    said, one, two, default, slow, too_slow, tries = run(plain, script)
    assert said == "attempt 3"
    assert one >= 1.0 and two >= 2.0
    assert (default, slow, too_slow, tries) == (2, 2, "FunctionTimeoutError", 2)


def test_startup_timeout_fails_the_call(plain: LocalModal) -> None:
    script = """
    begin = time.monotonic()
    try: modal.Cls.from_name("lifespan", "Late")().visit.remote()
    except Exception as error: answer([str(error), time.monotonic() - begin])
    """
    said, seconds = run(plain, script)
    assert "did not get ready within the 2 s" in said
    assert seconds < 60, "not its 60 s, three times over"


def test_warm_container_stays_and_single_use_containers_end(plain: LocalModal) -> None:
    def warm() -> int:
        return run(plain, 'answer(fn("warm").get_current_stats().num_total_runners)')

    wait_until(lambda: warm() == 1, "a container before any call")
    one, again, *single = run(plain, 'answer([fn(n).remote() for n in ("warm", "warm", "once", "once", "once")])')
    assert one == again
    assert len(set(single)) == 3
    assert one in plain.containers()
    wait_until(lambda: not set(single) & set(plain.containers()), "containers of one input to end")


def test_open_files_are_flushed_when_a_process_ends(plain: LocalModal) -> None:
    path = plain.root / "book"
    run(plain, f'fn("leaves_it_to_the_end").remote({str(path)!r})')
    assert path.read_text() == ""
    wait_until(lambda: path.read_text() == "written", "the file to be written at the end")
    assert path.with_suffix(".registered").exists()


FROZEN = """
import gc, modal
app = modal.App("frozen")
ledger = open({path!r}, "a") if not modal.is_local() else None
gc.freeze()

@app.function(enable_memory_snapshot=True, scaledown_window=2)
def writes():
    ledger.write("written")
    return gc.get_freeze_count()
"""


def test_files_of_frozen_imports_are_flushed_when_a_process_ends(plain: LocalModal, tmp_path: Path) -> None:
    """A module may freeze what it has imported; the files that it has opened are written by each fork all the same."""
    ledger = tmp_path / "ledger"
    (tmp_path / "frozen.py").write_text(FROZEN.format(path=str(ledger)))
    done = plain.deploy(tmp_path / "frozen.py")
    assert done.returncode == 0, done.stdout + done.stderr
    assert plain.sdk('answer(modal.Function.from_name("frozen", "writes").remote())') > 0
    wait_until(lambda: ledger.read_text() == "written", "the file to be written at the end")


def test_exit_handlers_run_after_the_scaledown_window(server: LocalModal) -> None:
    pid = run(server, "answer([visitor().visit.remote() for _ in range(2)][-1])")
    assert wait_until(lambda: (told := recorded_visits(server, pid))[0] and told[1] and told, "the exit") == [2, "2"]
    wait_until(lambda: pid not in server.containers(), "the end of the container")


def test_exit_handlers_run_when_containers_are_stopped(server: LocalModal, mode: str) -> None:
    script = """
    call = visitor().visit.spawn(0.0)
    answer(call.get(timeout=60))
    """
    pid = run(server, script)
    listed = server.modal("container", "list", "--json")
    assert listed.returncode == 0, listed.stderr
    # The server's own end: everything that containers say on their way out is kept.
    server.stop()
    assert pid not in server.containers()
    server.start("--volumes", mode)
    assert recorded_visits(server, pid) == [1, "1"]


def test_stopping_an_app_runs_exit_handlers(server: LocalModal) -> None:
    pid = run(server, "answer(visitor().visit.remote())")
    assert server.modal("app", "stop", "--yes", "lifespan").returncode == 0
    assert wait_until(lambda: (told := recorded_visits(server, pid))[0] and told[1] and told, "the exit") == [1, "1"]
    wait_until(lambda: not server.containers(), "all containers to end, the warm one too")
