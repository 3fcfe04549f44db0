"""Volumes of both versions on Local Modal, with the real SDK and its command line."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
from pathlib import Path

import pytest

from local_modal import LocalModal, wait_until

TREE = ["tree", "tree/one", "tree/sub", "tree/sub/two"]
USE = """
import hashlib, io
v = modal.Volume.from_name(f"v{version}", create_if_missing=True, version=version)
def read(path): return b"".join(v.read_file(path))
def put(path, data, force=False):
    with v.batch_upload(force=force) as batch: batch.put_file(io.BytesIO(data), path)
zeros = bytes(8 << 20) + b"end" + bytes(9 << 20)
with v.batch_upload() as batch:
    batch.put_directory(folder, "/tree")
    batch.put_file(large, "large.bin")
    batch.put_file(io.BytesIO(zeros), "zeros")
    batch.put_file(io.BytesIO(b""), "/deep/er/empty", mode=0o755)
target = io.BytesIO()
size = v.read_file_into_fileobj("large.bin", target)
found = {
    "all": sorted(e.path for e in v.listdir("/", recursive=True)),
    "top": [e.path for e in v.iterdir("/", recursive=False)],
    "large": [hashlib.sha256(read("large.bin")).hexdigest(), hashlib.sha256(target.getvalue()).hexdigest(), size],
    "zeros": read("zeros") == zeros, "empty": len(read("deep/er/empty")),
    "exists": failure(lambda: put("tree/one", b"new")), "kept": read("tree/one").decode(),
    "folder": failure(lambda: put("tree", b"new", force=True)),
    "below a file": failure(lambda: put("tree/one/more", b"new", force=True)),
    "outside": failure(lambda: put("/../x", b"new")),
    "missing": [failure(lambda: v.listdir("nope")), failure(lambda: read("nope")), failure(lambda: read("tree")),
                failure(lambda: v.remove_file("nope")), failure(lambda: v.remove_file("tree"))],
    "version": failure(lambda: modal.Volume.from_name(f"v{version}", version=3 - version).hydrate()),
    "by id": len(modal.Volume.from_id(v.object_id).listdir("/")),
}
put("tree/one", b"forced", force=True)
found["forced"] = read("tree/one").decode()
v.remove_file("deep", recursive=True)
v.remove_file("zeros")
found["left"] = [e.path for e in v.listdir("/")]
with modal.Volume.ephemeral(version=version) as v:
    put("x", b"y")
    found["ephemeral"] = read("x").decode()
