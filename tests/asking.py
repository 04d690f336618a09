# SPDX-License-Identifier: GPL-3.0-or-later
"""Requests to an ASGI application in this process, without a server or a socket."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from http.cookies import SimpleCookie
from typing import Any
from urllib.parse import urlencode

from msgspec import Struct

TOKEN = "0123456789abcdef0123456789abcdef"
PEER = "127.0.0.1"

#: Header fields of a request; pairs if one occurs more than once.
Headers = Mapping[str, str] | Sequence[tuple[str, str]]


class Asked(Struct, frozen=True):
    """A response."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes

    @property
    def text(self) -> str:
        """The body."""
        return self.body.decode()

    def header(self, name: str) -> str:
        """A header field that occurs once at most."""
        return next((value for known, value in self.headers if known == name), "")


class Browser:
    """Keeps a cookie from one request to the next, as a browser does."""

    def __init__(self, app: Any, peer: str | None = PEER) -> None:
        """:param peer: the address that connects; None over a unix socket."""
        self._app = app
        self._peer = peer
        self.cookies: dict[str, str] = {}

    def get(self, path: str, headers: Headers | None = None, method: str = "GET") -> Asked:
        """Ask for a page."""
        return self._ask(method, path, headers or {}, b"")

    def post(self, path: str, fields: Mapping[str, str], headers: Headers | None = None) -> Asked:
        """Send a form."""
        return self._ask("POST", path, headers or {}, urlencode(fields).encode())

    def log_in(self, token: str = TOKEN, headers: Headers | None = None) -> Asked:
        """Send the form of the login."""
        return self.post("/login", {"token": token}, headers)

    def _ask(self, method: str, path: str, headers: Headers, body: bytes) -> Asked:
        where, _, query = path.partition("?")
        fields = [("host", "page.example"), *(headers.items() if isinstance(headers, Mapping) else headers)]
        if self.cookies:
            fields.append(("cookie", "; ".join(f"{name}={value}" for name, value in self.cookies.items())))
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": where,
            "raw_path": where.encode(),
            "query_string": query.encode(),
            "root_path": "",
            "headers": [(name.lower().encode(), value.encode("latin-1")) for name, value in fields],
            "client": None if self._peer is None else (self._peer, 1234),
            "server": ("127.0.0.1", 8891),
        }
        asked = asyncio.run(_run(self._app, scope, body))
        for name, value in asked.headers:
            if name == "set-cookie":
                for cookie in SimpleCookie(value).values():
                    self.cookies.pop(cookie.key, None)
                    if cookie["max-age"] != "0":
                        self.cookies[cookie.key] = cookie.value
        return asked


async def _run(app: Any, scope: dict[str, Any], body: bytes) -> Asked:
    sent: list[dict[str, Any]] = []
    messages = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> dict[str, Any]:
        return messages.pop(0) if messages else {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    await app(scope, receive, send)
    headers = tuple((name.decode(), value.decode("latin-1")) for name, value in sent[0]["headers"])
    return Asked(sent[0]["status"], headers, b"".join(message.get("body", b"") for message in sent[1:]))
