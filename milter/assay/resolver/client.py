# SPDX-License-Identifier: GPL-3.0-or-later
"""Lookups: one flight for each name and type, however many ask, from nameserver to nameserver until one answers.

A flight asks each server that is up once, in the operator's order; those that let the first query time out are asked
once more with more patience, since a recursive resolver may itself be waiting for a slow one. NOERROR and NXDOMAIN end
it; any other RCODE sends it to the next server. While all servers are down, flights wait for a probe (see `health`).

Everything runs in the loop's thread. `ask` never calls back before it returns.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

from msgspec.structs import replace

from assay.inquiry import Answer, Outcome, Question
from assay.resolver import message, transport, wire
from assay.resolver.cache import Cache
from assay.resolver.health import Health, Server
from assay.resolver.message import Reply
from assay.resolver.nameservers import Nameserver
from assay.resolver.statistics import Statistics

#: Seconds for the first answer of a server; resolvers give up on one authoritative server after about as many.
PATIENCE = 2.0
#: The second round is this much more patient.
SECOND_ROUND = 2
#: Sockets open at a time, so that slow domains do not eat the descriptors of the SMTP side (1,024 by default).
MAX_OPEN = 400
#: CNAMEs followed by ourselves, for servers that leave it to us. What the server followed is bounded where it is read.
MAX_ALIASES = 8


class Asker(Protocol):
    """Who waits for an answer."""

    def deliver(self, index: int, answer: Answer) -> None:
        """Take the answer to the question that was asked under this index."""


class _Flight:
    """A lookup on its way."""

    __slots__ = (
        "aliases", "asked", "exchange", "faults", "key", "question", "reasons", "round", "secure", "since", "ttl",
        "waiting",
    )  # fmt: skip

    def __init__(self, key: str, question: Question, asked: bytes) -> None:
        self.key = key
        self.question = question
        self.asked = asked
        self.waiting: list[tuple[Asker, int]] = []
        self.exchange: transport.Exchange | None = None
        self.since = 0.0  # when the exchange began
        self.round = 1
        self.faults: dict[Server, transport.Cause | None] = {}  # None: it answered, with a failure
        self.reasons: list[str] = []
        # Of the CNAME chain so far:
        self.aliases = 0
        self.ttl: int | None = None
        self.secure = True


class Client:
    """Asks the nameservers."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        nameservers: Sequence[Nameserver],
        cache: Cache,
        statistics: Statistics,
        clock: Callable[[], float],
        patience: float = PATIENCE,
        trust_ad: bool = False,
        tell: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._loop = loop
        self._cache = cache
        self._statistics = statistics
        self._clock = clock
        self._patience = patience
        self._trust_ad = trust_ad
        self._plain = transport.Plain(loop, statistics, authentic=trust_ad)
        self._health = Health(nameservers, self._plain, statistics, clock, patience, self._wake, tell)
        self._flights: dict[str, _Flight] = {}
        self._open = 0
        #: For a socket, by domain; no longer than the questions of all inquiries.
        self._queue: dict[str, deque[_Flight]] = {}
        self._stranded: list[_Flight] = []  # waiting for a probe

    def ask(self, key: str, question: Question, asked: bytes, asker: Asker, index: int) -> None:
        """Have a question answered, later.

        :param key: what equal questions have in common, and the cache's key.
        :param asked: the question section.
        """
        flight = self._flights.get(key)
        if flight is not None:
            self._statistics.shared += 1
            flight.waiting.append((asker, index))
            return
        flight = self._flights[key] = _Flight(key, question, asked)
        flight.waiting.append((asker, index))
        self._next(flight)

    def close(self) -> None:
        """Stop all exchanges, and answer TEMPFAIL to whoever waits."""
        self._health.close()
        flights, self._flights = self._flights, {}
        self._queue.clear()
        self._stranded.clear()
        for flight in flights.values():
            if flight.exchange is not None:
                flight.exchange.cancel()
        for flight in flights.values():
            _deliver(flight, Answer(Outcome.TEMPFAIL, reason="resolver closed"))

    def _next(self, flight: _Flight) -> None:
        """Send a flight to the next server, or end it, later, where there is none."""
        self._health.revive()
        server = self._choose(flight)
        if server is not None:
            if self._open < MAX_OPEN:
                self._send(flight, server)
            else:
                self._queue.setdefault(_neighbourhood(flight.question.name), deque()).append(flight)
        elif self._health.probing and not self._health.any_up:
            self._stranded.append(flight)
        else:
            self._loop.call_soon(self._fail, flight)

    def _choose(self, flight: _Flight) -> Server | None:
        up = [server for server in self._health.servers if server.fault is None]
        for server in up:
            if server not in flight.faults:
                return server
        if up and flight.round == 1 and not self._queue:  # who had a turn does not take another before those who wait
            flight.round = 2
            again = [server for server in up if flight.faults[server] is transport.Cause.TIMEOUT]
            for server in again:
                del flight.faults[server]
            return again[0] if again else None
        return None

    def _send(self, flight: _Flight, server: Server) -> None:
        def done(outcome: bytes | transport.Fault) -> None:
            self._open -= 1
            flight.exchange = None
            if isinstance(outcome, transport.Fault):
                flight.faults[server] = outcome.cause
                flight.reasons.append(f"{server} {outcome.reason}")
                self._health.failed(server, outcome, flight.since)
                self._next(flight)
            else:
                self._health.heard(server)
                self._understand(flight, server, message.read(outcome, flight.question.type, self._trust_ad))
            self._serve_queue()

        self._open += 1
        flight.since = self._clock()
        patience = self._patience if flight.round == 1 else self._patience * SECOND_ROUND
        flight.exchange = self._plain.ask(server.nameserver, flight.asked, patience, done)

    def _understand(self, flight: _Flight, server: Server, reply: Reply) -> None:
        answer = reply.answer
        if answer.outcome is Outcome.TEMPFAIL:
            flight.faults[server] = None
            flight.reasons.append(f"{server} {answer.reason}")
            self._next(flight)
            return
        if flight.ttl is not None:
            answer = replace(answer, ttl=min(answer.ttl, flight.ttl), secure=answer.secure and flight.secure)
        if not reply.alias:
            self._end(flight, answer)
            return
        question = Question(reply.alias, flight.question.type)
        asked = wire.section(question)
        if asked is None:
            self._end(flight, replace(answer, outcome=Outcome.NXDOMAIN))
        elif flight.aliases == MAX_ALIASES:
            self._end(flight, Answer(Outcome.TEMPFAIL, reason=f"more than {MAX_ALIASES} CNAMEs"))
        else:
            flight.aliases += 1
            flight.ttl, flight.secure = answer.ttl, answer.secure
            flight.question, flight.asked = question, asked
            flight.round = 1
            flight.faults.clear()
            self._next(flight)

    def _fail(self, flight: _Flight) -> None:
        if flight.key in self._flights:  # else closed meanwhile
            reason = "; ".join(dict.fromkeys(flight.reasons)) or self._health.reason
            self._end(flight, Answer(Outcome.TEMPFAIL, reason=reason))

    def _end(self, flight: _Flight, answer: Answer) -> None:
        del self._flights[flight.key]
        if answer.outcome is Outcome.TEMPFAIL:
            self._statistics.failures += 1
        _deliver(flight, self._cache.put(flight.key, answer))

    def _wake(self) -> None:
        """A probe ended: let the stranded flights look again."""
        stranded, self._stranded = self._stranded, []
        for flight in stranded:
            self._next(flight)

    def _serve_queue(self) -> None:
        """Give each domain its turn. In order of arrival, one message's questions after slow names would keep all other
        lookups waiting until their time is spent, and a forged message would end in a temporary error."""
        while self._queue and self._open < MAX_OPEN:
            domain = next(iter(self._queue))
            flights = self._queue.pop(domain)
            flight = flights.popleft()
            if flights:
                self._queue[domain] = flights
            self._next(flight)


def _neighbourhood(name: str) -> str:
    """The part of a name that tells whose it is, roughly: the last two labels."""
    return ".".join(name.lower().rsplit(".", 2)[-2:])


def _deliver(flight: _Flight, answer: Answer) -> None:
    for asker, index in flight.waiting:
        asker.deliver(index, answer)
