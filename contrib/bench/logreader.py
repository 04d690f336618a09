# SPDX-License-Identifier: GPL-3.0-or-later
"""The syslog daemon of the sandbox: it reads ``/dev/log``, as an installation's does, and forgets what it has read.

The milters pay for each line that they send, and a daemon that does not read would make them wait.
"""

from __future__ import annotations

import multiprocessing
import os
import socket
import time
from pathlib import Path

_SOCKET = Path("/dev/log")
_PATIENCE = 60.0


class Syslog:
    """The daemon, a separate process, until `stop`."""

    def __init__(self) -> None:
        self._process = multiprocessing.Process(target=_read, daemon=True)
        self._process.start()
        deadline = time.monotonic() + _PATIENCE
        while not _SOCKET.is_socket():
            if not self._process.is_alive() or time.monotonic() > deadline:
                raise SystemExit("bench: nobody reads /dev/log")
            time.sleep(0.01)

    def stop(self) -> None:
        """End it."""
        self._process.terminate()
        self._process.join()


def _read() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as log:
        log.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
        log.bind(str(_SOCKET))
        os.chmod(_SOCKET, 0o666)  # noqa: S103  # as syslog daemons make it
        buffer = bytearray(65536)
        while True:
            log.recv_into(buffer)
