"""Dicts, Volumes and Secrets on Local Modal, used with the real SDK."""

from __future__ import annotations

import os
from pathlib import Path

from local_modal import LocalModal


def test_dict_methods_return_the_expected_values(shared_modal: LocalModal) -> None:
    script = """
    try: modal.Dict.from_name("d").len(); missing = "found"
    except modal.exception.NotFoundError as error: missing = str(error)
    d = modal.Dict.from_name("d", create_if_missing=True)
    first, second = d.put("lock", "me", skip_if_exists=True), d.put("lock", "you", skip_if_exists=True)
    d.update(a=1, b=[2], c=None)
    d[("tuple", 1)] = "any key"
    answer({"missing": missing, "first": first, "second": second, "held": d["lock"], "popped": d.pop("lock"),
            "len": d.len(), "has": ["a" in d, "z" in d], "default": d.get("z", 9), "tuple": d[("tuple", 1)],
            "keys": sorted(map(str, d.keys())), "values": len(list(d.values())), "null": d.get("c", 5)})
    d.clear()
    assert d.len() == 0
    """
    assert shared_modal.sdk(script) == {
        "missing": 'Dict "d" does not exist',
        "first": True,
        "second": False,
        "held": "me",
        "popped": "me",
        "len": 4,
        "has": [True, False],
        "default": 9,
        "tuple": "any key",
        "keys": ["('tuple', 1)", "a", "b", "c"],
        "values": 4,
        "null": None,
    }


def test_dicts_are_deleted_and_isolated_by_environment(shared_modal: LocalModal) -> None:
    script = """
    for name in ("one", "two"): modal.Environment.objects.create(name)
    one = modal.Dict.from_name("apart", create_if_missing=True, environment_name="one")
    two = modal.Dict.from_name("apart", create_if_missing=True, environment_name="two")
    one["k"] = 1
    answer(["k" in two, [d.name for d in modal.Dict.objects.list(environment_name="one")]])
    modal.Dict.objects.delete("apart", environment_name="one")
    try: modal.Dict.from_name("apart", environment_name="one").len(); assert False
    except modal.exception.NotFoundError: pass
    """
    assert shared_modal.sdk(script) == [False, ["apart"]]


def test_only_one_concurrent_put_if_absent_succeeds(shared_modal: LocalModal) -> None:
    script = """
    import asyncio
    async def main():
        d = modal.Dict.from_name("race", create_if_missing=True)
        await d.hydrate.aio()
        got = await asyncio.gather(*[d.put.aio("lock", n, skip_if_exists=True) for n in range(50)])
        answer([sum(got), got.index(True) == await d.get.aio("lock")])
    asyncio.run(main())
    """
    assert shared_modal.sdk(script) == [1, True]


