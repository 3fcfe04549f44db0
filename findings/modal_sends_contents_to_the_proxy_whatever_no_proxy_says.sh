#!/bin/sh
# modal 1.6.4 (with aiohttp-socks): requests for the contents of files and large arguments go to the proxy, also to hosts
# that NO_PROXY excepts; gRPC calls to the same host do not.
#
# Expected: NO_PROXY holds for both: whoever serves both on this machine, or in a network that the proxy does not reach,
#           excepts its host once.
# Observed: the channel of gRPC asks for the proxy of its host, and gets none. The session for contents is made once for
#           all hosts, so no host is known when the proxy is chosen, and each request is sent to it.
# Output seen: see `expected` below.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check uv==0.13.9
"$folder/venv/bin/uv" pip install --quiet --python "$folder/venv/bin/python" modal==1.6.4 aiohttp-socks==0.11.0

cat > "$folder/finding.py" <<'END'
import asyncio
import os

from aiohttp import web
from modal._utils.http_utils import _http_client_with_tls
from modal._utils.proxy_support import get_proxy_url


async def main() -> None:
    asked: list[str] = []

    async def proxy(reader, writer):
        asked.append((await reader.readline()).split()[0].decode())
        writer.close()

    async def content(request):
        return web.Response(text="content")

    listener = await asyncio.start_server(proxy, "127.0.0.1", 0)
    app = web.Application()
    app.router.add_get("/", content)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    os.environ["https_proxy"] = "http://127.0.0.1:%d" % listener.sockets[0].getsockname()[1]
    os.environ["no_proxy"] = "127.0.0.1"
    print("proxy of gRPC to 127.0.0.1:", get_proxy_url("127.0.0.1", use_ssl=True))
    async with _http_client_with_tls(timeout=10) as session:
        try:
            async with session.get(f"http://127.0.0.1:{port}/") as response:
                print("content:", await response.text())
        except Exception as error:
            print("content:", type(error).__name__)
    print("the proxy was asked:", asked)
    await runner.cleanup()


asyncio.run(main())
END
expected="proxy of gRPC to 127.0.0.1: None
content: ProxyError
the proxy was asked: ['CONNECT']"
seen=$(cd "$folder" && env -u HTTP_PROXY -u HTTPS_PROXY -u ALL_PROXY HOME="$folder" venv/bin/python finding.py 2> errors)
echo "$seen"
[ "$seen" = "$expected" ] || { cat "$folder/errors" >&2; echo "changed" >&2; exit 1; }
