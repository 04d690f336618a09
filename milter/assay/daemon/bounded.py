# SPDX-License-Identifier: GPL-3.0-or-later
"""A small server on one socket for the helpers among the children: a thread for each client, and a bound on them."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import socketserver
import stat
import threading
import time
from typing import Any

from assay.config.endpoint import Endpoint

_LOOK_SECONDS = 0.02  # between two looks whether they have ended
_PLACE_SECONDS = 0.2  # between two looks whether the server closes, while all places are taken
_LAST_SECONDS = 2.0  # for the requests that are under way when the server closes


class BoundedServer(socketserver.ThreadingMixIn, socketserver.TCPServer):
    """Answers each client in a thread of its own. Clients beyond the bound wait in the backlog."""

    daemon_threads = True
    block_on_close = False

    def __init__(
        self, endpoint: Endpoint, mode: int, handler: type[socketserver.BaseRequestHandler], most: int
    ) -> None:
        """Open the socket and answer.

        :param mode: permissions of a unix socket.
        :param handler: handles one client.
        :param most: how many clients it serves at a time.
        :raises OSError: the socket cannot be opened.
        """
        self.address_family = endpoint.family
        self._path = endpoint.path
        self._places = threading.BoundedSemaphore(most)
        self._requests: set[object] = set()  # under way
        self._closing = False
        if endpoint.family == socket.AF_UNIX:
            remove_stale(endpoint)
            before = os.umask(0o777 & ~mode)
            try:
                super().__init__(endpoint.path, handler)  # type: ignore[arg-type]  # a path is an address too
            finally:
                os.umask(before)
        else:
            self.allow_reuse_address = True
            super().__init__((endpoint.host or "localhost", endpoint.port), handler)
        threading.Thread(target=self.serve_forever, name="server", daemon=True).start()

    def close(self) -> None:
        """Stop, let requests that are under way end, and remove the socket."""
        self._closing = True
        self.shutdown()
        deadline = time.monotonic() + _LAST_SECONDS
        while self._requests and time.monotonic() < deadline:
            time.sleep(_LOOK_SECONDS)
        self.server_close()
        if self._path:
            with contextlib.suppress(OSError):
                os.unlink(self._path)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Wait for a place. Then the library starts the thread. A client that waits while the server closes is left."""
        while not self._places.acquire(timeout=_PLACE_SECONDS):
            if self._closing:  # close() waits for this thread
                self.shutdown_request(request)
                return
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


def remove_stale(endpoint: Endpoint) -> None:
    """Remove the unix socket of a daemon that was killed, and nothing else.

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
