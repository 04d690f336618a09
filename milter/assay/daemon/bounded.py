# SPDX-License-Identifier: GPL-3.0-or-later
"""A small server on one socket for the helpers among the children: a thread for each client, and a bound on them."""

from __future__ import annotations

import contextlib
import io
import socket
import socketserver
import struct
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from math import inf
from typing import Any

_LOOK_SECONDS = 0.02  # between two looks whether they have ended
_PLACE_SECONDS = 0.2  # between two looks whether the server closes, while all places are taken
_LAST_SECONDS = 2.0  # for the requests that are under way when the server closes
_CREDENTIALS = struct.Struct("3i")  # SO_PEERCRED of unix(7): process, user and group


class BoundedServer(socketserver.ThreadingMixIn, socketserver.TCPServer):
    """Answers each connection in a thread of its own. Those beyond the bound wait in the backlog."""

    daemon_threads = True
    block_on_close = False

    def __init__(
        self,
        listening: socket.socket,
        handler: type[socketserver.BaseRequestHandler],
        most: int,
        *,
        share: int | None = None,
        over: Callable[[str], None] = lambda client: None,
        failed: Callable[[BaseException | None], None] = lambda error: None,
    ) -> None:
        """Answer.

        :param listening: is closed with the server.
        :param handler: handles one connection.
        :param most: how many connections it serves at a time.
        :param share: how many of one client: an address, or a user at a unix socket. Further ones are closed, since
            others would wait behind them. None: no such bound.
        :param over: called with the client in words for each connection that is closed for this reason.
        :param failed: called with the error if a client gets no answer because of a bug, or of no memory or thread.
        """
        self._places = threading.BoundedSemaphore(most)
        self._share = inf if share is None else share
        self._over = over
        self._failed = failed
        self._held: Counter[str] = Counter()  # connections by client
        self._lock = threading.Lock()
        self._requests: set[socket.socket] = set()  # connections that are served
        self._closing = False
        super().__init__(listening.getsockname(), handler, bind_and_activate=False)
        self.socket.close()  # the library's own, which it has not bound
        self.socket = listening
        threading.Thread(target=self.serve_forever, name="server", daemon=True).start()

    def close(self) -> None:
        """Stop, and let requests that are under way end. Clients in the backlog are left to the successor.

        A client that keeps an idle connection sees its end at once. It could otherwise hold up the successor for all
        this time.
        """
        self._closing = True
        self.shutdown()
        self.server_close()
        for connection in tuple(self._requests):
            with contextlib.suppress(OSError):  # the client has left
                connection.shutdown(socket.SHUT_RD)  # what has arrived is still read, and answered
        deadline = time.monotonic() + _LAST_SECONDS
        while self._requests and time.monotonic() < deadline:
            time.sleep(_LOOK_SECONDS)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Wait for a place. Then the library starts the thread. A client that waits while the server closes is left."""
        client = _client(request, client_address)
        if not self._enter(client):
            self._over(client)
            self.shutdown_request(request)
            return
        while not self._places.acquire(timeout=_PLACE_SECONDS):
            if self._closing:  # close() waits for this thread
                self.shutdown_request(request)
                return
        self._requests.add(request)
        try:
            super().process_request(request, client)
        except (RuntimeError, MemoryError):  # the system has no thread left, or no memory for one
            self._leave(request, client)
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """In the thread. The address is the client in words."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._leave(request, client_address)

    def _enter(self, client: str) -> bool:
        """Count a connection of a client; False if it has its share already."""
        with self._lock:
            if self._held[client] >= self._share:
                return False
            self._held[client] += 1
        return True

    def _leave(self, request: socket.socket, client: str) -> None:
        self._requests.discard(request)
        self._places.release()
        with self._lock:
            self._held[client] -= 1
            if not self._held[client]:
                del self._held[client]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that leaves or takes too long is not an error."""
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            self._failed(error)


class DeadlineStream(io.RawIOBase):
    """What a client sends, up to a deadline. The timeout of a socket alone starts again with each octet."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._deadline = 0.0

    def wait(self, seconds: float) -> None:
        """Set the deadline."""
        self._deadline = time.monotonic() + seconds

    def readable(self) -> bool:
        """Yes, as the base class asks."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Wait for octets.

        :raises TimeoutError: the deadline has passed.
        """
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._connection.settimeout(left)
        return self._connection.recv_into(buffer)


def _client(connection: socket.socket, address: Any) -> str:
    """Who a connection counts for: the address of the other end, or its user at a unix socket."""
    if connection.family == socket.AF_UNIX:
        octets = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        return f"user {_CREDENTIALS.unpack(octets)[1]}"
    return str(address[0])
