# SPDX-License-Identifier: GPL-3.0-or-later
"""Queries over TCP, each with a connection of its own (RFC 7766, 5).

They are for answers that do not fit into a datagram, and rare in honest mail. A stranger can make all of his answers so
long, so an exchange is driven by callbacks on a bare socket, which takes a third of what asyncio's streams take. Each
has a descriptor: the caller must bound their number.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import struct

from assay.resolver import wire
from assay.resolver.nameservers import Nameserver
from assay.resolver.statistics import Statistics
from assay.resolver.transport import Cause, Done, ExchangeFault, MakeRoom, no_room, open_socket, words

#: Octets of an answer that is read; our choice. The largest sets of TXT records in use have some ten thousand. More is
#: not even received: RFC 1035, 4.2.2 puts the length in front.
MAX_ANSWER = 16_384
_CHUNK = 16_384  # octets received at a time


class Streams:
    """Asks over TCP."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        statistics: Statistics,
        authentic: bool,
        make_room: MakeRoom = no_room,
    ) -> None:
        """
        :param authentic: ask for the AD bit.
        """
        self.make_room = make_room
        self.loop = loop
        self.statistics = statistics
        self._authentic = authentic

    def ask(self, server: Nameserver, asked: bytes, patience: float, done: Done, extended: bool = True) -> Stream:
        """Send a query.

        :param asked: the question section.
        :param patience: seconds to wait for the answer.
        :param done: called once, later, with the message that answers, or why there is none.
        :param extended: the server knows EDNS.
        """
        self.statistics.streams += 1
        identifier = int.from_bytes(os.urandom(2), "big")
        query = wire.query(identifier, asked, self._authentic, extended)
        return Stream(self, server, identifier, asked, struct.pack("!H", len(query)) + query, patience, done)


class Stream:
    """A query over TCP in flight."""

    __slots__ = ("_asked", "_done", "_identifier", "_patience", "_query", "_received", "_socket", "_streams", "_timer")

    def __init__(
        self,
        streams: Streams,
        server: Nameserver,
        identifier: int,
        asked: bytes,
        query: bytes,
        patience: float,
        done: Done,
    ) -> None:
        """:param query: with its length in front (RFC 1035, 4.2.2)."""
        self._streams = streams
        self._identifier = identifier
        self._asked = asked
        self._query = query
        self._patience = patience
        self._done = done
        self._received = bytearray()
        self._socket: socket.socket | None = None
        loop = streams.loop
        self._timer: asyncio.Handle = loop.call_later(patience, self._too_late)
        try:
            self._socket = open_socket(server, socket.SOCK_STREAM, streams.make_room)
            failed = self._socket.connect_ex((server.address, server.port))
        except OSError as error:
            failed = error.errno or errno.EIO
        if failed in (0, errno.EINPROGRESS) and self._socket is not None:
            loop.add_writer(self._socket.fileno(), self._connected)
        else:
            self._timer.cancel()
            self._timer = loop.call_soon(self._fail, OSError(failed, os.strerror(failed)))

    def cancel(self) -> None:
        """Stop; `done` is not called any more."""
        self._timer.cancel()
        if self._socket is not None:
            descriptor = self._socket.fileno()
            self._streams.loop.remove_writer(descriptor)
            self._streams.loop.remove_reader(descriptor)
            self._socket.close()
            self._socket = None

    def _finish(self, outcome: bytes | ExchangeFault) -> None:
        self.cancel()
        self._done(outcome)

    def _fail(self, error: OSError) -> None:
        self._finish(ExchangeFault(Cause.OTHER, f"could not be asked over TCP ({words(error)})"))

    def _too_late(self) -> None:
        self._streams.statistics.timeouts += 1
        self._finish(ExchangeFault(Cause.OTHER, f"did not answer over TCP within {self._patience:g} s"))

    def _connected(self) -> None:
        if self._socket is None:  # cannot be: the writer is removed together with the socket
            return
        self._streams.loop.remove_writer(self._socket.fileno())
        failed = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if failed:
            self._fail(OSError(failed, os.strerror(failed)))
            return
        try:
            self._socket.send(self._query)  # into an empty buffer: it is taken whole
        except OSError as error:
            self._fail(error)
            return
        self._streams.loop.add_reader(self._socket.fileno(), self._readable)

    def _readable(self) -> None:
        if self._socket is None:  # cannot be: the reader is removed together with the socket
            return
        try:
            chunk = self._socket.recv(_CHUNK)
        except BlockingIOError:
            return
        except OSError as error:
            self._fail(error)
            return
        if not chunk:
            self._finish(ExchangeFault(Cause.OTHER, "closed the TCP connection without an answer"))
            return
        received = self._received
        received += chunk
        if len(received) < 2:
            return
        length = int.from_bytes(received[:2], "big")
        if length > MAX_ANSWER:
            self._finish(ExchangeFault(Cause.TOO_LONG, f"has an answer of more than {MAX_ANSWER} octets"))
        elif len(received) >= 2 + length:
            self._take(bytes(received[2 : 2 + length]))

    def _take(self, message: bytes) -> None:
        if wire.answers(message, self._identifier, self._asked):
            self._finish(message)
        else:
            self._finish(ExchangeFault(Cause.OTHER, "sent a message over TCP that is not an answer"))
