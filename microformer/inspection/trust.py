"""Who may ask: the page that was opened with the server's own address, and no other page, program or machine.

    token    a secret of this start, in the address that is printed; every /api request has to show it
    Host     127.0.0.1, localhost, [::1] with the server's port, or a name that was allowed
    Origin   the same, where a browser says it

A web page elsewhere can make a browser send requests here, by a name of its own that leads to 127.0.0.1 (DNS
rebinding) too: it does not know the token, and Host and Origin give it away. What is answered may load nothing from
anywhere else. Knows ASGI, and nothing of what is served.
"""

import hmac
import json
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any
from urllib.parse import parse_qs

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

# The longest body that is read, in bytes.
MOST_BYTES = 1_000_000
_HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
    "cross-origin-resource-policy": "same-origin",
}


class Trust:
    """Lets through who may ask; answers the others itself, in a sentence.

    Args:
        app: what is asked.
        token: the secret.
        port: of the server.
        hosts: names besides this machine's own, with a port or without.
    """

    def __init__(self, app: App, token: str, port: int, hosts: Iterable[str] = ()):
        self.app, self.token = app, token
        # A browser leaves out the port that is usual.
        ports = (f":{port}", "") if port == 80 else (f":{port}",)
        self.own = {f"{name}{end}" for name in ("127.0.0.1", "localhost", "[::1]") for end in ports}
        self.allowed = {host.lower() for host in hosts}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return  # a socket that nobody serves is closed

        async def send_with_headers(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [
                    *message.get("headers", []),
                    *((name.encode(), value.encode()) for name, value in _HEADERS.items()),
                ]
            await send(message)

        refused = self._refused(scope)
        if refused is None:
            await self.app(scope, receive, send_with_headers)
            return
        status, sentence, hint = refused
        body = json.dumps({"error": sentence, "hint": hint}).encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        await send_with_headers({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    def _refused(self, scope: Scope) -> tuple[int, str, str] | None:
        """Why a request is not let through: a status, a sentence and a hint."""
        headers: dict[str, list[str]] = {}
        for name, value in scope["headers"]:
            headers.setdefault(name.decode("latin-1").lower(), []).append(value.decode("latin-1"))
        hosts, origins = headers.get("host", []), headers.get("origin", [])
        if len(hosts) != 1 or not self._known(hosts[0]):
            host = hosts[0] if hosts else ""
            return 403, f"the host {host!r} is not allowed.", f"microformer inspect --allow-host {host or 'HOST'}"
        for origin in origins:
            if not self._known(origin.partition("://")[2]):
                return 403, f"the origin {origin!r} is not allowed.", "open the address that `inspect` printed."
        if not (scope["path"] == "/api" or scope["path"].startswith("/api/")):
            return None  # the page itself, which holds no secret
        query = parse_qs(scope.get("query_string", b"").decode("latin-1"))
        shown = [*headers.get("x-token", []), *query.get("token", [])]
        # As bytes, for a string that is not ASCII can't be compared; in a time that says nothing of where it differs.
        if not shown or not hmac.compare_digest(shown[0].encode("utf-8"), self.token.encode("utf-8")):
            return (
                403,
                "this address is not this server's: its secret is missing, or an earlier server's.",
                "open the address that `microformer inspect` printed last; what follows the # may be put behind it.",
            )
        if scope["method"] == "POST":
            length = headers.get("content-length", [""])[0]
            if not (length.isascii() and length.isdecimal()):
                return 411, "the request does not say how long it is.", "send a Content-Length."
            if len(length) > 12 or int(length) > MOST_BYTES:
                return 413, f"the request is longer than {MOST_BYTES:,} bytes.", "ask for less at a time."
        return None

    def _known(self, host: str) -> bool:
        host = host.lower()
        name = host.rpartition(":")[0] if not host.endswith("]") and ":" in host else host
        return host in self.own or host in self.allowed or name in self.allowed
