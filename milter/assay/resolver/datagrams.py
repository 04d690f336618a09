# SPDX-License-Identifier: GPL-3.0-or-later
"""Queries over UDP, many of them on a few sockets (RFC 1035, 4.2.1).

A forger has to guess the port, the number and the question of a query, and to be faster than the server (RFC 5452, 9).
So each nameserver has `SOCKETS` sockets on ports that the kernel draws; each query takes one of them and a number at
random, a number is used once on a socket, and a socket is replaced after `MAX_QUERIES` queries or `MAX_AGE` seconds:
with little traffic, each query has its own port. The sockets are connected: answers from elsewhere never reach
us, and a refused port is known at once.

With `random_case`, the letters of each name that is asked for are upper or lower case at random, and an answer must
repeat them: as many bits more for a forger to guess. A server that does not repeat them is asked again over TCP, where
nobody can forge an answer from outside.

A sender of many wrong answers to a socket knows its port and is guessing. The socket is then closed, and its queries
are asked again from others; no query fails for it, unless that happens again and again.

Callbacks instead of coroutines: a task costs more than all else here. Everything runs in the loop's thread.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Sequence

from assay.resolver import wire
from assay.resolver.nameservers import Nameserver
from assay.resolver.statistics import Statistics
from assay.resolver.transport import Cause, Done, ExchangeFault, MakeRoom, fault, no_room, open_socket

MAX_DATAGRAM = 65_535  # octets; what UDP can carry, whatever we asked for
#: For each nameserver: as many ports a forger has to try, and as many datagrams as its buffers hold, some hundred each.
SOCKETS = 16
#: On one socket, so that a port that somebody found out is not useful for long.
MAX_QUERIES = 100
#: Seconds for which a socket takes new queries; finding out a port from outside takes longer.
MAX_AGE = 10.0
#: Sockets of one nameserver, with those that only wait for late answers. Beyond that they are not replaced.
MAX_SOCKETS = 128
#: Datagrams on one socket that answer no query, before it is closed: someone is guessing (RFC 5452, 5).
MAX_STRAYS = 100
#: How often a query moves to another socket for that reason, before it is abandoned.
MAX_MOVES = 3


class Datagrams:
    """Asks over UDP."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        statistics: Statistics,
        authentic: bool,
        random_case: bool = False,
        make_room: MakeRoom = no_room,
    ) -> None:
        """
        :param authentic: ask for the AD bit.
        :param random_case: ask for names in random case.
        """
        self.make_room = make_room
        self.loop = loop
        self.statistics = statistics
        self.authentic = authentic
        self.random_case = random_case
        self._sockets: dict[Nameserver, _Sockets] = {}

    def ask(self, server: Nameserver, asked: bytes, patience: float, done: Done) -> Query:
        """Send a query.

        :param asked: the question section.
        :param patience: seconds to wait for the answer.
        :param done: called once, later, with the message that answers, perhaps a truncated one, or why there is none.
        """
        sockets = self._sockets.get(server)
        if sockets is None:
            sockets = self._sockets[server] = _Sockets(self, server)
        query = Query(sockets, asked, patience, done)
        query.timer = self.loop.call_later(patience, query.too_late)
        sockets.send(query)
        return query

    def extends(self, server: Nameserver) -> bool:
        """Whether the server supports EDNS, as far as we know."""
        sockets = self._sockets.get(server)
        return sockets is None or sockets.extended

    def keep(self, servers: Sequence[Nameserver]) -> None:
        """Keep only these servers: the sockets of others are closed as soon as nothing is in flight on them."""
        for server in [former for former in self._sockets if former not in servers]:
            self._sockets.pop(server).retire()

    def close(self) -> None:
        """Close all sockets."""
        for sockets in self._sockets.values():
            sockets.close()


