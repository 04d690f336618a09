# SPDX-License-Identifier: GPL-3.0-or-later
"""Lookups: one flight for each name and type, shared by all askers, goes from nameserver to nameserver.

A flight asks each server that is up once, in the operator's order; those that let the first query time out are asked
once more with more patience, since a recursive resolver may itself be waiting for a slow one. NOERROR and NXDOMAIN end
it; any other RCODE sends it to the next server. When all servers have gone down, flights wait some seconds for one to
come back (see `health`), so that the restart of a nameserver fails no lookup. In a longer outage they wait for one
probe of each.

A lookup that all servers have failed is sent again after a pause (see `repeats`). If it fails for good, an expired
answer may stand in (see `cache`).

Each query of a flight needs a place, which it gets in its asker's turn (see `turns`).

A question that nobody waits for leaves the queue at once. One that is in flight keeps its place until the
answer or the end of its patience, and no other server is asked: the nameserver still works on it, so an asker that
gives up early could otherwise keep it busier than its share allows.

Everything runs in the loop's thread. `ask` never calls back before it returns.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from types import MappingProxyType

from msgspec.structs import replace

from assay.inquiry import Answer, Outcome, Question
from assay.resolver import message, tls, transport, wire
from assay.resolver.cache import AnswerCache
from assay.resolver.failures import Failures
from assay.resolver.flight import Flight, Waiter
from assay.resolver.health import PROBE_PATIENCE, Health, Server
from assay.resolver.message import Response
from assay.resolver.nameservers import Nameserver
from assay.resolver.repeats import Repeats
from assay.resolver.resolv_conf import ResolvConf
from assay.resolver.slow import Delays
from assay.resolver.statistics import State, Statistics
from assay.resolver.transports import Transports
from assay.resolver.turns import LINGER, ROOM, Turns

#: Seconds to wait for the first answer of a server; resolvers give up on an authoritative server after about as long.
PATIENCE = 2.0
#: The second round is this much more patient.
SECOND_ROUND = 2
#: CNAMEs that we follow, for servers that leave it to us. Those that the server followed are bounded where it is read.
MAX_ALIASES = 8


class Asking:
    """Asks the nameservers."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        nameservers: Sequence[Nameserver],
        cache: AnswerCache,
        statistics: Statistics,
        clock: Callable[[], float],
        patience: float = PATIENCE,
        trust_ad: bool = False,
        resolv_conf: ResolvConf | None = None,
        tell: Callable[[str], None] = lambda _: None,
        contexts: tls.Contexts = MappingProxyType({}),
        random_case: bool = False,
        make_room: transport.MakeRoom = transport.no_room,
    ) -> None:
        self._loop = loop
        self._cache = cache
        self._statistics = statistics
        self._clock = clock
        self._patience = patience
        self._trust_ad = trust_ad
        self._resolv_conf = resolv_conf
        self._tell = tell
        self._transports = Transports(loop, statistics, trust_ad, contexts, random_case, make_room)
        self._health = Health(
            nameservers,
            self._transports,
            statistics,
            clock,
            patience,
            self._wake,
            self._recovered,
            tell,
            loop.call_later,
        )
        self._failures = Failures()
        self._flights: dict[str, Flight] = {}
        self._turns = Turns(
            loop,
            statistics,
            clock,
            min(LINGER, patience / 4),
            Delays(tell, loop.call_later),
            self._next,
            self._drop,
            self._health.heard_since,
        )
        self._stranded: dict[Flight, None] = {}  # waiting for a probe
        self._repeats = Repeats(self._health, self._failures, clock, loop.call_later)

    @property
    def state(self) -> State:
        """What it knows about the nameservers and the names that it asks about."""
        return State(self._turns.slow_domains, self._health.known)

    @property
    def flights(self) -> int:
        """The number of lookups in flight or waiting."""
        return len(self._flights)

    def ask(self, key: str, question: Question, asked: bytes, waiter: Waiter, index: int) -> Flight:
        """Ask a question; the answer is delivered later.

        :param key: the same for equal questions, and the cache's key.
        :param asked: the question section.
        :returns: the flight, for `withdraw`.
        """
        flight = self._flights.get(key)
        if flight is None:
            flight = self._flights[key] = Flight(key, question, asked)
            flight.join(waiter, index)
            self._next(flight)
            return flight
        self._statistics.shared += 1
        flight.join(waiter, index)
        if flight.queued:
            self._turns.join(flight, waiter, index)
        return flight

    def withdraw(self, flight: Flight, waiter: Waiter, index: int) -> None:
        """Stop waiting for an answer."""
        if flight.part(waiter, index):
            self._turns.leave(flight, waiter)
        if not flight.waiting and flight.exchange is None:
            self._drop(flight)

    def close(self) -> None:
        """Stop all exchanges, and answer TEMPFAIL to all that wait."""
        self._health.close()
        flights, self._flights = self._flights, {}
        self._stranded.clear()
        for flight in flights.values():
            if flight.exchange is not None:
                flight.exchange.cancel()
        self._transports.close()
        for flight in flights.values():
            flight.deliver(Answer(Outcome.TEMPFAIL, reason="resolver closed"))

    def _next(self, flight: Flight) -> None:
        """Send a flight to the next server as soon as there is a place; if there is no server, end it later."""
        if self._resolv_conf is not None:
            self._follow(self._resolv_conf)
        self._health.revive()
        server = self._choose(flight)
        if server is None:
            if self._may_wait(flight) and len(self._stranded) < ROOM:
                flight.may_ask_again(transport.Cause.UNREACHABLE)
                self._stranded[flight] = None
            elif not self._repeats.wait(flight, self._once_more):
                self._loop.call_soon(self._fail, flight)
            return
        if self._turns.take(flight):
            self._send(flight, server)

    def _may_wait(self, flight: Flight) -> bool:
        """Whether a flight for which all servers are down waits for one of them."""
        if self._health.may_recover:
            return True
        # A long outage may be over without anybody having asked since: wait for the probes, but not for the next ones.
        now = self._clock()
        if flight.probed_until is None:
            flight.probed_until = now + min(self._patience, PROBE_PATIENCE)
        return self._health.probing and now < flight.probed_until

    def _follow(self, resolv_conf: ResolvConf) -> None:
        """Change the nameservers if the system's have changed."""
        found = resolv_conf.changed(self._clock())
        if found and found != self._health.nameservers:
            self._tell(f"nameservers are now {', '.join(map(str, found))}")
            self._health.replace(found)
            self._transports.keep(found)
            self._recovered()
            self._loop.call_soon(self._wake)

    def _choose(self, flight: Flight) -> Server | None:
        if flight.over_tcp is not None:
            return flight.over_tcp
        up = [server for server in self._health.servers if server.fault is None]
        for server in up:
            if server not in flight.faults:
                return server
        if up and flight.round == 1:
            flight.round = 2
            flight.may_ask_again(transport.Cause.TIMEOUT)
            return next((server for server in up if server not in flight.faults), None)
        return None

    def _send(self, flight: Flight, server: Server) -> None:
        def done(outcome: bytes | transport.ExchangeFault) -> None:
            flight.exchange = None
            self._turns.free(flight)
            if isinstance(outcome, transport.ExchangeFault):
                flight.ended(self._statistics, server, outcome.cause.value, self._clock())
                self._health.failed(server, outcome, flight.since)
                flight.over_tcp = None
                if outcome.cause is transport.Cause.TOO_LONG:
                    self._end(flight, Answer(Outcome.TEMPFAIL, reason=f"{server} {outcome.reason}"))
                    return
                flight.slow = flight.slow or outcome.cause is transport.Cause.TIMEOUT
                self._go_on(flight, server, outcome.cause, outcome.reason)
            else:
                self._health.heard(server)
                self._turns.answered(flight)
                if flight.over_tcp is None and wire.is_truncated(outcome):
                    flight.ended(self._statistics, server, "truncated", self._clock())
                    self._turn_to_tcp(flight, server)
                else:
                    reply = message.read(outcome, flight.question.type, self._trust_ad)
                    flight.ended(self._statistics, server, reply.answer.outcome.value, self._clock())
                    flight.over_tcp = None
                    self._understand(flight, server, reply)

        flight.since = self._clock()
        patience = self._patience if flight.round == 1 else self._patience * SECOND_ROUND
        if flight.over_tcp is not None:
            flight.exchange = self._transports.ask_over_tcp(server.nameserver, flight.asked, patience, done)
            return
        flight.exchange = self._transports.ask(server.nameserver, flight.asked, patience, done)
        self._turns.sent(flight)

    def _go_on(self, flight: Flight, server: Server, cause: transport.Cause | None, reason: str) -> None:
        """This server has no answer: ask the next one if the answer is still needed."""
        if not flight.waiting:
            self._drop(flight)
            return
        flight.faults[server] = cause
        flight.reasons.append(f"{server} {reason}")
        self._next(flight)

    def _turn_to_tcp(self, flight: Flight, server: Server) -> None:
        if flight.waiting:
            flight.over_tcp = server
            self._next(flight)
        else:
            self._drop(flight)

    def _understand(self, flight: Flight, server: Server, reply: Response) -> None:
        answer = reply.answer
        self._health.answered(server, failed=reply.brief)
        if answer.outcome is Outcome.TEMPFAIL:
            cause = transport.Cause.FAILURE if reply.brief else None if reply.unusable else transport.Cause.OTHER
            self._go_on(flight, server, cause, answer.reason)
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
        elif not flight.waiting:
            self._drop(flight)
        else:
            flight.follow(question, asked, answer)
            self._next(flight)

    def _once_more(self, flight: Flight) -> None:
        """A pause of a flight is over."""
        if self._flights.get(flight.key) is flight:  # else it was closed or dropped
            flight.may_ask_again(transport.Cause.FAILURE)
            self._next(flight)

    def _fail(self, flight: Flight) -> None:
        if self._flights.get(flight.key) is flight:  # else it was closed or dropped
            reason = "; ".join(dict.fromkeys(flight.reasons)) or self._health.reason
            # RFC 8767, 4: what a server has answered ends the old answer, even if we cannot use it; an RCODE does not.
            self._end(flight, Answer(Outcome.TEMPFAIL, reason=reason), may_be_stale=None not in flight.faults.values())

    def _end(self, flight: Flight, answer: Answer, may_be_stale: bool = False) -> None:
        """Deliver the answer to a lookup.

        :param may_be_stale: no server has answered, so an expired answer may stand in (RFC 8767, 5).
        """
        del self._flights[flight.key]
        if answer.outcome is Outcome.TEMPFAIL:
            now = self._clock()
            self._statistics.failures += 1
            answer = replace(answer, ttl=self._failures.failed(flight.key, now))
            old = self._cache.stand_in(flight.key) if may_be_stale else None
            if old is not None:
                self._statistics.stood_in(now)
                flight.deliver(old)
                return
        else:
            self._failures.succeeded(flight.key)
        flight.deliver(self._cache.put(flight.key, answer))

    def _drop(self, flight: Flight) -> None:
        """Drop a flight that nobody waits for."""
        if self._flights.get(flight.key) is flight:
            del self._flights[flight.key]
            self._stranded.pop(flight, None)

    def _recovered(self) -> None:
        """A nameserver answers again, or there is a new one: failed lookups may succeed now."""
        for key in self._failures.clear():
            self._cache.try_again(key)

    def _wake(self) -> None:
        """A probe ended, or there are other servers: let the stranded flights try again."""
        stranded, self._stranded = self._stranded, {}
        for flight in stranded:
            self._next(flight)
