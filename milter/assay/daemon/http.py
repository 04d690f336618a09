# SPDX-License-Identifier: GPL-3.0-or-later
"""A small HTTP server for the endpoint: a table of paths, on one socket, with bounds on its clients."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import socketserver
import stat
import threading
import time
from collections.abc import Callable, Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from typing import Any

from msgspec import Struct

from assay.config.endpoint import Endpoint

MAX_CLIENTS = 8  # at a time; Prometheus is one. Others wait in the backlog.
_PATIENCE_SECONDS = 5.0  # for a client to send its request and take the answer
_LOOK_SECONDS = 0.02  # between two looks whether they have ended
_LAST_SECONDS = 2.0  # for the requests that are under way when the server closes


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

    def do_GET(self) -> None:
        responder = self.server.responders.get(f"{self.command} {self.path.partition('?')[0]}")
        if responder is None:
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        response = responder(self.headers.get("Accept", ""))
        self.send_response(response.status)
        self.send_header("Content-Type", response.content_type)
        self.send_header("Content-Length", str(len(response.body)))
        self.end_headers()
        self.wfile.write(response.body)

    do_POST = do_GET  # noqa: N815 - likewise

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's name
        """Nothing: who reads the figures is not logged."""


class HttpServer(socketserver.ThreadingMixIn, socketserver.TCPServer):
    """Answers each client in a thread of its own."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, endpoint: Endpoint, mode: int, responders: Mapping[str, Responder]) -> None:
        """Open the socket and answer.

        :param mode: permissions of a unix socket.
        :param responders: by method and path, such as ``GET /metrics``.
        :raises OSError: the socket cannot be opened.
        """
        self.responders = responders
        self.address_family = endpoint.family
        self._path = endpoint.path
        self._places = threading.BoundedSemaphore(MAX_CLIENTS)
        self._requests: set[object] = set()  # under way
        if endpoint.family == socket.AF_UNIX:
            _remove_stale(endpoint)
            before = os.umask(0o777 & ~mode)
            try:
                super().__init__(endpoint.path, _Handler)  # type: ignore[arg-type]
            finally:
                os.umask(before)
        else:
            self.allow_reuse_address = True
            super().__init__((endpoint.host or "localhost", endpoint.port), _Handler)
        threading.Thread(target=self.serve_forever, name="http", daemon=True).start()

    def close(self) -> None:
        """Stop, let requests that are under way end, and remove the socket."""
        self.shutdown()
        deadline = time.monotonic() + _LAST_SECONDS
        while self._requests and time.monotonic() < deadline:
            time.sleep(_LOOK_SECONDS)
        self.server_close()
        if self._path:
            with contextlib.suppress(OSError):
                os.unlink(self._path)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Wait for a place. Then the library starts the thread."""
        self._places.acquire()
        self._requests.add(request)
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """In the thread."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._requests.discard(request)
            self._places.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that left: nothing."""


def _remove_stale(endpoint: Endpoint) -> None:
    """Remove the socket of a daemon that was killed, and nothing else.

    :raises OSError: another daemon answers on it.
    """
    try:
        if not stat.S_ISSOCK(os.lstat(endpoint.path).st_mode):
            return
        endpoint.connect(1.0).close()
    except ConnectionRefusedError:
        os.unlink(endpoint.path)
    except FileNotFoundError:
        return
    else:
        raise OSError(errno.EADDRINUSE, "another daemon serves on it")
