"""Web functions, asked over real HTTP and WebSockets."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
import websockets

from local_modal import APPS, LocalModal, wait_until

FUNCTIONS = ["hello", "guarded", "site", "plain", "raw", "one_at_a_time", "uploads", "rows", "served"]
LIMIT = httpx.Timeout(60)


class Site:
    """The web app on a server, and where its functions are."""

    def __init__(self) -> None:
        self.server = LocalModal()
        self.server.start()
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = str(free.getsockname()[1])
        self.deployed = self.deploy()
        assert self.deployed.returncode == 0, self.deployed.stdout + self.deployed.stderr
        self.urls = self.find()

    def deploy(self) -> subprocess.CompletedProcess[str]:
        return self.server.modal("deploy", APPS / "web_app.py", WEB_APP_PORT=self.port)

    def find(self) -> dict[str, str]:
        found: dict[str, str] = self.server.sdk(f"""
            urls = {{name: modal.Function.from_name("web", name).get_web_url() for name in {FUNCTIONS!r}}}
            urls["up"] = modal.Cls.from_name("web", "Counter")().up.get_web_url()
            answer(urls)
        """)
        return found

    def note(self, key: str) -> Any:
        return self.server.sdk(f'answer(modal.Dict.from_name("web-notes", create_if_missing=True).get({key!r}))')

    def get(self, name: str, path: str = "", **more: Any) -> httpx.Response:
        return httpx.get(self.urls[name] + path, timeout=LIMIT, **more)

    def connect(self, name: str) -> socket.socket:
        host, _, port = self.urls[name].removeprefix("http://").partition(":")
        return socket.create_connection((host, int(port)), timeout=60)


def read_until(connection: socket.socket, end: bytes) -> None:
    """Reads until what came ends so."""
    seen = b""
    while not seen.endswith(end) and end not in seen:
        part = connection.recv(1 << 16)
        assert part, f"the connection ended with {seen!r}"
        seen += part


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    site = Site()
    yield site
    site.server.close()


def test_printed_urls_answer(site: Site) -> None:
    for name in FUNCTIONS:
        assert site.urls[name] in site.deployed.stdout
    assert site.get("hello", params={"name": "me"}).json() == {"hello": "me"}
    assert httpx.head(site.urls["hello"], timeout=LIMIT).status_code == 405
    assert httpx.post(site.urls["hello"], timeout=LIMIT).status_code == 405
    assert site.get("hello", "/docs").status_code == 404
    with httpx.Client(base_url=site.urls["plain"], timeout=LIMIT) as client:
        answer = client.put("/a%20path", content=b"body")
        assert (answer.status_code, answer.text) == (201, "/a path body")
        assert answer.headers["x-method"] == "PUT"
        head = client.head("/x")
        assert (head.status_code, head.content, head.headers["x-method"]) == (201, b"", "HEAD")


def test_requests_and_responses_are_passed_unchanged(site: Site) -> None:
    answer = site.get("site", "/scope/%C3%A9%2F?q=a%20b&q2=", headers=[("X-Twice", "1"), ("X-Twice", "2")])
    found = answer.json()
    assert answer.status_code == 203
    assert (found["path"], found["rest"]) == ("/scope/é/", "é/")
    assert (found["query"], found["client"], found["headers"]) == ({"q": "a b", "q2": ""}, "127.0.0.1", ["1", "2"])
    assert answer.headers.get_list("set-cookie") == ["a=1; Path=/; SameSite=lax", "b=2; Path=/; SameSite=lax"]


def test_large_bodies_stream_in_both_directions(site: Site) -> None:
    piece, pieces = b"0123456789abcdef" * (1 << 16), 100
    answer = httpx.post(site.urls["site"] + "/digest", content=(piece for _ in range(pieces)), timeout=LIMIT).json()
    assert answer["size"] == pieces << 20
    assert answer["sha256"] == hashlib.sha256(piece * pieces).hexdigest()
    size = 0
    with httpx.stream("GET", f"{site.urls['site']}/bytes/{100 << 20}", timeout=LIMIT) as answer:
        assert answer.headers["content-length"] == str(100 << 20)
        for part in answer.iter_bytes():
            size += len(part)
    assert size == 100 << 20
    # The server has not kept them: its memory stays far below one of these bodies.
    assert site.server.process is not None
    status = open(f"/proc/{site.server.process.pid}/status").read()  # noqa: SIM115, PTH123
    peak = int(status.partition("VmHWM:")[2].split()[0])
    assert peak < 150 << 10, f"{peak} KiB"


def test_request_and_response_bodies_stream(site: Site) -> None:
    with site.connect("raw") as echo:
        head = "POST /echo HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
        echo.sendall(head.encode() + b"5\r\nfirst\r\n")
        read_until(echo, b"first")
        echo.sendall(b"6\r\nsecond\r\n0\r\n\r\n")
        read_until(echo, b"second\r\n0\r\n\r\n")
    with httpx.stream("GET", site.urls["site"] + "/forever", timeout=LIMIT) as answer:
        assert next(answer.iter_bytes()).startswith(b"tick")
    wait_until(lambda: site.get("site", "/left").json(), "the app to notice that its client left")


def test_concurrent_requests_run_in_parallel(site: Site) -> None:
    begin = time.monotonic()
    with ThreadPoolExecutor(30) as pool:
        answers = list(pool.map(lambda _: site.get("site", "/slow/1").json(), range(30)))
    assert answers == [1.0] * 30
    assert time.monotonic() - begin < 15, "one after the other"


def test_app_failures_become_http_errors(site: Site) -> None:
    broken = site.get("site", "/broken")
    assert (broken.status_code, broken.text) == (500, "Internal Server Error")
    with httpx.Client(base_url=site.urls["raw"], timeout=LIMIT) as client:
        failed = client.get("/fail")
        assert failed.status_code == 500
        assert "nobody catches this" in failed.text
        assert client.get("/silent").status_code == 500
        with pytest.raises(httpx.RemoteProtocolError):
            client.get("/half")
        stuck = client.get("/stuck")
        assert (stuck.status_code, "longer than" in stuck.text) == (504, True)
        died = client.get("/die")
        assert (died.status_code, "exited with code 3" in died.text) == (500, True)
        assert client.get("/fail").status_code == 500, "there is another container"


def test_foreign_host_names_are_refused(site: Site) -> None:
    assert site.get("hello", headers={"Host": "example.com"}).status_code == 421
    assert site.get("hello", headers={"Host": "localhost:1234"}).status_code == 200


def test_proxy_tokens_grant_access_until_deleted(site: Site) -> None:
    def ask(**headers: str) -> httpx.Response:
        return httpx.post(site.urls["guarded"], json={"a": 1, "b": 2}, headers=headers, timeout=LIMIT)

    refused = ask()
    assert (refused.status_code, "proxy-tokens create" in refused.text) == (401, True)
    token = json.loads(site.server.modal("workspace", "proxy-tokens", "create", "--name", "t", "--json").stdout)
    key, secret = token["Modal-Key"], token["Modal-Secret"]
    assert ask(**{"Modal-Key": key, "Modal-Secret": secret}).json() == 3
    assert ask(Authorization=token["Authorization"]).json() == 3
    assert ask(**{"Modal-Key": key, "Modal-Secret": "ws-guess"}).status_code == 401
    assert site.server.modal("workspace", "proxy-tokens", "update", key, "name", "renamed").returncode == 0
    listed = site.server.modal("workspace", "proxy-tokens", "list", "--json").stdout
    assert key in listed and "renamed" in listed
    assert key in site.server.modal("workspace", "proxy-tokens", "list", "--environment", "main", "--json").stdout
    assert secret not in listed
    for kept in site.server.data.glob("state.db*"):
        assert secret.encode() not in kept.read_bytes()
    assert site.server.modal("workspace", "proxy-tokens", "delete", key, "--yes").returncode == 0
    assert ask(**{"Modal-Key": key, "Modal-Secret": secret}).status_code == 401


def test_websockets_pass_messages_and_close_codes(site: Site) -> None:
    url = site.urls["site"].replace("http", "ws") + "/chat"

    async def talk() -> dict[str, Any]:
        found: dict[str, Any] = {}
        async with websockets.connect(url, subprotocols=["a", "b"], max_size=None) as connection:  # type: ignore[list-item]
            found["subprotocol"] = connection.subprotocol
            found["header"] = connection.response.headers["x-chat"] if connection.response else None
            await connection.send("text")
            await connection.send(b"\x00bytes")
            found["answers"] = [await connection.recv(), await connection.recv()]
            large = "x" * (3 << 20)
            await connection.send(large)
            found["large"] = await connection.recv() == large.upper()
            await connection.send("bye")
            await connection.wait_closed()
            found["closed"] = (connection.close_code, connection.close_reason)
        async with websockets.connect(url) as connection:
            await connection.send("fail")
            await connection.wait_closed()
            found["failed"] = connection.close_code
        try:
            async with websockets.connect(url + "?no=1"):
                found["refused"] = False
        except websockets.InvalidStatus as error:
            found["refused"] = error.response.status_code
        async with websockets.connect(url) as connection:
            await connection.close(code=4321)
        return found

    assert asyncio.run(talk()) == {
        "subprotocol": "b",
        "header": "yes",
        "answers": ["TEXT", b"setyb\x00"],
        "large": True,
        "closed": (4001, "as asked"),
        "failed": 1011,
        "refused": 403,
    }
    assert wait_until(lambda: site.note("chat"), "the app to see the end") == 4321


def test_queued_request_of_a_disconnected_client_never_runs(site: Site) -> None:
    with ThreadPoolExecutor(1) as pool:
        held = pool.submit(site.get, "one_at_a_time", "/hold")
        wait_until(lambda: site.note("running") == "/hold", "the first request to run")
        host, _, port = site.urls["one_at_a_time"].removeprefix("http://").partition(":")
        with socket.create_connection((host, int(port))) as waiting:
            waiting.sendall(b"GET /left HTTP/1.1\r\nHost: localhost\r\n\r\n")
            stats = 'answer(modal.Function.from_name("web", "one_at_a_time").get_current_stats().backlog)'
            wait_until(lambda: site.server.sdk(stats) == 1, "the second request to queue")
        wait_until(lambda: site.server.sdk(stats) == 0, "the second request to leave")
        site.server.sdk('modal.Dict.from_name("web-notes")["go"] = True')
        assert held.result(30).text == "/hold"
    assert site.note("running") == "/hold"
    assert site.get("one_at_a_time", "/next").text == "/next"


@pytest.mark.parametrize("ends", ["half", "whole"])
def test_aborted_upload_frees_its_place(site: Site, ends: str) -> None:
    upload = b"POST /%s HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\nbegin"

    def cut(connection: socket.socket) -> None:
        if ends == "half":
            connection.shutdown(socket.SHUT_WR)
        else:
            connection.close()

    with site.connect("uploads") as running, site.connect("uploads") as waiting:
        running.sendall(upload % b"running")
        wait_until(lambda: site.note("uploading") == "/running", "the first upload to begin")
        waiting.sendall(upload % b"waiting")
        stats = 'answer(modal.Function.from_name("web", "uploads").get_current_stats().backlog)'
        wait_until(lambda: site.server.sdk(stats) == 1, "the second upload to queue")
        cut(waiting)
        wait_until(lambda: site.server.sdk(stats) == 0, "the second upload to leave the queue")
        assert site.note("uploading") == "/running", "the second one never ran"
        cut(running)
        done = httpx.post(site.urls["uploads"] + f"/{ends}", content=b"all of it", timeout=LIMIT)
        assert done.text == "all of it"


def test_rows_streamed_before_a_failure_arrive(site: Site) -> None:
    rows = b"".join(b"row %d\n" % n for n in range(2_000))
    assert site.get("rows", "/2000").content == rows
    received = b""
    with (
        pytest.raises(httpx.RemoteProtocolError),
        httpx.stream("GET", site.urls["rows"] + "/2000/fails", timeout=LIMIT) as response,
    ):
        for part in response.iter_raw():
            received += part
    assert received == rows
    with httpx.stream("GET", site.urls["rows"] + "/1/waits", timeout=LIMIT) as response:
        parts = response.iter_raw()
        assert next(parts) == b"row 0\n", "before the end, for which it waits"
        site.server.sdk('modal.Dict.from_name("web-notes")["rows"] = True')
        assert list(parts) == [b"the end\n"]


def test_class_endpoints_use_query_parameters(site: Site) -> None:
    assert [site.get("up").json(), site.get("up").json()] == [1, 2]
    assert site.server.sdk('answer(list(modal.Cls.from_name("web", "Counter")().numbers.remote_gen(2)))') == [2, 3]
    (line,) = [line for line in site.deployed.stdout.splitlines() if "Shop.sign" in line]
    sign = line.partition("-> ")[2].split()[0]
    assert httpx.get(sign, timeout=LIMIT).status_code == 400
    small = httpx.get(sign, params={"name": "corner"}, timeout=LIMIT).json()
    large = httpx.get(sign, params={"name": "corner", "size": 9}, timeout=LIMIT).json()
    assert (small["name"], small["size"], large["size"]) == ("corner", 3, 9)
    assert small["pid"] != large["pid"]
    same = site.server.sdk('answer(modal.Cls.from_name("web", "Shop")(size=9, name="corner").describe.remote())')
    assert same == large, "the same parameters lead to the same containers"


def test_web_server_in_a_container_is_proxied(site: Site) -> None:
    def ask(path: str, body: str) -> tuple[int, list[str]]:
        answer = httpx.post(site.urls["served"] + path, content=body, timeout=LIMIT)
        return answer.status_code, answer.text.split()

    status, (pid, *parts) = ask("/a?b=c", "body")
    assert (status, parts) == (202, ["/a?b=c", "body"])
    assert ask("/again", "x")[1] == [pid, "/again", "x"]
    # The next version has the same port; it waits until the last one is gone.
    assert site.deploy().returncode == 0
    status, (other, *parts) = ask("/new", "y")
    assert (status, parts) == (202, ["/new", "y"])
    assert other != pid


def test_serve_reloads_at_the_same_url(site: Site, tmp_path: Path) -> None:
    source = tmp_path / "served_app.py"
    code = """
