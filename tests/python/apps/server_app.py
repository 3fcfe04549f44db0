"""An app with servers of several kinds."""

from __future__ import annotations

import base64
import hashlib
import http.server
import json
import os
import threading
import time
from typing import Any

import modal

app = modal.App("servers")
notes = modal.Dict.from_name("server-notes", create_if_missing=True)
PORT = int(os.environ.get("SERVER_APP_PORT", "8000"))
VERSION = os.environ.get("SERVER_APP_VERSION", "1")
ENVIRONMENT: dict[str, str | None] = {"SERVER_APP_PORT": str(PORT), "SERVER_APP_VERSION": VERSION}
WEBSOCKET_KEY = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"

go = threading.Event()


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers in pieces, echoes, waits, and fails on request."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if self.headers.get("Upgrade") == "websocket":
            self.talk()
        elif self.path == "/wait":
            self.begin()
            self.piece(b"first")
            go.wait()
            self.piece(b"last")
            self.piece(b"")
        elif self.path == "/go":
            go.set()
            self.whole(b"{}")
        elif self.path == "/die":
            os._exit(3)
        elif self.path == "/close":
            self.server.socket.close()
            self.whole(b"{}")
        else:
            seen = {
                "task": os.environ["MODAL_TASK_ID"],
                "version": VERSION,
                "path": self.path,
                "headers": dict(self.headers),
            }
            self.whole(json.dumps(seen).encode())

    def do_POST(self) -> None:
        self.begin()
        while size := int(self.rfile.readline(), 16):
            self.piece(self.rfile.read(size).upper())
            self.rfile.readline()
        self.rfile.readline()
        self.piece(b"")

    def begin(self) -> None:
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()

    def piece(self, data: bytes) -> None:
        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")

    def whole(self, data: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("X-Twice", "1")
        self.send_header("X-Twice", "2")
        self.end_headers()
        self.wfile.write(data)

    def talk(self) -> None:
        """Answers a short message of a WebSocket in capitals."""
        key = hashlib.sha1(self.headers["Sec-WebSocket-Key"].encode() + WEBSOCKET_KEY).digest()
        self.send_response(101)
        self.send_header("Upgrade", "websocket")
        self.send_header("Connection", "Upgrade")
        self.send_header("Sec-WebSocket-Accept", base64.b64encode(key).decode())
        self.end_headers()
        length = self.rfile.read(2)[1] & 127
        mask = self.rfile.read(4)
        message = bytes(byte ^ mask[n % 4] for n, byte in enumerate(self.rfile.read(length)))
        self.wfile.write(bytes([0x81, length]) + message.upper())
        self.close_connection = True

    def log_message(self, *_: Any) -> None:
        """Prints nothing."""


def listen(port: int) -> None:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()


@app.server(port=PORT, unauthenticated=True, env=ENVIRONMENT, scaledown_window=3, max_concurrency=2)
class Site:
    @modal.enter()
    def start(self) -> None:
        listen(PORT)

    @modal.exit()
    def stop(self) -> None:
        notes[os.environ["MODAL_TASK_ID"]] = VERSION


@app.server(port=PORT + 1, env=ENVIRONMENT)
class Guarded:
    @modal.enter()
    def start(self) -> None:
        listen(PORT + 1)


@app.server(port=PORT + 2, unauthenticated=True, env=ENVIRONMENT)
class Broken:
    @modal.enter()
    def start(self) -> None:
        raise RuntimeError("nothing to serve")


@app.server(port=PORT + 3, unauthenticated=True, env=ENVIRONMENT, startup_timeout=3)
class Silent:
    @modal.enter()
    def start(self) -> None:
        pass

    @modal.exit()
    def stop(self) -> None:
        notes["silent"] = "ended well"


@app.server(port=PORT + 4, unauthenticated=True, env=ENVIRONMENT)
class Quitting:
    @modal.enter()
    def start(self) -> None:
        print("cannot go on")
        os._exit(7)


@app.server(port=PORT + 5, unauthenticated=True, env=ENVIRONMENT, h2_enabled=True)
class Remote:
    """Speaks gRPC, which needs HTTP/2 and trailers."""

    @modal.enter()
    def start(self) -> None:
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self) -> None:
        import asyncio

        from google.protobuf.wrappers_pb2 import StringValue
        from grpclib.const import Cardinality
        from grpclib.const import Handler as Method
        from grpclib.server import Server, Stream

        class Shouting:
            async def shout(self, stream: Stream[StringValue, StringValue]) -> None:
                request = await stream.recv_message()
                assert request is not None
                await stream.send_message(StringValue(value=request.value.upper()))

            def __mapping__(self) -> dict[str, Method]:
                return {"/test.Shouting/Shout": Method(self.shout, Cardinality.UNARY_UNARY, StringValue, StringValue)}

        async def run() -> None:
            server = Server([Shouting()])
            await server.start("127.0.0.1", PORT + 5)
            await server.wait_closed()

        asyncio.run(run())


@app.server(port=PORT + 6, unauthenticated=True, env=ENVIRONMENT, exit_grace_period=60)
class Patient:
    @modal.enter()
    def start(self) -> None:
        # As servers that take a while to load what they serve.
        threading.Timer(1.0, listen, [PORT + 6]).start()
        self.began = time.time()


@app.server(port=PORT + 8, unauthenticated=True, env=ENVIRONMENT)
class Hesitating:
    """Listens a while before the SDK can be asked to end."""

    @modal.enter()
    def start(self) -> None:
        import asyncio

        kind: Any = asyncio.SelectorEventLoop
        add_signal_handler = kind.add_signal_handler

        def hesitate(*arguments: Any) -> None:
            time.sleep(2)
            add_signal_handler(*arguments)

        kind.add_signal_handler = hesitate
        listen(PORT + 8)

    @modal.exit()
    def stop(self) -> None:
        notes[os.environ["MODAL_TASK_ID"]] = "ended well"


@app.function(env=ENVIRONMENT)
@modal.web_server(PORT + 7)
def plain() -> None:
    listen(PORT + 7)
