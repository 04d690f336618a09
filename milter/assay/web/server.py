# SPDX-License-Identifier: GPL-3.0-or-later
"""Serves the application on one socket, in a thread, until it is closed."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import threading
import time

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from assay.config.endpoint import Endpoint
from assay.daemon.held import listen
from assay.log import Log
from assay.web.headers import SafeHeaders

MAX_CLIENTS = 64  # connections at a time, our choice: a browser opens six. More get 503, if none of them is idle.
MAX_HEADER = 16 * 1024  # octets of a request's head
MAX_REQUEST_SECONDS = 10  # until a whole request has arrived, our choice. Then the connection ends.
MAX_UNREAD_SECONDS = 30  # that a client leaves some of a response unread, our choice. Then the connection ends.
_LOOKS = 10  # in that time
_BACKLOG = 64
_IDLE_SECONDS = 10  # for the next request on a connection
_LAST_SECONDS = 2  # for requests that are under way when the server closes
_START_SECONDS = 10.0
_LOOK_SECONDS = 0.01


class ServerEndedError(Exception):
    """The library serves no longer, though nobody has stopped it. The message says why."""


class WebServer:
    """Answers clients of one socket."""

    def __init__(self, endpoint: Endpoint, mode: int, app: SafeHeaders, log: Log) -> None:
        """Open the socket and answer.

        :param mode: permissions of a unix socket.
        :raises OSError: the socket cannot be opened, or the library does not start.
        """
        _lead_to(log)
        self._path = endpoint.path
        self._socket = listen(endpoint, mode, _BACKLOG)
        config = uvicorn.Config(
            app,
            loop="asyncio",
            http=_BoundedProtocol,
            ws="none",
            lifespan="off",
            interface="asgi3",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            limit_concurrency=MAX_CLIENTS,
            timeout_keep_alive=_IDLE_SECONDS,
            timeout_graceful_shutdown=_LAST_SECONDS,
            h11_max_incomplete_event_size=MAX_HEADER,
        )
        self._server = uvicorn.Server(config)
        self._fault = ""
        self._thread = threading.Thread(target=self._serve, name="page", daemon=True)
        self._thread.start()
        deadline = time.monotonic() + _START_SECONDS
        while not self._server.started:
            if not self._thread.is_alive() or time.monotonic() > deadline:
                raise OSError("the HTTP server does not start")
            time.sleep(_LOOK_SECONDS)

    def _serve(self) -> None:
        try:
            self._server.run(sockets=[self._socket])
        except BaseException as error:  # the library also ends by SystemExit
            self._fault = repr(error)

    def check(self) -> None:
        """
        :raises ServerEndedError: no client is answered any more.
        """
        if not self._thread.is_alive():
            raise ServerEndedError(self._fault or "it gave no reason")

    def close(self) -> None:
        """Stop, let requests that are under way end, and remove the socket."""
        self._server.should_exit = True
        self._thread.join(_LAST_SECONDS + 1)
        self._socket.close()
        if self._path:
            with contextlib.suppress(OSError):
                os.unlink(self._path)


class _BoundedProtocol(H11Protocol):
    """Ends connections whose requests do not arrive in time, or whose responses are not read in time.

    The library waits for both without end. It also closes an idle connection only after all that it has written was
    read, so a client that reads nothing would stay. At `MAX_CLIENTS` the connection that has been idle longest makes
    room for a new one, so that idle clients keep nobody out.
    """

    _heard = 0.0  # when the client last sent something
    _late: asyncio.TimerHandle | None = None
    _look: asyncio.TimerHandle | None = None
    _unread_since: float | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # the subclass
        """Wait for the first request."""
        super().connection_made(transport)
        self._heard = self.loop.time()
        self._watch()
        self._make_room()

    def data_received(self, data: bytes) -> None:
        """Go on waiting, unless the request is whole."""
        super().data_received(data)
        self._heard = self.loop.time()
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no longer."""
        super().connection_lost(exc)
        self._stop()
        if self._look is not None:
            self._look.cancel()

    def _make_room(self) -> None:
        """At the bound, end the connection that has been idle longest."""
        if len(self.connections) < MAX_CLIENTS:
            return
        others = [each for each in self.connections if isinstance(each, _BoundedProtocol) and each is not self]
        stay = [each for each in others if not each.transport.is_closing()]
        idle = [each for each in stay if each._owes_request() and not each.transport.get_write_buffer_size()]
        if idle and len(stay) + 1 >= MAX_CLIENTS:
            min(idle, key=lambda each: each._heard).transport.abort()

    def _owes_request(self) -> bool:
        """Whether there is no whole request to answer."""
        return self.conn.their_state in (h11.IDLE, h11.SEND_BODY)

    def _watch(self) -> None:
        if not self._owes_request():
            self._stop()
            if self._look is None:
                self._look_at_response()
        elif self._late is None:
            self._late = self.loop.call_later(MAX_REQUEST_SECONDS, self.transport.close)

    def _stop(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def _look_at_response(self) -> None:
        """From the first response until the connection ends: see whether all that was written is read."""
        now = self.loop.time()
        if not self.transport.get_write_buffer_size():
            self._unread_since = None
        elif self._unread_since is None:
            self._unread_since = now
        elif now - self._unread_since >= MAX_UNREAD_SECONDS:
            self.transport.abort()
            return
        self._look = self.loop.call_later(MAX_UNREAD_SECONDS / _LOOKS, self._look_at_response)


class _ToLog(logging.Handler):
    """Passes what the library logs on to our log."""

    def __init__(self, log: Log) -> None:
        super().__init__(logging.WARNING)
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        """Log the first line. What a client sent wrongly is for debugging only."""
        if record.levelno < logging.ERROR:
            self._log.debug(f"page: {record.getMessage().partition(chr(10))[0]}")
            return
        reason = repr(record.exc_info[1]) if record.exc_info else record.getMessage().partition("\n")[0]
        self._log.error(f"page: {reason}")


def _lead_to(log: Log) -> None:
    for name in ("uvicorn", "asyncio"):
        logger = logging.getLogger(name)
        logger.handlers = [_ToLog(log)]
        logger.propagate = False
