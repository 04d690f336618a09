# SPDX-License-Identifier: GPL-3.0-or-later
"""The child that answers about the daemon over HTTP: figures for Prometheus, and whether it is alive and ready.

It reads the pages in which all processes count (`assay.metrics`) and stops none of them. If it dies, mail goes on.
"""

from __future__ import annotations

import contextlib
import os
import socket
import socketserver
import threading
from collections.abc import Callable, Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler

from msgspec import Struct

from assay.config import Configuration
from assay.config.endpoint import Endpoint
from assay.daemon.child import Kind, Tether
from assay.log import Log
from assay.metrics import Page, read

_MAX_CLIENTS = 8  # at a time; Prometheus is one. Others wait in the backlog.
_PATIENCE_SECONDS = 5.0  # for a client to send its request and take the answer
_MODE = 0o660  # of a unix socket, as for the MTA's


class HttpResponse(Struct, frozen=True):
    """An answer."""

    status: HTTPStatus
    body: bytes
    content_type: str = "text/plain; charset=utf-8"


#: Answers a path; gets what the client accepts.
Responder = Callable[[str], HttpResponse]


def kind(configuration: Configuration, log: Log) -> tuple[Kind, ...]:
    """The endpoint, if the configuration asks for one."""
    if not configuration.metrics.listen:
        return ()
    return (Kind("endpoint", lambda tether: run(tether, configuration, log)),)


def run(tether: Tether, configuration: Configuration, log: Log) -> int:
    """Serve until the order to drain. Call it in a new child process.

    :returns: the exit code.
    """
    try:
        server = serve(Endpoint.parse(configuration.metrics.listen), _MODE, public(tether.pages, configuration))
    except OSError as error:
        log.error(f"metrics.listen: {configuration.metrics.listen}: {error.strerror or error}")
        return os.EX_UNAVAILABLE
    tether.ready()
    tether.wait()
    server.close()
    return os.EX_OK


def public(pages: tuple[Page, ...], configuration: Configuration) -> Mapping[str, Responder]:
    """What is public."""
    from assay.daemon.exposition import exposition  # the library for it is loaded in this process only

    def metrics(accept: str) -> HttpResponse:
        return HttpResponse(HTTPStatus.OK, *exposition(read(pages), accept))

    def ready(_: str) -> HttpResponse:
        faults = tuple(why_not_ready(pages, configuration))
        if faults:
            return HttpResponse(HTTPStatus.SERVICE_UNAVAILABLE, "".join(f"{fault}\n" for fault in faults).encode())
        return HttpResponse(HTTPStatus.OK, b"ready\n")

    return {"/metrics": metrics, "/healthz": lambda _: HttpResponse(HTTPStatus.OK, b"alive\n"), "/readyz": ready}


def why_not_ready(pages: tuple[Page, ...], configuration: Configuration) -> list[str]:
    """Why no mail would be judged now, one clause each; none if all is well."""
    faults = []
    try:
        Endpoint.parse(configuration.milter.socket).connect(1.0).close()
    except OSError as error:
        faults.append(f"milter.socket {configuration.milter.socket}: {error.strerror or error}")
    reading = read(pages)
    if not reading.total("workers"):
        faults.append("no worker serves")
    nameservers = reading.of("dns_nameserver_up")
    if nameservers and not any(nameservers.values()):
        faults.append("no nameserver answers")
    return faults


class HttpServer:
    """Answers in threads of its own."""

    def __init__(self, server: socketserver.BaseServer, path: str) -> None:
        self._server = server
        self._path = path
        threading.Thread(target=server.serve_forever, name="http", daemon=True).start()

    def close(self) -> None:
        """Stop, and remove the socket."""
        self._server.shutdown()
        self._server.server_close()
        if self._path:
            with contextlib.suppress(OSError):
                os.unlink(self._path)


def serve(endpoint: Endpoint, mode: int, responders: Mapping[str, Responder]) -> HttpServer:
    """Answer these paths.

    :param mode: permissions of a unix socket.
    :raises OSError: the socket cannot be opened.
    """
    unix = endpoint.family == socket.AF_UNIX

    class Handler(BaseHTTPRequestHandler):
        timeout = _PATIENCE_SECONDS

        def do_GET(self) -> None:
            responder = responders.get(f"{'' if self.command == 'GET' else self.command}{self.path.partition('?')[0]}")
            if responder is None:
                self.send_error(HTTPStatus.NOT_FOUND)
                return
            response = responder(self.headers.get("Accept", ""))
            self.send_response(response.status)
            self.send_header("Content-Type", response.content_type)
            self.send_header("Content-Length", str(len(response.body)))
            self.end_headers()
            self.wfile.write(response.body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's name
            """Nothing: who reads the figures is not logged."""

    class Threads(socketserver.ThreadingMixIn, socketserver.TCPServer):
        address_family = endpoint.family
        allow_reuse_address = not unix
        daemon_threads = True
        block_on_close = False
        places = threading.BoundedSemaphore(_MAX_CLIENTS)

        def process_request(self, request: object, client_address: object) -> None:
            self.places.acquire()
            super().process_request(request, client_address)  # type: ignore[arg-type]

        def process_request_thread(self, request: object, client_address: object) -> None:
            try:
                super().process_request_thread(request, client_address)  # type: ignore[arg-type]
            finally:
                self.places.release()

        def handle_error(self, request: object, client_address: object) -> None:
            """A client that left: nothing."""

    if unix:
        with contextlib.suppress(OSError):  # of a daemon that was killed
            os.unlink(endpoint.path)
        before = os.umask(0o777 & ~mode)
        try:
            return HttpServer(Threads(endpoint.path, Handler), endpoint.path)  # type: ignore[arg-type]
        finally:
            os.umask(before)
    return HttpServer(Threads((endpoint.host or "localhost", endpoint.port), Handler), "")
