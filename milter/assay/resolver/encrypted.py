# SPDX-License-Identifier: GPL-3.0-or-later
"""Queries over TLS and HTTPS, many of them on a few connections that are kept (RFC 7858, 3.4; RFC 7766, 6.2.1).

Strangers whose nameservers are slow must not harm what shares a connection with them. A server works on a limited
number of queries of one connection at a time (unbound: 32) and reads no more until one is answered; so a connection
takes only as many. unbound closes the whole connection if one answer comes later than its discard-timeout; so a
connection on which a query is slow takes no new ones. Another connection is opened then, up to `CONNECTIONS`. With
honest mail there is one, seldom two.

When a connection is lost, its queries are asked again on another one (RFC 7766, 6.2.4): servers close connections
whenever they like. A connection on which nothing was heard for the whole patience of a query is given up, for the path
to the server may have forgotten it.

Everything runs in the loop's thread.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Sequence

from assay.resolver import tls, wire
from assay.resolver.dot import Lengths
from assay.resolver.framing import BrokenError, Framing
from assay.resolver.nameservers import Nameserver
from assay.resolver.statistics import Statistics
from assay.resolver.transport import Cause, Done, ExchangeFault, MakeRoom, no_room

#: For each nameserver. Together with what a connection takes, as many as there are places for queries.
CONNECTIONS = 32
#: Seconds for which a connection is kept that nobody uses. Servers keep one for ten to thirty.
IDLE = 60.0
#: Seconds in which no further connection is tried, after one failed beside others that work.
PAUSE = 1.0
#: Connections that a query may lose before it is abandoned. One on which nothing was ever heard counts as all of them.
MAX_LOSSES = 3
#: Seconds after which a query is slow. Most that a resolver must look up itself take a tenth.
LINGER = 0.5


class Encrypted:
    """Asks over TLS and HTTPS."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        statistics: Statistics,
        authentic: bool,
        contexts: tls.Contexts,
        make_room: MakeRoom = no_room,
    ) -> None:
        """
        :param authentic: ask for the AD bit.
        :param contexts: by scheme, of the servers that will be asked.
        """
        self.loop = loop
        self.statistics = statistics
        self.authentic = authentic
        self.contexts = contexts
        self.make_room = make_room
        self._pools: dict[Nameserver, _Pool] = {}

    def ask(self, server: Nameserver, asked: bytes, patience: float, done: Done) -> SecureQuery:
        """Send a query.

        :param asked: the question section.
        :param patience: seconds to wait for the answer, including for a connection.
        :param done: called once, later, with the message that answers, or why there is none.
        """
        pool = self._pools.get(server)
        if pool is None:
            pool = self._pools[server] = _Pool(self, server)
        query = SecureQuery(pool, asked, patience, done)
        query.timer = self.loop.call_later(patience, query.too_late)
        pool.send(query)
        query.since = self.loop.time()
        return query

    def close(self) -> None:
        """Close all connections."""
        for pool in self._pools.values():
            pool.close()


