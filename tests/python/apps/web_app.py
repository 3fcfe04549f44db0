"""An app with each kind of web function. Without postponed annotations, as FastAPI and class parameters need them."""

import asyncio
import hashlib
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import modal

app = modal.App("web")
notes = modal.Dict.from_name("web-notes", create_if_missing=True)
image = modal.Image.debian_slim()

Message = dict[str, Any]


@app.function(image=image)
@modal.fastapi_endpoint()
def hello(name: str = "you") -> dict[str, str]:
    return {"hello": name}


@app.function(image=image)
@modal.fastapi_endpoint(method="POST", docs=True, requires_proxy_auth=True)
def guarded(body: dict[str, int]) -> int:
    return sum(body.values())


@app.function(image=image, timeout=60, max_containers=1)
@modal.concurrent(max_inputs=50)
@modal.asgi_app()
def site() -> Any:
    from fastapi import FastAPI, Request, WebSocket, WebSocketDisconnect
    from fastapi.responses import JSONResponse, StreamingResponse

    web = FastAPI()

    @web.get("/scope/{rest:path}")
    async def scope(request: Request, rest: str) -> JSONResponse:
        found = {
            "path": request.url.path,
            "rest": rest,
            "query": dict(request.query_params),
            "client": request.client.host if request.client else None,
            "headers": request.headers.getlist("x-twice"),
            "pid": os.getpid(),
        }
        response = JSONResponse(found, status_code=203)
        response.set_cookie("a", "1")
        response.set_cookie("b", "2")
        return response

    @web.post("/digest")
    async def digest(request: Request) -> dict[str, object]:
        hashed, size, pieces = hashlib.sha256(), 0, 0
        async for piece in request.stream():
            hashed.update(piece)
            size += len(piece)
            pieces += 1
        return {"sha256": hashed.hexdigest(), "size": size, "pieces": pieces}

    @web.get("/bytes/{count}")
    async def many_bytes(count: int) -> StreamingResponse:
        async def pieces() -> AsyncIterator[bytes]:
            for start in range(0, count, 1 << 20):
                yield b"x" * min(1 << 20, count - start)

        return StreamingResponse(pieces(), headers={"content-length": str(count)})

    @web.get("/slow/{seconds}")
    async def slow(seconds: float) -> float:
        await asyncio.sleep(seconds)
        return seconds

    @web.get("/forever")
    async def forever(request: Request) -> StreamingResponse:
        async def pieces() -> AsyncIterator[bytes]:
            try:
                while True:
                    yield b"tick\n"
                    await asyncio.sleep(0.05)
            finally:
                web.state.left = True

        return StreamingResponse(pieces())

    @web.get("/left")
    async def left() -> bool:
        return bool(getattr(web.state, "left", False))

    @web.get("/broken")
    async def broken() -> None:
        raise ValueError("on purpose")

    @web.websocket("/chat")
    async def chat(socket: WebSocket) -> None:
        if "no" in socket.query_params:
            await socket.close(code=4003)
            return
        offered = socket.scope["subprotocols"]
        await socket.accept(subprotocol=offered[-1] if offered else None, headers=[(b"x-chat", b"yes")])
        try:
            while True:
                message = await socket.receive()
                if message["type"] == "websocket.disconnect":
                    await notes.put.aio("chat", message["code"])
                    return
                if message.get("text") == "bye":
                    await socket.close(code=4001, reason="as asked")
                    return
                if message.get("text") == "fail":
                    raise ValueError("on purpose")
                if message.get("text") is not None:
                    await socket.send_text(message["text"].upper())
                else:
                    await socket.send_bytes(message["bytes"][::-1])
        except WebSocketDisconnect:
            return

    return web


@app.function(image=image)
@modal.wsgi_app()
def plain() -> Callable[..., list[bytes]]:
    def respond(environ: Message, start_response: Callable[..., None]) -> list[bytes]:
        body = environ["wsgi.input"].read()
        start_response("201 Created", [("Content-Type", "text/plain"), ("X-Method", environ["REQUEST_METHOD"])])
        return [environ["PATH_INFO"].encode(), b" ", body]

    return respond