import modal
app = modal.App("served-app")

@app.function()
@modal.fastapi_endpoint()
def word() -> str:
    return "{word}"
"""
    source.write_text(code.format(word="one"))
    command = [sys.executable, "-m", "modal", "serve", str(source)]
    environment = site.server.environment()
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as serving:
        try:
            assert serving.stdout is not None
            url = next(found[0] for line in serving.stdout if (found := re.findall(r"http://127[^ ]+", line)))
            assert httpx.get(url, timeout=LIMIT).json() == "one"
            source.write_text(code.format(word="two"))
            wait_until(lambda: httpx.get(url, timeout=LIMIT).json() == "two", "the changed code")
        finally:
            serving.send_signal(signal.SIGINT)
        serving.stdout.read()
    with pytest.raises(httpx.ConnectError):
        wait_until(lambda: httpx.get(url, timeout=LIMIT) is None, "the port to be closed")


def test_urls_stay_the_same_after_redeploy_and_restart(site: Site) -> None:
    before = site.urls
    assert site.deploy().returncode == 0
    assert site.find() == before
    site.server.stop()
    with pytest.raises(httpx.ConnectError):
        site.get("hello")
    site.server.start()
    assert site.find() == before
    assert site.get("hello").json() == {"hello": "you"}
    assert site.server.modal("app", "stop", "web", "--yes").returncode == 0

    def is_gone() -> bool:
        try:
            return not site.get("hello")
        except httpx.ConnectError:
            return True

    wait_until(is_gone, "the port to be closed")