class Query:
    """A query over UDP in flight."""

    __slots__ = ("asked", "cased", "done", "extended", "identifier", "moves", "patience", "port", "sockets", "timer")

    def __init__(self, sockets: _Sockets, asked: bytes, patience: float, done: Done) -> None:
        self.sockets = sockets
        self.asked = asked
        self.cased = wire.in_random_case(asked) if sockets.datagrams.random_case else asked
        self.patience = patience
        self.done = done
        self.extended = sockets.extended  # asked with EDNS
        self.identifier = 0
        self.port: _Port | None = None
        self.moves = 0
        self.timer: asyncio.Handle | None = None

    def cancel(self) -> None:
        """Stop; `done` will not be called."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
        if self.port is not None:
            self.port.forget(self)
            self.port = None

    def finish(self, outcome: bytes | ExchangeFault) -> None:
        """End with an answer or without one."""
        if self.timer is not None:  # else it was cancelled
            self.cancel()
            self.done(outcome)

    def answered(self, message: bytes) -> None:
        """Take an answer, or ask again without EDNS if the server does not support it (RFC 6891, 6.2.2)."""
        if not wire.refuses_extension(message):
            # A server that answers only without EDNS is remembered, but not for one question that it never understands.
            self.sockets.extended = self.extended
        elif self.extended and self.port is not None:
            self.extended = False
            self.port.forget(self)
            self.port = None
            self.sockets.send(self)
            return
        if self.cased is not self.asked and not wire.repeats(message, self.cased):
            message = wire.truncated(message)  # so that it is asked again over TCP
        self.finish(message)

    def too_late(self) -> None:
        """Its time has run out."""
        self.sockets.datagrams.statistics.timeouts += 1
        self.finish(ExchangeFault(Cause.TIMEOUT, f"did not answer within {self.patience:g} s"))


class _Sockets:
    """The sockets of one nameserver."""

    def __init__(self, datagrams: Datagrams, server: Nameserver) -> None:
        self.datagrams = datagrams
        self.server = server
        self.current: list[_Port | None] = [None] * SOCKETS
        self.open: set[_Port] = set()
        self.extended = True  # the server supports EDNS, as far as we know
        self.retired = False  # no more queries

    def send(self, query: Query) -> None:
        loop = self.datagrams.loop
        chance = os.urandom(3)
        try:
            port = self._port(chance[0] % SOCKETS)
        except OSError as error:
            loop.call_soon(query.finish, fault(error))
            return
        identifier = chance[1] << 8 | chance[2]
        while identifier in port.queries:
            identifier = int.from_bytes(os.urandom(2), "big")
        query.identifier, query.port = identifier, port
        port.queries[identifier] = query
        port.busy += 1
        try:
            port.socket.send(wire.query(identifier, query.cased, self.datagrams.authentic, query.extended))
        except OSError as error:
            failed = fault(error)
            if failed.cause is Cause.UNREACHABLE:  # applies to all that were sent before
                loop.call_soon(port.fail, failed)
            else:
                loop.call_soon(query.finish, failed)
            return
        self.datagrams.statistics.queries += 1

    def close(self) -> None:
        for port in list(self.open):
            port.close()

    def retire(self) -> None:
        self.retired = True
        for port in list(self.open):
            port.close_if_idle()

    def dismiss(self, port: _Port) -> None:
        """It takes no new queries."""
        if self.current[port.slot] is port:
            self.current[port.slot] = None

    def _port(self, slot: int) -> _Port:
        """The socket in this slot; a new one if it is used up."""
        port = self.current[slot]
        if port is not None:
            fresh = len(port.queries) < MAX_QUERIES and self.datagrams.loop.time() < port.ends
            if fresh or (port.busy and len(self.open) >= MAX_SOCKETS and len(port.queries) < 1 << 15):
                return port
            self.dismiss(port)
            port.close_if_idle()
        try:
            port = self.current[slot] = _Port(self, slot)
        except OSError:  # no descriptor is left: use an existing one
            port = next((other for other in self.current if other is not None), None)
            if port is None:
                raise
        return port


class _Port:
    """A socket."""

    __slots__ = ("busy", "ends", "queries", "slot", "socket", "sockets", "strays")

    def __init__(self, sockets: _Sockets, slot: int) -> None:
        self.sockets = sockets
        self.slot = slot
        #: By number, in flight or, as None, ended: answers to ended ones are late, not guesses.
        self.queries: dict[int, Query | None] = {}
        self.busy = 0  # of them, in flight
        self.strays = 0
        loop, server = sockets.datagrams.loop, sockets.server
        self.ends = loop.time() + MAX_AGE
        self.socket = open_socket(server, socket.SOCK_DGRAM, sockets.datagrams.make_room)
        try:
            self.socket.connect((server.address, server.port))
        except OSError:
            self.socket.close()
            raise
        # By number: for an unknown socket, a selector would format its addresses for an error that is discarded.
        loop.add_reader(self.socket.fileno(), self._readable)
        sockets.open.add(self)

    def forget(self, query: Query) -> None:
        """A query ended."""
        self.queries[query.identifier] = None
        self.busy -= 1
        if not self.busy and (self.sockets.retired or self.sockets.current[self.slot] is not self):
            self.close()

    def close_if_idle(self) -> None:
        if not self.busy:
            self.close()

    def close(self) -> None:
        if self in self.sockets.open:
            self.sockets.open.remove(self)
            self.sockets.dismiss(self)
            self.sockets.datagrams.loop.remove_reader(self.socket.fileno())
            self.socket.close()

    def fail(self, why: ExchangeFault) -> None:
        """Nothing listens at the other end."""
        for query in self._abandon():
            query.finish(why)

    def _abandon(self) -> list[Query]:
        """Close the socket; its queries are then no longer in flight."""
        queries = [query for query in self.queries.values() if query is not None]
        self.close()
        self.queries = {}
        for query in queries:
            query.port = None
        return queries

    def _readable(self) -> None:
        try:
            message = self.socket.recv(MAX_DATAGRAM)
        except BlockingIOError:  # the kernel dropped a datagram with a bad checksum
            return
        except OSError as error:
            self.fail(fault(error))
            return
        identifier = int.from_bytes(message[:2], "big")
        query = self.queries.get(identifier)
        if query is not None and wire.answers(message, identifier, query.asked):
            query.answered(message)
        elif query is not None or identifier not in self.queries:
            self._stray()

    def _stray(self) -> None:
        self.strays += 1
        if self.strays < MAX_STRAYS:
            return
        for query in self._abandon():
            query.moves += 1
            if query.moves > MAX_MOVES:
                query.finish(ExchangeFault(Cause.OTHER, "sent too many messages that are not an answer"))
            else:
                self.sockets.send(query)
