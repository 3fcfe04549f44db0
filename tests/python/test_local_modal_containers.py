"""Containers: their files, Volumes in both modes, snapshots and limits."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from local_modal import APPS, LocalModal, wait_until

PRELUDE = """
def fn(name): return modal.Function.from_name("containers", name)
def cls(name): return modal.Cls.from_name("containers", name)()
def outcome(action):
    try: return action()
    except Exception as error: return [type(error).__name__, str(error)]
"""


def deployed(mode: str) -> Iterator[LocalModal]:
    server = LocalModal()
    server.start("--volumes", mode)
    done = server.deploy(APPS / "containers_app.py")
    assert done.returncode == 0, done.stdout + done.stderr
    yield server
    server.close()


@pytest.fixture(scope="module", params=["bind", "strict"])
def either(request: pytest.FixtureRequest) -> Iterator[LocalModal]:
    """A server in each mode."""
    yield from deployed(request.param)


@pytest.fixture(scope="module")
def strict() -> Iterator[LocalModal]:
    """A server with strict Volumes."""
    yield from deployed("strict")


def run(server: LocalModal, script: str) -> object:
    return server.sdk(PRELUDE + textwrap.dedent(script))


def test_files_are_at_the_same_paths_as_on_modal(either: LocalModal) -> None:
    found = run(either, 'answer(fn("files").remote())')
    assert isinstance(found, dict)
    assert found.pop("user") == os.geteuid()
    if found["mounted"]:
        assert found == {
            "mounted": True,
            "cwd": "/root",
            "module": "/root/containers_app.py",
            "given": True,
            "private": True,
        }


def test_volumes_are_committed_and_reloaded(either: LocalModal) -> None:
    script = """
    one, two = cls("One"), cls("Two")
    two.read.remote("a")
    one.write.remote("a", "first")
    seen = [two.read.remote("a", reload=True)]
    one.write.remote("a", "second")
    seen.append(two.read.remote("a", reload=True))
    outside = modal.Volume.from_name("containers-volume")
    seen.append(b"".join(outside.read_file("a")).decode())
    outside.remove_file("a")
    seen.append(two.read.remote("a", reload=True))
    answer(seen)
    """
    assert run(either, script) == ["first", "second", "second", None]


def test_write_to_a_read_only_volume_fails(either: LocalModal) -> None:
    mounted = run(either, 'answer(fn("files").remote()["mounted"])')
    found = run(either, 'answer(fn("write_to_read_only").remote())')
    assert not mounted or found == "OSError30"


def test_containers_from_a_snapshot_share_one_import(either: LocalModal) -> None:
    script = """
    calls = [fn("from_snapshot").spawn(0.5) for _ in range(3)]
    answer([call.get() for call in calls])
    """
    found = run(either, script)
    assert isinstance(found, list)
    assert len({one["pid"] for one in found}) == len({one["task"] for one in found}) == 3
    assert len({one["imported_by"] for one in found}) == 1
    assert found[0]["imported_by"] not in {one["pid"] for one in found}
    assert {one["secret"] for one in found} == {"secret"}


def test_without_snapshots_each_container_imports_its_function(either: LocalModal) -> None:
    script = """
    calls = [fn("without_snapshot").spawn(0.5) for _ in range(3)]
    answer([call.get() for call in calls])
    """
    found = run(either, script)
    assert isinstance(found, list)
    assert len({one["pid"] for one in found}) == 3
    assert [one["imported_by"] for one in found] == [one["pid"] for one in found]
    # The SDK was imported once, and no state of that process is found in all of them.
    assert len({one["parent"] for one in found}) == 1
    for values in zip(*(one["chance"] for one in found), strict=True):
        assert len(set(values)) == 3, values


def test_functions_with_equal_imports_share_a_snapshot(either: LocalModal) -> None:
    script = 'answer([fn("from_snapshot").remote()["imported_by"], fn("sibling").remote(), *fn("stranger").remote()])'
    first, sibling, stranger, given = run(either, script)  # type: ignore[misc]
    assert first == sibling != stranger
    assert given == "other"


def test_containers_from_a_snapshot_see_volumes(either: LocalModal) -> None:
    script = """
    snapshot = cls("Snapshot")
    seen = [snapshot.write.remote("forked-1"), snapshot.write.remote("forked-2")]
    answer([*seen, [entry.path for entry in modal.Volume.from_name("containers-volume").listdir("/")]])
    """
    first, second, outside = run(either, script)  # type: ignore[misc]
    assert {"forked-1", "forked-2"} <= set(outside)
    assert "forked-1" in first and "forked-2" not in first
    assert {"forked-1", "forked-2"} <= set(second)


def test_signal_that_killed_a_forked_container_is_reported(either: LocalModal) -> None:
    script = """
    import containers_app
    with containers_app.app.run():
        answer(outcome(lambda: containers_app.fall.remote(9)))
    """
    _, message = run(either, script)  # type: ignore[misc]
    assert "killed by signal 9" in message


def test_container_above_its_memory_limit_is_killed(either: LocalModal) -> None:
    script = """
    import containers_app
    with containers_app.app.run():
        answer([containers_app.swell.remote(50), outcome(lambda: containers_app.swell.remote(600))])
    """
    fits, (name, message) = run(either, script)  # type: ignore[misc]
    assert fits == 50 << 20
    assert "memory limit of 256 MiB" in message, name


def test_deployed_input_is_retried_after_exhausted_memory(either: LocalModal) -> None:
    assert run(either, 'answer(fn("swell_at_first").remote("swollen", 3))') == 4
    assert (
        "exceeded its memory limit of 256 MiB while it ran this input"
        in either.modal("app", "logs", "containers").stdout
    )


def test_strict_volumes_show_only_committed_files(strict: LocalModal) -> None:
    script = """
    one, two = cls("One"), cls("Two")
    two.read.remote("b")
    one.write.remote("b", "uncommitted", commit=False)
    seen = [two.read.remote("b"), two.read.remote("b", reload=True)]
    one.write.remote("b", "committed")
    seen += [two.read.remote("b"), two.read.remote("b", reload=True)]
    seen.append(two.reload_with_open_file.remote("b"))
    seen.append(two.reload_with_process_inside.remote("inside"))
    seen.append(two.read.remote("b"))
    answer(seen)
    """
    *seen, refused, refused_inside, after = run(strict, script)  # type: ignore[misc]
    assert seen == [None, None, None, "committed"]
    assert "there are open files preventing the operation: path b is open in process" in refused
    assert "(sleep) works in the folder inside" in refused_inside
    assert after == "committed"


def test_strict_volumes_are_committed_in_the_background(strict: LocalModal) -> None:
    run(strict, 'cls("One").write.remote("c", "left alone", commit=False)')
    script = 'answer([entry.path for entry in modal.Volume.from_name("containers-volume").listdir("/")])'
    wait_until(lambda: "c" in strict.sdk(script), "the background commit")


def test_containers_inherit_index_and_proxy_variables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    certificates = tmp_path / "ca.pem"
    certificates.touch()
    given = {
        "SSL_CERT_FILE": str(certificates),
        "HTTPS_PROXY": "http://127.0.0.1:9",
        "no_proxy": "intern.example, 127.0.0.1",
        "PIP_INDEX_URL": "https://index.example/simple",
        "UV_EXTRA_INDEX_URL": "https://more.example/simple",
        "UV_INDEX_OURS_USERNAME": "joe",
        "UV_HTTP_TIMEOUT": "7",
    }
    others = {"UV_CACHE_DIR": str(tmp_path), "AWS_SECRET_ACCESS_KEY": "hunter2", "UV_PYTHON": "3.9"}
    for name, value in (given | others).items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("REQUESTS_CA_BUNDLE", raising=False)
    with LocalModal() as server:
        server.start()
        seen = server.sdk("""
        app = modal.App("net")
        @app.function(serialized=True, secrets=[modal.Secret.from_dict({"UV_HTTP_TIMEOUT": "9"})])
        def seen():
            import os
            return dict(os.environ)
        with app.run():
            answer(seen.remote())
        """)
    # What the app itself says counts; this machine is reached without a proxy.
    hosts = "intern.example,127.0.0.1,localhost,::1"
    expected = given | {"UV_HTTP_TIMEOUT": "9", "no_proxy": hosts, "NO_PROXY": hosts}
    expected |= {"UV_DEFAULT_INDEX": given["PIP_INDEX_URL"], "REQUESTS_CA_BUNDLE": str(certificates)}
    assert {name: seen.get(name) for name in expected} == expected
    assert not others.keys() & seen.keys()
