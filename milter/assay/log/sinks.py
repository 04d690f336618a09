# SPDX-License-Identifier: GPL-3.0-or-later
"""Where lines go: standard error, syslog, the journal. Nothing here ever blocks.

A sink is opened by its first line, so each process has its own after a fork. What it cannot send now raises an OSError:
`BlockingIOError` if a reader has to read first.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import stat
import time
from abc import ABC, abstractmethod
from typing import Protocol

from assay.log.level import Level

SYSLOG = "/dev/log"
JOURNALD = "/run/systemd/journal/socket"
_ANEW = os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_GONE = (errno.ECONNREFUSED, errno.ENOTCONN, errno.ECONNRESET, errno.EPIPE)  # restarted: its socket is another one


class Sink(Protocol):
    """Takes octets without ever blocking."""

    def frame(self, level: Level, line: str) -> bytes:
        """The octets of a line."""

    def send(self, octets: bytes) -> int:
        """Send octets.

        :returns: how many of them were sent.
        :raises OSError: none.
        """

    def wait(self, seconds: float) -> None:
        """Wait until octets can be sent, if that is known, and at most so many seconds."""

    def close(self) -> None:
        """Close it."""


class StandardError:
    """Standard error: a file, a terminal, a pipe, or the stream socket that systemd passes.

    Other programs may have the same pipe or terminal, and must not find it non-blocking. So we open it anew, which
    leaves their description alone.
    """

    def __init__(self) -> None:
        self._descriptor = -1
        self._socket: socket.socket | None = None

    def frame(self, _level: Level, line: str) -> bytes:
        """One whole line, so that lines of several threads and processes do not mix."""
        return line.encode("utf-8", "backslashreplace") + b"\n"

    def send(self, octets: bytes) -> int:
        """See `Sink`."""
        if self._descriptor < 0:
            self._open()
        if self._socket is not None:
            return self._socket.send(octets, socket.MSG_DONTWAIT)
        return os.write(self._descriptor, octets)

    def wait(self, seconds: float) -> None:
        """See `Sink`."""
        _wait(self._descriptor, seconds)

    def close(self) -> None:
        """See `Sink`."""
        if self._socket is not None:
            self._socket.close()
        elif self._descriptor >= 0:
            os.close(self._descriptor)
        self._socket, self._descriptor = None, -1

    def _open(self) -> None:
        mode = os.fstat(2).st_mode
        if stat.S_ISSOCK(mode):
            self._socket = socket.socket(fileno=os.dup(2))
            self._descriptor = self._socket.fileno()
        elif stat.S_ISREG(mode):  # a file never blocks, and has one offset for all who write through this description
            self._descriptor = os.dup(2)
        else:
            try:
                self._descriptor = os.open("/proc/self/fd/2", _ANEW)
            except OSError:  # another user's pipe, or no /proc
                self._descriptor = os.dup(2)
                os.set_blocking(2, not stat.S_ISFIFO(mode))


class _Datagrams(ABC):
    """A unix socket that takes a datagram for each line."""

    def __init__(self) -> None:
        self._socket: socket.socket | None = None

    @property
    @abstractmethod
    def _path(self) -> str:
        """Of the socket that takes them."""

    def send(self, octets: bytes) -> int:
        """See `Sink`. Opens the socket again if the other end has been restarted."""
        if self._socket is not None:
            try:
                return self._socket.send(octets)
            except OSError as error:
                if error.errno not in _GONE:
                    raise
                self.close()
        self._socket = self._connect()
        return self._socket.send(octets)

    def wait(self, seconds: float) -> None:
        """See `Sink`."""
        _wait(-1 if self._socket is None else self._socket.fileno(), seconds)

    def close(self) -> None:
        """See `Sink`."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _connect(self) -> socket.socket:
        found = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            found.setblocking(False)
            found.connect(self._path)
        except OSError:
            found.close()
            raise
        return found


class Syslog(_Datagrams):
    """The syslog daemon of this host, in the form that it reads from local programs (RFC 3164, 4.1)."""

    def __init__(self, facility: int) -> None:
        """:param facility: a number of ``syslog``."""
        super().__init__()
        self._facility = facility
        self._second = 0
        self._date = ""

    @property
    def _path(self) -> str:
        return SYSLOG

    def frame(self, level: Level, line: str) -> bytes:
        """See `Sink`."""
        second = int(time.time())
        if second != self._second:
            now = time.localtime(second)
            self._date = time.strftime(f"%b {now.tm_mday:2} %H:%M:%S", now)
            self._second = second
        head = f"<{self._facility | level}>{self._date} assay[{os.getpid()}]: "
        return (head + line).encode("utf-8", "backslashreplace")


class Journald(_Datagrams):
    """The journal of systemd, in its native protocol. The form of the line has all of it."""

    @property
    def _path(self) -> str:
        return JOURNALD

    def frame(self, _level: Level, line: str) -> bytes:
        """See `Sink`."""
        return line.encode("utf-8", "backslashreplace")


def _wait(descriptor: int, seconds: float) -> None:
    """Wait until a descriptor takes octets; the whole time for one whose reader is gone."""
    deadline = time.monotonic() + seconds
    if descriptor >= 0:
        poll = select.poll()
        poll.register(descriptor, select.POLLOUT)
        if all(event == select.POLLOUT for _, event in poll.poll(seconds * 1000)):
            return
    time.sleep(max(0.0, deadline - time.monotonic()))
