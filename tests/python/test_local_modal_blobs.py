"""Contents that are too large for a message, with the real SDK: arguments, results, files."""

from __future__ import annotations

import hashlib
import os
import urllib.error
import urllib.request
from pathlib import Path

from local_modal import APPS, LocalModal

CALLS = """
import hashlib
data = os.urandom(5 << 20)
echo = modal.Function.from_name("sample", "echo")
size = modal.Function.from_name("sample", "size")
yields, large = [modal.Function.from_name("sample", name) for name in ("yield_large", "make_large")]
nested = {"data": data, "n": 1}
waited = echo.remote(nested)
call = echo.spawn(data)
answer({
    "waited": waited == nested,
    "spawned": modal.FunctionCall.from_id(call.object_id).get(timeout=60) == data,
    "mapped": list(size.map([data, b"", data * 2])),
    "large": size.remote(bytes(70 << 20)),
    "yielded": [len(value) for value in yields.remote_gen([3 << 20, 1])],
    "many": sum(map(len, large.map([2_000_000] * 60))),
    "raised": failure(lambda: modal.Function.from_name("sample", "raise_large").remote(3 << 20)),
})
"""


def test_large_arguments_and_results_round_trip(sample_modal: LocalModal) -> None:
    found = sample_modal.sdk(CALLS)
    five = 5 << 20
    assert found == {
        "waited": True,
        "spawned": True,
        "mapped": [five, 0, 2 * five],
        "large": 70 << 20,
        "yielded": [3 << 20, 1],
        "many": 120_000_000,
        "raised": "ValueError",
    }


def test_blobs_of_calls_survive_a_restart(local_modal: LocalModal) -> None:
    assert local_modal.deploy(APPS / "sample_app.py").returncode == 0
    begin = """
    import hashlib
    data = os.urandom(3 << 20)
    done = modal.Function.from_name("sample", "echo").spawn(data)
    done.get(timeout=60)
    waiting = modal.Function.from_name("sample", "wait_for_note").spawn("go", data)
    answer([done.object_id, waiting.object_id, hashlib.sha256(data).hexdigest()])
    """
    done, waiting, digest = local_modal.sdk(begin)
    local_modal.stop()
    for blob in (local_modal.data / "files").glob("*/*"):
        os.utime(blob, (0, 0))
    local_modal.start()
    finish = f"""
    import hashlib
    modal.Dict.from_name("sample-notes", create_if_missing=True)["go"] = True
    results = [modal.FunctionCall.from_id(id).get(timeout=60) for id in ({done!r}, {waiting!r})]
    answer([hashlib.sha256(result).hexdigest() for result in results])
    """
    assert local_modal.sdk(finish) == [digest, digest]


def test_unreferenced_blobs_are_deleted_at_start(local_modal: LocalModal) -> None:
    upload = """
    import io
    with modal.Volume.ephemeral(version=1) as v:
        with v.batch_upload() as batch:
            batch.put_file(io.BytesIO(os.urandom(100)), "small")
            batch.put_file(io.BytesIO(os.urandom(5 << 20)), "large")
    """
    local_modal.sdk(upload)
    files = local_modal.data / "files"
    assert len(list(files.glob("*/*"))) == 2
    local_modal.stop()
    local_modal.start()
    assert len(list(files.glob("*/*"))) == 2, "an upload may still be in use"
    local_modal.stop()
    for file in files.glob("*/*"):
        os.utime(file, (0, 0))
    local_modal.start()
    assert not list(files.glob("*/*")) and not list((local_modal.data / "uploads").iterdir())


def test_invalid_uploads_are_refused(sample_modal: LocalModal) -> None:
    script = """
    import base64, hashlib
    from modal._utils.async_utils import synchronizer
    from modal.client import _Client
    from modal_proto import api_pb2
    @synchronizer.create_blocking
    async def create(length, sha256=b"a" * 32):
        stub = (await _Client.from_env())._stub
        sha256 = base64.b64encode(sha256).decode()
        return await stub.BlobCreate(api_pb2.BlobCreateRequest(content_sha256_base64=sha256, content_length=length))
    many = create(200 << 20).multiparts.items[0]
    one = create(10, hashlib.sha256(b"0123456789").digest()).upload_urls.items[0]
    answer([one, list(many.upload_urls), many.completion_url,
            failure(lambda: create(10, b"short")), failure(lambda: create(-1)), failure(lambda: create(1 << 50))])
    """
    url, parts, completion, *refused = sample_modal.sdk(script)
    assert refused == ["InvalidError"] * 3

    def send(url: str, data: bytes, method: str = "PUT", **headers: str) -> tuple[int, str, str | None]:
        request = urllib.request.Request(url, data, headers, method=method)
        try:
            with urllib.request.urlopen(request) as response:
                return response.status, response.read().decode(), response.headers["ETag"]
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode(), None

    md5 = hashlib.md5(b"0123456789").hexdigest()
    assert send(url, b"0123456789") == (200, "", f'"{md5}"')
    assert send(url, b"", "GET")[1] == "0123456789"
    status, why, _ = send(url, b"9876543210")
    assert (status, "SHA-256" in why) == (400, True)
    status, why, _ = send(url, b"0123456789-")
    assert (status, "more than the 10 bytes" in why) == (400, True)
    assert send(url, b"0123456789", Host="elsewhere")[0] == 421
    key = url.split("/")[3]
    assert send(url.replace(key, key[::-1]), b"0123456789")[0] == 404
    assert send(url.replace(key, f"{key}/.."), b"0123456789")[0] == 404
    assert len(parts) == 4
    status, why, _ = send(parts[3], b"too short")
    assert (status, "9 of the 8388608 bytes" in why) == (400, True)
    assert send(f"{parts[0]}9", b"x")[0] == 404
    status, why, _ = send(completion, b"", "POST")
    assert (status, "SHA-256" in why) == (400, True)
    assert send(completion.replace("/up-", "/..%2Fup-"), b"", "POST")[0] == 404


def test_large_mounted_files_are_readable(local_modal: LocalModal, tmp_path: Path) -> None:
    (tmp_path / "large.bin").write_bytes(os.urandom(6 << 20))
    (tmp_path / "large_app.py").write_text(
        f"""
import hashlib, modal
app = modal.App("large")
image = modal.Image.debian_slim().add_local_file({str(tmp_path / "large.bin")!r}, "/root/large.bin")
@app.function(image=image)
def digest():
    with open("large.bin", "rb") as file: return hashlib.file_digest(file, "sha256").hexdigest()
"""
    )
    deployed = local_modal.deploy(tmp_path / "large_app.py")
    assert deployed.returncode == 0, deployed.stdout + deployed.stderr
    found = local_modal.sdk('answer(modal.Function.from_name("large", "digest").remote())')
    assert found == hashlib.sha256((tmp_path / "large.bin").read_bytes()).hexdigest()