def test_volume_files_are_uploaded_listed_and_read(shared_modal: LocalModal, tmp_path: Path) -> None:
    (tmp_path / "folder/sub").mkdir(parents=True)
    (tmp_path / "folder/one.txt").write_text("one")
    (tmp_path / "folder/sub/two.txt").write_text("two")
    (tmp_path / "big.bin").write_bytes(os.urandom(3 << 20))
    (tmp_path / "empty").touch()
    script = f"""
    import hashlib, io
    v = modal.Volume.from_name("v", create_if_missing=True)
    with v.batch_upload() as batch:
        batch.put_directory({str(tmp_path / "folder")!r}, "/tree")
        batch.put_file({str(tmp_path / "big.bin")!r}, "big.bin")
        batch.put_file({str(tmp_path / "empty")!r}, "/tree/empty")
        batch.put_file(io.BytesIO(b"from memory"), "memory", mode=0o755)
    def overwrite():
        with v.batch_upload() as batch: batch.put_file(io.BytesIO(b"other"), "memory")
    def escape():
        with v.batch_upload(force=True) as batch: batch.put_file(io.BytesIO(b"other"), "/tree/../../escaped")
    def read(path): return b"".join(v.read_file(path))
    refused = failure(overwrite)
    kept = read("memory").decode()
    with v.batch_upload(force=True) as batch: batch.put_file(io.BytesIO(b"forced"), "memory")
    answer({{
        "all": [[e.path, e.type.name, e.size if e.type.name == "FILE" else 0] for e in v.listdir("/", recursive=True)],
        "top": [e.path for e in v.listdir("/")], "file": [e.path for e in v.listdir("tree/one.txt")],
        "sub": [e.path for e in v.listdir("/tree/sub/")],
        "big": hashlib.sha256(read("big.bin")).hexdigest(), "empty": read("tree/empty").decode(),
        "refused": refused, "kept": kept, "forced": read("memory").decode(), "escape": failure(escape),
        "missing": [failure(lambda: read("nope")), failure(lambda: v.remove_file("nope")),
                    failure(lambda: v.listdir("nope"))],
        "folder": failure(lambda: v.remove_file("tree")), "root": failure(lambda: v.remove_file("/", recursive=True)),
    }})
    v.remove_file("tree", recursive=True)
    v.remove_file("memory")
    assert [e.path for e in v.listdir("/")] == ["big.bin"]
    """
    found = shared_modal.sdk(script)
    import hashlib

    assert found.pop("big") == hashlib.sha256((tmp_path / "big.bin").read_bytes()).hexdigest()
    assert found == {
        "all": [
            ["big.bin", "FILE", 3 << 20],
            ["memory", "FILE", 6],
            ["tree", "DIRECTORY", 0],
            ["tree/empty", "FILE", 0],
            ["tree/one.txt", "FILE", 3],
            ["tree/sub", "DIRECTORY", 0],
            ["tree/sub/two.txt", "FILE", 3],
        ],
        "top": ["big.bin", "memory", "tree"],
        "file": ["tree/one.txt"],
        "sub": ["tree/sub/two.txt"],
        "empty": "",
        "refused": "FileExistsError",
        "kept": "from memory",
        "forced": "forced",
        "escape": "InvalidError",
        "missing": ["FileNotFoundError", "FileNotFoundError", "NotFoundError"],
        "folder": "InvalidError",
        "root": "InvalidError",
    }


def test_large_files_are_read_in_blocks(shared_modal: LocalModal) -> None:
    script = """
    v = modal.Volume.from_name("blocks", create_if_missing=True)
    v.hydrate()
    answer(v.object_id)
    """
    volume_id = shared_modal.sdk(script)
    data = os.urandom((20 << 20) + 5)
    (shared_modal.data / "volumes" / volume_id / "large").write_bytes(data)
    read = """
    import hashlib
    v = modal.Volume.from_name("blocks")
    answer(hashlib.sha256(b"".join(v.read_file("large"))).hexdigest())
    """
    import hashlib

    assert shared_modal.sdk(read) == hashlib.sha256(data).hexdigest()


def test_new_volume_with_a_deleted_name_is_empty(shared_modal: LocalModal) -> None:
    script = """
    import io
    v = modal.Volume.from_name("again", create_if_missing=True)
    with v.batch_upload() as batch: batch.put_file(io.BytesIO(b"x"), "x")
    modal.Volume.objects.delete("again")
    w = modal.Volume.from_name("again", create_if_missing=True)
    answer([v.object_id != w.hydrate().object_id, w.listdir("/")])
    """
    assert shared_modal.sdk(script) == [True, []]


def test_secrets_are_created_listed_and_required(shared_modal: LocalModal) -> None:
    script = """
    modal.Secret.objects.create("s", {"A": "1", "B": "2"})
    answer([
        failure(lambda: modal.Secret.objects.create("s", {"A": "3"})),
        failure(lambda: modal.Secret.from_name("s", required_keys=["A"]).hydrate()),
        failure(lambda: modal.Secret.from_name("s", required_keys=["C"]).hydrate()),
        failure(lambda: modal.Secret.from_name("t").hydrate()),
        [s.name for s in modal.Secret.objects.list()],
    ])
    modal.Secret.objects.delete("s")
    """
    assert shared_modal.sdk(script) == ["AlreadyExistsError", None, "NotFoundError", "NotFoundError", ["s"]]


def test_object_infos_name_the_creator(shared_modal: LocalModal) -> None:
    found = shared_modal.sdk(
        """
        made = [getattr(modal, kind).from_name("made-" + kind, create_if_missing=True).hydrate()
                for kind in ("Dict", "Queue", "Volume")]
        modal.Secret.objects.create("made-Secret", {"A": "b"})
        made.append(modal.Secret.from_name("made-Secret"))
        answer([[thing.info().created_by for thing in made], [thing.info().name for thing in made]])
    """
    )
    assert found == [["local"] * 4, ["made-Dict", "made-Queue", "made-Volume", "made-Secret"]]