answer(found)
"""


@pytest.mark.parametrize("version", [1, 2])
def test_volume_files_are_uploaded_read_and_removed(sample_modal: LocalModal, tmp_path: Path, version: int) -> None:
    (tmp_path / "folder/sub").mkdir(parents=True)
    (tmp_path / "folder/one").write_text("one")
    (tmp_path / "folder/sub/two").write_text("two")
    content = os.urandom((100 << 20) + 7)
    (tmp_path / "large").write_bytes(content)
    names = f"version, folder, large = {version}, {str(tmp_path / 'folder')!r}, {str(tmp_path / 'large')!r}\n"
    digest = hashlib.sha256(content).hexdigest()
    assert sample_modal.sdk(names + USE) == {
        "all": ["deep", "deep/er", "deep/er/empty", "large.bin", *TREE, "zeros"],
        "top": ["deep", "large.bin", "tree", "zeros"],
        "large": [digest, digest, len(content)],
        "zeros": True,
        "empty": 0,
        "exists": "FileExistsError",
        "kept": "one",
        "folder": "InvalidError",
        "below a file": "InvalidError",
        "outside": "InvalidError",
        "missing": ["NotFoundError", "FileNotFoundError", "InvalidError", "FileNotFoundError", "InvalidError"],
        "version": "InvalidError",
        "by id": 4,
        "forced": "forced",
        "left": ["large.bin", "tree"],
        "ephemeral": "y",
    }


def test_copies_follow_the_rules_of_cp(sample_modal: LocalModal) -> None:
    script = """
    import io
    v = modal.Volume.from_name("copies", create_if_missing=True, version=2)
    def read(path): return b"".join(v.read_file(path)).decode()
    with v.batch_upload() as batch:
        for path in ("a", "b", "folder/c", "folder/sub/d"):
            batch.put_file(io.BytesIO(path.encode()), path, mode=0o755 if path == "a" else 0o600)
    v.copy_files(["a"], "a2")
    v.copy_files(["a", "b"], "folder")
    v.copy_files(["b"], "a2")
    v.copy_files(["folder"], "copied", recursive=True)
    v.copy_files(["folder/sub"], "copied", recursive=True)
    v.copy_files(["folder"], "copied", recursive=True)
    refused = [failure(lambda: v.copy_files(*arguments)) for arguments in (
        (["nope"], "x"), (["a"], "a"), (["a", "b"], "new"), (["a"], "new/x"), (["a"], "new/"), (["folder"], "x"),
        (["folder"], "folder/sub/x", True), (["/"], "x", True), (["folder/../../x"], "x"), (["sub"], "b", True))]
    answer([[e.path for e in v.listdir("/", recursive=True)], read("a2"), read("copied/folder/sub/d"), refused,
            v.object_id])
    """
    paths, replaced, deep, refused, volume_id = sample_modal.sdk(script)
    tree = ["a", "b", "c", "sub", "sub/d"]
    copied = [*tree, "folder", *(f"folder/{path}" for path in tree)]
    expected = ["a", "a2", "b", "copied", "folder", *(f"folder/{p}" for p in tree), *(f"copied/{p}" for p in copied)]
    assert sorted(paths) == sorted(expected)
    assert (replaced, deep) == ("b", "folder/sub/d")
    missing, wrong = "NotFoundError", "InvalidError"
    assert refused == [missing, wrong, missing, missing, missing, wrong, wrong, wrong, wrong, missing]
    modes = [(sample_modal.data / "volumes" / volume_id / path).stat().st_mode & 0o777 for path in ("copied/a", "a2")]
    assert modes == [0o755, 0o600]


def test_copies_work_in_a_version_1_volume(sample_modal: LocalModal) -> None:
    script = """
    import io
    with modal.Volume.ephemeral(version=1) as v:
        with v.batch_upload() as batch:
            for path in ("a", "b", "folder/c"): batch.put_file(io.BytesIO(path.encode()), path)
        v.copy_files(["a"], "a2")
        v.copy_files(["a", "b"], "folder")
        copied = sorted(entry.path for entry in v.listdir("/", recursive=True) if entry.type.name == "FILE")
        refused = [failure(lambda: v.copy_files(*arguments)) for arguments in ((["nope"], "x"), (["a", "b"], "new"))]
        answer([copied, b"".join(v.read_file("folder/b")).decode(), refused])
    """
    copied, read, refused = sample_modal.sdk(script)
    assert copied == ["a", "a2", "b", "folder/a", "folder/b", "folder/c"]
    assert (read, refused) == ("b", ["NotFoundError", "NotFoundError"])


def test_volume_commands_upload_list_and_delete(sample_modal: LocalModal, tmp_path: Path) -> None:
    def run(*arguments: object, code: int = 0) -> str:
        done = sample_modal.modal("volume", *arguments)
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    (tmp_path / "folder/sub").mkdir(parents=True)
    (tmp_path / "folder/one").write_bytes(os.urandom(5 << 20))
    (tmp_path / "folder/sub/two").write_text("two")
    run("create", "cli", "--version", 2)
    run("create", "cli", code=1)
    run("put", "cli", tmp_path / "folder", "/f")
    assert "exists" in run("put", "cli", tmp_path / "folder/sub/two", "/f/sub/two", code=2)
    run("put", "cli", tmp_path / "folder/sub/two", "/f/sub/two", "--force")
    run("put", "cli", tmp_path / "folder/sub/two", "/new/")
    assert run("ls", "cli").split() == ["f", "new"]
    listed = json.loads(run("ls", "cli", "f", "--json"))
    assert [listed[0][key] for key in ("filename", "type", "size")] == ["f/one", "file", 5 << 20]
    run("ls", "cli", "nope", code=1)
    (tmp_path / "got").mkdir()
    run("get", "cli", "f", tmp_path / "got")
    assert (tmp_path / "got/f/one").read_bytes() == (tmp_path / "folder/one").read_bytes()
    assert (tmp_path / "got/f/sub/two").read_text() == "two"
    assert run("get", "cli", "new/two", "-").startswith("two")
    run("cp", "cli", "f/one", "new")
    run("cp", "cli", "-r", "f", "copied")
    run("rm", "cli", "f", code=1)
    run("rm", "cli", "-r", "f")
    assert run("ls", "cli").split() == ["copied", "new"]
    run("create", "taken")
    run("rename", "cli", "taken", "--yes", code=1)
    run("rename", "cli", "renamed", "--yes")
    assert run("ls", "renamed", "new").split() == ["new/one", "new/two"]
    assert {"renamed", "taken"} <= {row["name"] for row in json.loads(run("list", "--json"))}
    run("delete", "renamed", "--yes")
    run("ls", "renamed", code=1)


def test_acknowledged_upload_survives_a_kill(local_modal: LocalModal) -> None:
    upload = """
    import io
    for version in (1, 2):
        v = modal.Volume.from_name(f"v{version}", create_if_missing=True, version=version)
        with v.batch_upload() as batch:
            for n in range(40): batch.put_file(io.BytesIO(str(n).encode()), f"folder/{n}")
    """
    local_modal.sdk(upload)
    local_modal.stop(signal.SIGKILL)
    local_modal.start()
    read = """
    def all_of(v): return sorted(int(b"".join(v.read_file(e.path))) for e in v.listdir("folder"))
    answer([all_of(modal.Volume.from_name(f"v{version}")) == list(range(40)) for version in (1, 2)])
    """
    assert local_modal.sdk(read) == [True, True]
    assert not list((local_modal.data / "volumes").rglob("*.partial"))


def test_failed_upload_leaves_no_files(sample_modal: LocalModal) -> None:
    script = """
    import io
    v = modal.Volume.from_name("whole", create_if_missing=True, version=VERSION)
    with v.batch_upload() as batch: batch.put_file(io.BytesIO(b"old"), "b")
    def upload():
        with v.batch_upload() as batch:
            for name in ("a", "b", "c"): batch.put_file(io.BytesIO(b"new"), name)
    answer([failure(upload), [e.path for e in v.listdir("/", recursive=True)]])
    modal.Volume.objects.delete("whole")
    """
    for version in "12":
        assert sample_modal.sdk(script.replace("VERSION", version)) == ["FileExistsError", ["b"]]


def test_replaced_files_are_released_after_download(sample_modal: LocalModal) -> None:
    """A file that is replaced while it is on offer is kept for that offer, which ends when all of it was sent."""
    script = """
    import io, urllib.error, urllib.request
    from modal.client import _Client
    from modal_proto import api_pb2
    from modal._utils.async_utils import synchronize_api

    v = modal.Volume.from_name("offers", create_if_missing=True, version=2)
    def put(n, data):
        with v.batch_upload(force=True) as batch: batch.put_file(io.BytesIO(data), f"f{n}")
    old = [bytes([n]) * (9 << 20) for n in range(10)]
    for n, data in enumerate(old): put(n, data)

    async def _offer(n):
        stub = (await _Client.from_env())._stub
        request = api_pb2.VolumeGetFile2Request(volume_id=v.object_id, path=f"f{n}")
        return list((await stub.VolumeGetFile2(request)).get_urls)
    offer = synchronize_api(_offer)
    def fetch(url):
        try:
            with urllib.request.urlopen(url) as answer: return answer.read()
        except urllib.error.HTTPError as error: return error.code

    half, whole = offer(0), offer(1)
    begun = fetch(half[0])
    fetched = b"".join(map(fetch, whole))
    # As if the connection had broken before the end.
    again = b"".join(map(fetch, whole))
    for n in range(2, 10): assert b"".join(v.read_file(f"f{n}")) == old[n]
    for n in range(10): put(n, b"new")
    answer([len(half), fetched == old[1], again == old[1], begun + fetch(half[1]) == old[0],
            fetch(whole[0]), b"".join(v.read_file("f1")).decode()])
    """
    assert sample_modal.sdk(script) == [2, True, True, True, 404, "new"]

    def held() -> list[str]:
        assert sample_modal.process
        names = []
        for file in Path(f"/proc/{sample_modal.process.pid}/fd").iterdir():
            # It may be closed meanwhile.
            with contextlib.suppress(FileNotFoundError):
                names.append(str(file.readlink()))
        return [name for name in names if "/volumes/" in name and name.endswith("(deleted)")]

    assert len(held()) <= 4
    wait_until(lambda: not held(), "the end of the last offers")