class SecureQuery:
    """A query in flight."""

    __slots__ = ("asked", "connection", "done", "losses", "number", "patience", "pool", "sent", "since", "timer")

    def __init__(self, pool: _Pool, asked: bytes, patience: float, done: Done) -> None:
        self.pool = pool
        self.asked = asked
        self.patience = patience
        self.done = done
        self.since = 0.0  # when it was on its first connection
        self.number = 0
        self.connection: _Connection | None = None
        self.sent = 0.0  # when it was sent on this connection
        self.losses = 0
        self.timer: asyncio.Handle | None = None

    def cancel(self) -> None:
        """Stop; `done` will not be called."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
        if self.connection is not None:
            self.connection.forget(self)
            self.connection = None

    def finish(self, outcome: bytes | ExchangeFault) -> None:
        """End with an answer or without one."""
        if self.timer is not None:  # else it was cancelled
            self.cancel()
            self.done(outcome)

    def too_late(self) -> None:
        """Its time has run out."""
        self.pool.encrypted.statistics.timeouts += 1
        connection = self.connection
        if connection is not None:
            connection.forget(self)
            self.connection = None
            if connection.born <= self.since and connection.heard <= self.since:
                connection.give_up()
        self.finish(ExchangeFault(Cause.TIMEOUT, f"did not answer within {self.patience:g} s"))


class _Pool:
    """The connections to one nameserver."""

    def __init__(self, encrypted: Encrypted, server: Nameserver) -> None:
        self.encrypted = encrypted
        self.server = server
        self.session: ssl.SSLSession | None = None  # of the newest connection on which something was received
        self.framing = _framing(server)
        self._connections: dict[_Connection, None] = {}
        self._no_more_until = float("-inf")
        self._sweep: asyncio.Handle | None = None

    def send(self, query: SecureQuery) -> None:
        self._pick().send(query)
        self.encrypted.statistics.encrypted += 1

    def close(self) -> None:
        if self._sweep is not None:
            self._sweep.cancel()
        for connection in self._connections:
            connection.channel.close()
        self._connections.clear()

    def remove(self, connection: _Connection) -> None:
        """It takes no more queries."""
        self._connections.pop(connection, None)

    def lost(
        self, connection: _Connection, queries: Sequence[SecureQuery], why: ExchangeFault, *, was_open: bool
    ) -> None:
        """A connection has ended with these queries on it."""
        self.remove(connection)
        if not was_open:
            self.session = None
            if any(other.channel.is_open for other in self._connections):
                self._no_more_until = self.encrypted.loop.time() + PAUSE
            else:
                for query in queries:
                    query.finish(why)
                return
        for query in queries:
            query.losses += 1 if connection.heard > connection.born else MAX_LOSSES
            if query.losses > MAX_LOSSES:
                query.finish(why)
            elif query.timer is not None:  # else it was cancelled by what another one of them did
                self.send(query)

    def _pick(self) -> _Connection:
        now = self.encrypted.loop.time()
        for connection in self._connections:
            if connection.takes_more(now):
                return connection
        usable = [connection for connection in self._connections if connection.framing.capacity]
        if usable and (len(self._connections) >= CONNECTIONS or now < self._no_more_until):
            return min(usable, key=lambda connection: len(connection.queries))
        connection = _Connection(self, now)
        self._connections[connection] = None
        if self._sweep is None:
            self._sweep = self.encrypted.loop.call_later(IDLE, self._close_idle)
        return connection

    def _close_idle(self) -> None:
        self._sweep = None
        oldest = self.encrypted.loop.time() - IDLE
        for connection in [other for other in self._connections if not other.busy and other.used < oldest]:
            connection.close()
        if self._connections:
            self._sweep = self.encrypted.loop.call_later(IDLE, self._close_idle)


class _Connection:
    """One connection, and the queries on it."""

    __slots__ = ("born", "busy", "channel", "framing", "heard", "pool", "queries", "used")

    def __init__(self, pool: _Pool, now: float) -> None:
        self.pool = pool
        #: By number, the oldest first; also those that were given up, while their answers may still come.
        self.queries: dict[int, SecureQuery] = {}
        self.busy = 0  # of them, in flight
        self.born = self.used = now
        self.heard = float("-inf")
        self.framing = pool.framing()
        encrypted = pool.encrypted
        encrypted.statistics.handshakes += 1
        context = encrypted.contexts[pool.server.scheme]
        self.channel = tls.Channel(encrypted.loop, context, pool.server, pool.session, self, encrypted.make_room)
        self.channel.write(self.framing.opening())

    def takes_more(self, now: float) -> bool:
        """Whether a query may be added without harm from those that are there."""
        if not self.queries:
            return self.framing.capacity > 0
        oldest = next(iter(self.queries.values()))
        return len(self.queries) < self.framing.capacity and now - oldest.sent < LINGER

    def send(self, query: SecureQuery) -> None:
        query.sent = self.pool.encrypted.loop.time()
        query.number, octets = self.framing.ask(query.asked, self.pool.encrypted.authentic)
        query.connection = self
        self.queries[query.number] = query
        self.busy += 1
        self.channel.write(octets)

    def forget(self, query: SecureQuery) -> None:
        """A query is given up, or has been answered."""
        if query.number not in self.queries:
            return
        self.used = self.pool.encrypted.loop.time()
        self.busy -= 1
        over, octets = self.framing.cancel(query.number)
        if over:
            del self.queries[query.number]
        self.channel.write(octets)
        if not self.busy and len(self.queries) >= self.framing.capacity:
            self.close()  # it is full of queries whose answers nobody waits for

    def close(self) -> None:
        self.pool.remove(self)
        self.channel.close()

    def give_up(self) -> None:
        """Nothing comes over it any more: ask the others again, on another connection."""
        self.close()
        for query in self._abandon():
            self.pool.send(query)

    def _abandon(self) -> list[SecureQuery]:
        queries = [query for query in self.queries.values() if query.connection is self]
        self.queries = {}
        self.busy = 0
        for query in queries:
            query.connection = None
        return queries

    def received(self, octets: bytes) -> None:
        """Take what the server sent."""
        if self.heard == float("-inf"):
            self.pool.session = self.channel.session
        self.heard = self.used = self.pool.encrypted.loop.time()
        try:
            answers, reply = self.framing.receive(octets)
        except BrokenError as error:
            self.close()
            self.lost(ExchangeFault(Cause.OTHER, str(error)), was_open=True)
            return
        self.channel.write(reply)
        for number, outcome in answers:
            query = self.queries.pop(number, None)
            if query is not None and query.connection is self:  # else it was given up
                self.busy -= 1
                query.connection = None
                query.finish(self._checked(query, outcome))

    def _checked(self, query: SecureQuery, outcome: bytes | ExchangeFault) -> bytes | ExchangeFault:
        if isinstance(outcome, ExchangeFault):
            return outcome
        if not wire.answers(outcome, self.framing.identifier(query.number), query.asked):
            return ExchangeFault(Cause.OTHER, "sent a message that is not an answer")
        if wire.is_truncated(outcome):  # there is no longer way to ask than this one (RFC 7766, 5)
            return ExchangeFault(Cause.OTHER, "sent a truncated answer over TLS")
        return outcome

    def lost(self, why: ExchangeFault, *, was_open: bool) -> None:
        """The connection has ended."""
        self.pool.lost(self, self._abandon(), why, was_open=was_open)


def _framing(server: Nameserver) -> Callable[[], Framing]:
    if server.scheme == "tls":
        return Lengths
    from assay.resolver.doh import Http2  # it needs a library that few install

    return lambda: Http2(server)
