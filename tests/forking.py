# SPDX-License-Identifier: GPL-3.0-or-later
"""What the tests of processes that answer once let them do."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable
from unittest import mock


def killed(number: int = signal.SIGKILL) -> bytes:
    """End this process by a signal."""
    os.kill(os.getpid(), number)
    return b""


def killed_while_writing(number: int = signal.SIGKILL) -> bytes:
    """An answer in the middle of which a signal ends this process."""
    write = os.write

    def half(descriptor: int, octets: memoryview) -> int:
        write(descriptor, octets[:10])
        killed(number)
        return 0

    mock.patch("os.write", half).start()
    return b"x" * 1000


def what_it_has_open(run: Callable[[Callable[[], bytes]], bytes]) -> bytes:
    """Whether a socket of this process is b"open" or b"closed" in the process that `run` makes."""
    ours, theirs = socket.socketpair()

    def look() -> bytes:
        try:
            os.fstat(ours.fileno())
        except OSError:
            return b"closed"
        return b"open"

    with ours, theirs:
        return run(look)