@app.function(image=image, timeout=2, startup_timeout=60)
@modal.asgi_app()
def raw() -> Callable[..., Any]:
    """Without a framework that hides what goes wrong."""

    async def respond(scope: Message, receive: Callable[..., Any], send: Callable[..., Any]) -> None:
        assert scope["type"] == "http"
        path = scope["path"]
        message = await receive()
        if path == "/echo":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            while True:
                await send({"type": "http.response.body", "body": message["body"], "more_body": message["more_body"]})
                if not message["more_body"]:
                    return
                message = await receive()
        if path == "/fail":
            raise ValueError("nobody catches this")
        if path == "/silent":
            return
        if path == "/half":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"half", "more_body": True})
            raise ValueError("in the middle")
        if path == "/stuck":
            await asyncio.sleep(60)
        if path == "/die":
            os._exit(3)

    return respond


@app.function(image=image, max_containers=1)
@modal.asgi_app()
def one_at_a_time() -> Callable[..., Any]:
    async def respond(scope: Message, receive: Callable[..., Any], send: Callable[..., Any]) -> None:
        assert scope["type"] == "http"
        await receive()
        await notes.put.aio("running", scope["path"])
        while scope["path"] == "/hold" and not await notes.get.aio("go"):
            await asyncio.sleep(0.05)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": scope["path"].encode()})

    return respond


@app.function(image=image, max_containers=1)
@modal.asgi_app()
def uploads() -> Callable[..., Any]:
    async def respond(scope: Message, receive: Callable[..., Any], send: Callable[..., Any]) -> None:
        await notes.put.aio("uploading", scope["path"])
        message, body = {"more_body": True}, b""
        while message.get("more_body"):
            message = await receive()
            body += message.get("body", b"")
        if message["type"] == "http.request":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": body})

    return respond


@app.function(image=image)
@modal.wsgi_app()
def rows() -> Callable[..., Any]:
    def respond(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterator[bytes]:
        _, count, *then = environ["PATH_INFO"].split("/")
        start_response("200 OK", [("content-type", "text/plain")])
        for n in range(int(count)):
            yield b"row %d\n" % n
        if then == ["fails"]:
            raise ValueError("no more rows")
        if then == ["waits"]:
            while not notes.get("rows"):
                time.sleep(0.05)
            yield b"the end\n"

    return respond


PORT = int(os.environ.get("WEB_APP_PORT", "8123"))


@app.function(image=image, secrets=[modal.Secret.from_dict({"WEB_APP_PORT": str(PORT)})])
@modal.concurrent(max_inputs=20)
@modal.web_server(PORT, startup_timeout=30)
def served() -> None:
    """A server of its own kind, which need not know of ASGI."""
    code = f"""
import http.server, os
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        answer = f"{{os.getpid()}} {{self.path}} {{body.decode()}}".encode()
        self.send_response(202)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)
http.server.ThreadingHTTPServer(("127.0.0.1", {PORT}), Handler).serve_forever()
"""
    subprocess.Popen([sys.executable, "-c", code])


@app.cls(image=image)
class Shop:
    name: str = modal.parameter()
    size: int = modal.parameter(default=3)

    @modal.enter()
    def begin(self) -> None:
        self.begun = time.time()

    @modal.fastapi_endpoint()
    def sign(self) -> dict[str, object]:
        return {"name": self.name, "size": self.size, "pid": os.getpid()}

    @modal.method()
    def describe(self) -> dict[str, object]:
        return {"name": self.name, "size": self.size, "pid": os.getpid()}


@app.cls(image=image)
class Counter:
    @modal.enter()
    def begin(self) -> None:
        self.count = 0

    @modal.fastapi_endpoint(label="count-up")
    def up(self) -> int:
        self.count += 1
        return self.count

    @modal.method()
    def numbers(self, n: int) -> Iterator[int]:
        yield from range(self.count, self.count + n)
