# SPDX-License-Identifier: GPL-3.0-or-later
"""One query to one nameserver: over UDP, and over TCP where the answer was truncated (RFC 7766, 5).

Each query has its own socket, so the kernel draws a random port for each (RFC 5452, 9.2), and its own random number.
The socket is connected: answers from elsewhere never reach us, and a refused port is known at once. Callbacks instead
of coroutines: a task costs more than all else here.

Everything runs in the loop's thread. Another transport would be another class with the same `Exchange` face.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from assay.resolver import wire
from assay.resolver.nameservers import Nameserver
from assay.resolver.statistics import Statistics

MAX_DATAGRAM = 65_535  # octets; what UDP can carry, whatever we asked for
#: Datagrams that answer something else, before we stop listening: someone is guessing (RFC 5452, 5).
MAX_STRAYS = 100
#: What ICMP makes of a query that nobody will answer.
_UNREACHABLE = {errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.ENETUNREACH}


class Cause(Enum):
    """Why there is no answer, as far as it matters for what to do next."""

    TIMEOUT = "timeout"
    UNREACHABLE = "unreachable"  #: the network or the host says that nobody listens there
    #: Nothing that tells about its health: we have no descriptors left, it sends noise, or its TCP does not work. The
    #: last is no fault of UDP's: else whoever publishes a long record could silence a server behind a poor firewall.
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class Fault:
    """No answer, and why; `reason` completes the sentence "the server ..."."""

    cause: Cause
    reason: str


class Exchange(Protocol):
    """A query in flight."""

    def cancel(self) -> None:
        """Stop; `done` will not be called any more."""


@dataclass(frozen=True, slots=True)
class Plain:
    """DNS over UDP and TCP (RFC 1035, 4.2)."""

    loop: asyncio.AbstractEventLoop
    statistics: Statistics
    authentic: bool = False  #: ask for the AD bit

    def ask(self, server: Nameserver, asked: bytes, patience: float, done: Callable[[bytes | Fault], None]) -> Exchange:
        """Send a query.

        :param asked: the question section.
        :param patience: seconds to wait for the answer, and as many again for one over TCP.
        :param done: called once, later, with the message that answers, or why there is none.
        """
        return _Plain(self, server, asked, patience, done)


class _Plain:
    __slots__ = (
        "_asked", "_done", "_identifier", "_patience", "_plain", "_server", "_socket", "_strays", "_task", "_timer",
    )  # fmt: skip

    def __init__(
        self, plain: Plain, server: Nameserver, asked: bytes, patience: float, done: Callable[[bytes | Fault], None]
    ) -> None:
        self._plain = plain
        self._server = server
        self._asked = asked
        self._patience = patience
        self._done = done
        self._identifier = int.from_bytes(os.urandom(2), "big")
        self._strays = 0
        self._socket: socket.socket | None = None
        self._task: asyncio.Task[None] | None = None
        self._timer: asyncio.Handle | None = None
        try:
            family = socket.AF_INET6 if server.is_ipv6 else socket.AF_INET
            self._socket = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
            self._socket.connect((server.address, server.port))
            self._socket.send(wire.query(self._identifier, asked, plain.authentic))
        except OSError as error:
            self._timer = plain.loop.call_soon(self._finish, _fault(error))
            return
        plain.statistics.queries += 1
        # By number: asked for a socket that it does not know, a selector describes it, addresses and all, in vain.
        plain.loop.add_reader(self._socket.fileno(), self._readable)
        self._timer = plain.loop.call_later(patience, self._too_late)

    def cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._socket is not None:
            self._plain.loop.remove_reader(self._socket.fileno())
            self._socket.close()
            self._socket = None
        if self._task is not None:
            self._task.cancel()
            self._task = None

    def _finish(self, outcome: bytes | Fault) -> None:
        self._task = None  # else a task would cancel itself
        self.cancel()
        self._done(outcome)

    def _too_late(self) -> None:
        self._plain.statistics.timeouts += 1
        self._finish(Fault(Cause.TIMEOUT, f"did not answer within {self._patience:g} s"))

    def _readable(self) -> None:
        if self._socket is None:  # cannot be: the reader is removed together with the socket
            return
        try:
            message = self._socket.recv(MAX_DATAGRAM)
        except BlockingIOError:  # the kernel dropped a datagram with a bad checksum
            return
        except OSError as error:
            self._finish(_fault(error))
            return
        if not wire.answers(message, self._identifier, self._asked):
            self._strays += 1
            if self._strays >= MAX_STRAYS:
                self._finish(Fault(Cause.OTHER, "sent too many messages that are no answer"))
        elif wire.is_truncated(message):
            self.cancel()
            self._plain.statistics.streams += 1
            self._task = self._plain.loop.create_task(self._over_tcp())
        else:
            self._finish(message)

    async def _over_tcp(self) -> None:
        outcome: bytes | Fault
        try:
            async with asyncio.timeout(self._patience):
                outcome = await self._ask_over_tcp()
        except TimeoutError:
            self._plain.statistics.timeouts += 1
            outcome = Fault(Cause.OTHER, f"did not answer over TCP within {self._patience:g} s")
        except asyncio.IncompleteReadError:
            outcome = Fault(Cause.OTHER, "closed the TCP connection without an answer")
        except OSError as error:
            outcome = Fault(Cause.OTHER, f"could not be asked over TCP ({_words(error)})")
        self._finish(outcome)

    async def _ask_over_tcp(self) -> bytes | Fault:
        reader, writer = await asyncio.open_connection(self._server.address, self._server.port)
        try:
            message = wire.query(self._identifier, self._asked, self._plain.authentic)
            writer.write(struct.pack("!H", len(message)) + message)  # RFC 1035, 4.2.2
            (length,) = struct.unpack("!H", await reader.readexactly(2))
            answer = await reader.readexactly(length)
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()
        if not wire.answers(answer, self._identifier, self._asked):
            return Fault(Cause.OTHER, "sent a message over TCP that is no answer")
        return answer


def _fault(error: OSError) -> Fault:
    cause = Cause.UNREACHABLE if error.errno in _UNREACHABLE else Cause.OTHER
    return Fault(cause, f"could not be asked ({_words(error)})")


def _words(error: OSError) -> str:
    return os.strerror(error.errno) if error.errno else str(error)  # asyncio's own words name our sockets
