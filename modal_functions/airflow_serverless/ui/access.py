"""Who may see the page: its address is public, so whoever opens it has to know the token of this session.

The token comes once, in the address that was printed; from then on a cookie stands for it, which scripts of the page
cannot read and other sites cannot have sent.
"""

from __future__ import annotations

import hashlib
import hmac
from urllib.parse import parse_qsl, quote, urlencode

from airflow_serverless.ui.asgi import WRITING, App, Receive, Scope, Send, answer, header

PARAMETER = "token"
PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Airflow is not open to everybody</title>
<body style="font-family: sans-serif; max-width: 40em; margin: 4em auto">
<h1>This page is not open to everybody</h1>
<p>Open the address that <code>airflow-serverless ui</code> has printed, with its <code>?token=</code>.
It is another one each time the command is started.</p></body></html>
"""
REFUSAL = b'{"detail": "Pages of other sites cannot change anything here."}'
NO_TRACES = ((b"cache-control", b"no-store"), (b"referrer-policy", b"no-referrer"))


class Access:
    """Lets requests pass that carry the cookie, and exchanges the token for it."""

    def __init__(self, app: App, token: str) -> None:
        self._app = app
        self._token = token.encode()
        name, value = cookie(token)
        self._name, self._value = name, value.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request that has the token or its cookie."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        given = [value for name, value in query if name == PARAMETER]
        is_http = scope["type"] == "http"
        # Also with the cookie: the token must not stay in the address, from where it would get into bookmarks.
        if is_http and scope["method"] in ("GET", "HEAD") and any(map(self._is_token, given)):
            rest = [(name, value) for name, value in query if name != PARAMETER]
            await answer(send, 303, b"", (b"location", _address(scope["path"], rest)), self._cookie(scope), *NO_TRACES)
        elif any(map(self._is_cookie, header(scope, b"cookie"))):
            if is_http and scope["method"] in WRITING and not _is_own(scope):
                await answer(send, 403, REFUSAL, (b"content-type", b"application/json"), *NO_TRACES)
            else:
                await self._app(scope, receive, send)
        elif is_http:
            page = b"" if scope["method"] == "HEAD" else PAGE.encode()
            await answer(send, 401, page, (b"content-type", b"text/html; charset=utf-8"), *NO_TRACES)
        else:
            await send({"type": "websocket.close", "code": 1008})

    def _is_token(self, given: str) -> bool:
        return hmac.compare_digest(given.encode(), self._token)

    def _is_cookie(self, cookies: bytes) -> bool:
        pairs = (pair.strip().partition(b"=") for pair in cookies.split(b";"))
        values = [value for name, _, value in pairs if name == self._name.encode()]
        return any(hmac.compare_digest(value, self._value) for value in values)

    def _cookie(self, scope: Scope) -> tuple[bytes, bytes]:
        forwarded = header(scope, b"x-forwarded-proto")
        secure = "; Secure" if scope.get("scheme") == "https" or b"https" in forwarded else ""
        attributes = f"Path=/; HttpOnly; SameSite=Lax{secure}"
        return b"set-cookie", f"{self._name}={self._value.decode()}; {attributes}".encode()


def cookie(token: str) -> tuple[str, str]:
    """Name and value of the cookie that stands for a token.

    The value says nothing of the token, and a container that takes over knows it, too. The name is the session's: ports
    of one machine share their cookies, and so do several UIs on it.
    """
    name = hashlib.sha256(token.encode()).hexdigest()[:12]
    return f"airflow_serverless_ui_{name}", hmac.new(token.encode(), b"cookie", hashlib.sha256).hexdigest()


def _is_own(scope: Scope) -> bool:
    """Whether a page of another origin has not had the request sent. To the cookie, all ports of a machine are one."""
    return all(site in (b"same-origin", b"none") for site in header(scope, b"sec-fetch-site"))


def _address(path: str, query: list[tuple[str, str]]) -> bytes:
    # With two slashes at its beginning it would be the address of another host.
    address = "/" + quote(path.lstrip("/"))
    return (f"{address}?{urlencode(query)}" if query else address).encode()
