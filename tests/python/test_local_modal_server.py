"""Servers (`@app.server`), asked over real HTTP."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
import websockets
from google.protobuf.wrappers_pb2 import StringValue
from grpclib.client import Channel, UnaryUnaryMethod

from local_modal import APPS, LocalModal, free_ports, wait_until

SERVERS = ["Site", "Guarded", "Broken", "Silent", "Quitting", "Remote", "Patient", "Hesitating"]
LIMIT = httpx.Timeout(60)


class Servers:
    """The app with servers, and where they are."""

    def __init__(self) -> None:
        self.modal = LocalModal()
        self.modal.start()
        self.port = free_ports(len(SERVERS) + 1)
        self.deployed = self.deploy("1")
        self.urls = self.find()

    def deploy(self, version: str) -> str:
        done = self.modal.modal(
            "deploy", APPS / "server_app.py", SERVER_APP_PORT=str(self.port), SERVER_APP_VERSION=version
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def find(self) -> dict[str, str]:
        found: dict[str, str] = self.modal.ask(
            f'answer({{name: modal.Server.from_name("servers", name).get_url() for name in {SERVERS!r}}})'
        )
        return found

    def get(self, name: str, path: str = "/", **more: Any) -> httpx.Response:
        return httpx.get(self.urls[name] + path, timeout=LIMIT, **more)

    def started(self, name: str, path: str = "/", **more: Any) -> Any:
        """What a server says once one of its containers listens."""

        def look() -> httpx.Response | None:
            answer = self.get(name, path, **more)
            assert answer.status_code in (200, 503), answer.text
            return answer if answer.status_code == 200 else None

        return wait_until(look, f"{name} to listen", 90).json()

    def refused(self, name: str, reason: str) -> None:
        """Waits until a server that does not start says so."""

        def look() -> bool:
            answer = self.get(name)
            assert (answer.status_code, int(answer.headers["retry-after"]) >= 1) == (503, True)
            return reason in answer.text

        wait_until(look, f"{name} to say {reason!r}", 90)

    def note(self, task: str) -> Any:
        """What the exit handler of a container has noted."""
        return self.modal.ask(f'answer(modal.Dict.from_name("server-notes", create_if_missing=True).get({task!r}))')

    def running(self, name: str) -> list[Any]:
        return [found for found in self.modal.status()["containers"] if found["function"] == name]


@pytest.fixture(scope="module")
def servers() -> Iterator[Servers]:
    servers = Servers()
    yield servers
    servers.modal.close()


def test_server_starts_with_its_first_request(servers: Servers) -> None:
    assert all(url and url in servers.deployed for url in servers.urls.values()), servers.deployed
    assert not servers.modal.status()["containers"]
    first = servers.get("Site")
    assert (first.status_code, first.headers["retry-after"]) == (503, "1")
    assert "starting" in first.text
    seen = servers.started("Site", "/a%20b?c=%2F", headers={"X-Own": "1", "Connection": "x-hop", "X-Hop": "1"})
    assert (seen["path"], seen["version"], seen["headers"]["x-own"]) == ("/a%20b?c=%2F", "1", "1")
    assert seen["headers"]["host"] == servers.urls["Site"].removeprefix("http://")
    assert (seen["headers"]["x-forwarded-for"], "x-hop" in seen["headers"]) == ("127.0.0.1", False)
    assert servers.get("Site").headers.get_list("x-twice") == ["1", "2"]
    assert servers.get("Site", headers={"Host": "example.com"}).status_code == 421


def test_server_is_unavailable_until_it_listens(servers: Servers) -> None:
    # Its container is through with `enter` a second before.
    assert servers.get("Patient").status_code == 503
    assert servers.started("Patient")["path"] == "/"


def test_stopped_server_runs_its_exit_handlers(servers: Servers) -> None:
    task = servers.started("Hesitating")["task"]
    assert servers.modal.modal("container", "stop", "--yes", task).returncode == 0
    wait_until(lambda: not servers.running("Hesitating"), "the container to end")
    assert servers.note(task) == "ended well"


def test_bodies_stream_and_excess_requests_are_refused(servers: Servers) -> None:
    servers.started("Site")
    host, _, port = servers.urls["Site"].removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=60) as echo:
        head = b"POST /echo HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
        for sent, awaited in ((head + b"3\r\none\r\n", b"ONE"), (b"3\r\ntwo\r\n0\r\n\r\n", b"TWO\r\n0\r\n\r\n")):
            echo.sendall(sent)
            seen = b""
            while awaited not in seen:
                seen += (part := echo.recv(1 << 16))
                assert part, f"the connection ended with {seen!r}"
    waiting = [httpx.stream("GET", servers.urls["Site"] + "/wait", timeout=LIMIT) for _ in range(2)]
    with waiting[0] as one, waiting[1] as other:
        parts = [answer.iter_raw() for answer in (one, other)]
        assert [next(part) for part in parts] == [b"first", b"first"]
        refused = servers.get("Site")
        assert (refused.status_code, "max_concurrency" in refused.text) == (429, True)
        one.close()
        wait_until(lambda: servers.get("Site", "/go").status_code == 200, "room for another request")
        assert next(parts[1]) == b"last"


def test_websockets_are_proxied(servers: Servers) -> None:
    servers.started("Site")

    async def talk() -> Any:
        async with websockets.connect(servers.urls["Site"].replace("http", "ws")) as connection:
            await connection.send("hello")
            return await connection.recv()

    assert asyncio.run(talk()) == "HELLO"


def test_http2_and_trailers_are_proxied(servers: Servers) -> None:
    async def shout() -> str:
        host, _, port = servers.urls["Remote"].removeprefix("http://").partition(":")
        channel = Channel(host, int(port))
        try:
            method = UnaryUnaryMethod(channel, "/test.Shouting/Shout", StringValue, StringValue)
            return str((await method(StringValue(value="hello"), timeout=60)).value)
        finally:
            channel.close()

    assert servers.get("Remote").status_code == 503
    wait_until(lambda: [c for c in servers.running("Remote") if c["state"] == "idle"], "the server to listen", 90)
    assert asyncio.run(shout()) == "HELLO"


def test_server_requires_a_proxy_token_by_default(servers: Servers) -> None:
    assert servers.get("Guarded").status_code == 401
    assert not servers.running("Guarded"), "a stranger starts no container"
    token = json.loads(servers.modal.modal("workspace", "proxy-tokens", "create", "--name", "t", "--json").stdout)
    keys = {name: token[name] for name in ("Modal-Key", "Modal-Secret")}
    assert servers.started("Guarded", headers=keys)["path"] == "/"


def test_idle_server_runs_exit_handlers_and_starts_again(servers: Servers) -> None:
    first = servers.started("Site")["task"]
    wait_until(lambda: not servers.running("Site"), "the container to end when it is idle", 60)
    assert servers.note(first) == "1"
    assert servers.started("Site")["task"] != first


@pytest.mark.parametrize("end", ["/die", "/close"])
def test_failed_server_starts_again(servers: Servers, end: str) -> None:
    first = servers.started("Site")["task"]
    failed = servers.get("Site", end)
    # A server that is closed has answered, and its container is there: its exit handlers run.
    assert failed.status_code == (502 if end == "/die" else 200), failed.text

    def second() -> Any:
        answer = servers.get("Site")
        return answer.status_code == 200 and answer.json()["task"] != first

    wait_until(second, "another container", 60)
    assert servers.note(first) == (None if end == "/die" else "1")


def test_startup_failure_of_a_server_is_in_its_responses(servers: Servers) -> None:
    with ThreadPoolExecutor() as pool:
        for call in [
            pool.submit(servers.refused, "Broken", "nothing to serve"),
            pool.submit(servers.refused, "Silent", "did not get ready within the 3 s"),
            pool.submit(
                servers.refused, "Quitting", f"exited with code 7 before it listened on port {servers.port + 4}"
            ),
        ]:
            call.result()
    assert "cannot go on" in servers.get("Quitting").text
    assert servers.note("silent") == "ended well"


def test_port_in_use_is_named(servers: Servers) -> None:
    wait_until(lambda: not servers.running("Site"), "the container to end when it is idle", 60)
    with socket.create_server(("127.0.0.1", servers.port)):
        servers.refused("Site", f"listens on {servers.port}")
    assert servers.started("Site")["path"] == "/"
    # So is that of a web function, whose requests would go to whoever listens there.
    url = servers.modal.ask('answer(modal.Function.from_name("servers", "plain").get_web_url())')
    with socket.create_server(("127.0.0.1", servers.port + 7)):
        answer = httpx.get(url, timeout=LIMIT)
        assert (answer.status_code, f"listens on {servers.port + 7}" in answer.text) == (500, True), answer.text


def test_autoscaler_settings_are_applied(servers: Servers) -> None:
    wait_until(lambda: not servers.running("Site"), "the container to end when it is idle", 60)
    settings = servers.modal.ask("""
        import dataclasses
        server = modal.Server.from_name("servers", "Site")
        server.autoscaler.update(min_containers=1, target_concurrency=1.5, scaleup_window=7)
        info = server.info()
        answer([dataclasses.asdict(server.autoscaler.settings()), info.port, info.unauthenticated])
    """)
    assert settings[1:] == [servers.port, True]
    wanted = {"min_containers": 1, "target_concurrency": 1.5, "scaleup_window": 7, "scaledown_window": 3}
    assert wanted.items() <= settings[0].items(), settings
    wait_until(lambda: [c for c in servers.running("Site") if c["state"] == "idle"], "a container without a request")


def test_new_version_replaces_the_running_server(servers: Servers) -> None:
    first = servers.started("Site")["task"]
    servers.started("Patient")
    with (
        httpx.stream("GET", servers.urls["Patient"] + "/wait", timeout=LIMIT) as patient,
        httpx.stream("GET", servers.urls["Site"] + "/wait", timeout=LIMIT) as site,
    ):
        parts = [answer.iter_raw() for answer in (patient, site)]
        assert [next(part) for part in parts] == [b"first", b"first"]
        servers.deploy("2")
        # It has no grace period for its requests.
        with pytest.raises(httpx.RemoteProtocolError):
            next(parts[1])
        # The other one has, but gets no new ones.
        assert servers.get("Patient").status_code == 503
        assert httpx.get(f"http://127.0.0.1:{servers.port + 6}/go", timeout=LIMIT).status_code == 200
        assert next(parts[0]) == b"last"
    assert servers.find() == servers.urls
    wait_until(lambda: servers.note(first) == "1", "the old version to end")
    # Without a request.
    wait_until(lambda: [c for c in servers.running("Site") if c["state"] == "idle"], "the new version to listen")
    assert servers.started("Site")["version"] == "2"


def test_urls_survive_a_restart_of_local_modal(servers: Servers) -> None:
    first = servers.started("Site")["task"]
    servers.modal.stop()
    servers.modal.start()
    assert servers.note(first) == "2"
    assert servers.find() == servers.urls
    assert servers.started("Site")["task"] != first
    servers.modal.stop(signal.SIGKILL)
    servers.modal.start()
    assert servers.started("Site")["version"] == "2"


def test_stopped_app_ends_its_servers(servers: Servers) -> None:
    first = servers.started("Site")["task"]
    assert servers.modal.modal("app", "stop", "--yes", "servers").returncode == 0
    wait_until(lambda: servers.note(first) == "2", "the exit handlers to run")

    def is_closed() -> bool:
        try:
            return servers.get("Site").status_code == 404
        except httpx.ConnectError:
            return True

    wait_until(is_closed, "the port to be closed")


def test_ephemeral_app_has_servers(servers: Servers) -> None:
    script = f"""
    import urllib.error, urllib.request
    os.environ.update(SERVER_APP_PORT={str(servers.port)!r}, SERVER_APP_VERSION="3")
    import server_app

    def ask(url):
        try: return json.load(urllib.request.urlopen(url))["version"]
        except urllib.error.HTTPError as error: assert error.code == 503, error

    with server_app.app.run():
        url = server_app.Site.get_url()
        until = time.monotonic() + 60
        while not (version := ask(url)) and time.monotonic() < until: time.sleep(0.2)
        answer([url, version])
    """
    url, version = servers.modal.sdk(script)
    assert version == "3"
    with pytest.raises(httpx.ConnectError):
        wait_until(lambda: httpx.get(url).status_code not in (404, 503), "the port to be closed")
