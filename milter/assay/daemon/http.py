# SPDX-License-Identifier: GPL-3.0-or-later
"""A small HTTP server for the endpoint: a table of paths, on one socket, with bounds on its clients."""

from __future__ import annotations

import io
import socket
from collections.abc import Callable, Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler

from msgspec import Struct

from assay.daemon.bounded import BoundedServer, DeadlineStream
from assay.log import Log

MAX_CLIENTS = 8  # at a time; Prometheus is one. Others wait in the backlog.
_PATIENCE_SECONDS = 5.0  # for a client to send its whole request, and then to take the answer


class HttpResponse(Struct, frozen=True):
    """An answer."""

    status: HTTPStatus
    body: bytes
    content_type: str = "text/plain; charset=utf-8"


#: Answers a request; gets what the client accepts.
Responder = Callable[[str], HttpResponse]


class _Handler(BaseHTTPRequestHandler):
    timeout = _PATIENCE_SECONDS
    server: HttpServer

    def setup(self) -> None:
        super().setup()
        stream = DeadlineStream(self.connection)
        stream.wait(_PATIENCE_SECONDS)
        self.rfile = io.BufferedReader(stream)

    def do_GET(self) -> None:
        responder = self.server.responders.get(f"{self.command} {self.path.partition('?')[0]}")
        if responder is None:
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        response = responder(self.headers.get("Accept", ""))
        self.connection.settimeout(_PATIENCE_SECONDS)
        self.send_response(response.status)
        self.send_header("Content-Type", response.content_type)
        self.send_header("Content-Length", str(len(response.body)))
        self.end_headers()
        self.wfile.write(response.body)

    do_POST = do_GET  # noqa: N815 - the library's name

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's name
        """Nothing: who reads the figures is not logged."""


class HttpServer(BoundedServer):
    """Answers requests."""

    def __init__(self, listening: socket.socket, responders: Mapping[str, Responder], log: Log) -> None:
        """Answer.

        :param listening: is closed with the server.
        :param responders: by method and path, such as ``GET /metrics``.
        """
        self.responders = responders
        super().__init__(
            listening,
            _Handler,
            MAX_CLIENTS,
            failed=lambda error: log.error(f"endpoint: a client got no answer: {error!r}"),
        )
