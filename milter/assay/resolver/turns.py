# SPDX-License-Identifier: GPL-3.0-or-later
"""Which flight may be sent now: each of its queries needs a place, which it gets in its asker's turn (see `share`).

There are `PLACES`. A query that is not answered within `LINGER` moves to one of `SLOW_PLACES` if its asker has a share
of these left, and domains that were slow before ask there alone. So slow queries leave places for fast ones. TCP has
its own `STREAMS`.

Everything runs in the loop's thread.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from assay.inquiry import Answer, Outcome
from assay.resolver.flight import Flight, Waiter
from assay.resolver.share import Place, Pool
from assay.resolver.slow import Delays, SlowDomains, domain_of
from assay.resolver.statistics import Statistics

#: Queries in flight at a time. With the slow ones a thousand, which is what one thread of unbound works on.
PLACES = 700
#: Further ones for slow queries.
SLOW_PLACES = 300
#: Further ones over TCP: each takes a descriptor of the SMTP side's 1,024. Long answers are rare, and the nameserver
#: has them at hand by then.
STREAMS = 100
#: Seconds for which a place over TCP is taken at least. An exchange takes several times what a datagram takes, and a
#: stranger can make all of his answers long: so there are at most 400 a second, and one client has half of them.
HOLD = 0.25
#: Questions that wait for a place, some 10 MiB: as many as a thousand places answer in a minute if all are slow.
ROOM = 10_000
#: Seconds after which a query is slow. Most that a resolver must look up itself take a tenth.
LINGER = 0.5

TOO_MANY = Answer(Outcome.TEMPFAIL, reason="too many questions at a time")


class Turns:
    """Gives places to flights."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        statistics: Statistics,
        clock: Callable[[], float],
        linger: float,
        delays: Delays,
        send: Callable[[Flight], None],
        drop: Callable[[Flight], None],
        heard_since: Callable[[float], bool],
    ) -> None:
        """
        :param linger: seconds after which a query is slow.
        :param delays: is told how long questions wait for their turn.
        :param send: called with a flight whose turn it is.
        :param drop: called with a flight for which nobody waits any more.
        :param heard_since: whether some nameserver has answered since a time.
        """
        self._loop = loop
        self._statistics = statistics
        self._clock = clock
        self._linger = linger
        self._delays = delays
        self._send = send
        self._drop = drop
        self._heard_since = heard_since
        self._fast: Pool[Flight] = Pool(PLACES, ROOM)
        self._slow: Pool[Flight] = Pool(SLOW_PLACES, ROOM)
        self._over_tcp: Pool[Flight] = Pool(STREAMS, ROOM)
        self._young: dict[Flight, None] = {}  # in flight in fast places and not slow so far, the oldest first
        self._watch: asyncio.Handle | None = None  # for the oldest of them to be slow
        self._slow_domains = SlowDomains()

    @property
    def slow_domains(self) -> int:
        """The number of domains that were slow a short while ago."""
        return len(self._slow_domains)

    def take(self, flight: Flight) -> bool:
        """Take a place for a flight now; or else let it wait for its turn, and return False."""
        pool = flight.pool = self._pool(flight)
        for asker in flight.askers:
            place = pool.take(asker)
            if place is not None:
                flight.place = place
                return True
        flight.queued_at = self._clock()
        self._queue(flight, list(flight.waiting))
        return False

    def join(self, flight: Flight, waiter: Waiter, index: int) -> None:
        """A flight that waits for its turn waits for this asker's too."""
        self._queue(flight, [(waiter, index)])
        self._serve(flight.pool)

    def leave(self, flight: Flight, waiter: Waiter) -> None:
        """It waits no longer for a turn of this asker."""
        if flight.queued and flight.pool is not None:
            self._delays.note(waiter.asker, flight.question.name, self._clock() - flight.queued_at)
            flight.pool.leave(waiter.asker, flight)

    def sent(self, flight: Flight) -> None:
        """A flight that has its place was sent."""
        if flight.pool is self._fast:
            self._young[flight] = None
            if self._watch is None:
                self._watch = self._loop.call_later(self._linger, self._look_for_slow)

    def free(self, flight: Flight) -> None:
        """Release a flight's place to those that wait, before it asks for another."""
        pool, place = flight.pool, flight.place
        flight.pool = flight.place = None
        self._young.pop(flight, None)
        if pool is self._over_tcp and place is not None:
            left = HOLD - (self._clock() - flight.since)
            if left > 0:
                self._loop.call_later(left, self._release, pool, place)
                return
        if pool is not None and place is not None:
            self._release(pool, place)

    def answered(self, flight: Flight) -> None:
        """A server answered."""
        if self._slow_domains and self._clock() - flight.since < self._linger:
            self._slow_domains.discard(domain_of(flight.question.name))

    def _pool(self, flight: Flight) -> Pool[Flight]:
        if flight.over_tcp is not None:
            return self._over_tcp
        if flight.slow:
            return self._slow
        if self._slow_domains and self._slow_domains.has(domain_of(flight.question.name), self._clock()):
            return self._slow
        return self._fast

    def _queue(self, flight: Flight, waiting: Iterable[tuple[Waiter, int]]) -> None:
        """Let a flight wait for a place, for each of these waiters; refuse those that have used up their room."""
        pool = flight.pool
        if pool is None:
            return
        for waiter, index in waiting:
            if not pool.enter(waiter.asker, flight, waiter.urgency):
                flight.part(waiter, index)
                self._statistics.refused += 1
                self._loop.call_soon(waiter.deliver, index, TOO_MANY)
        if not flight.waiting:
            self._drop(flight)

    def _serve(self, pool: Pool[Flight] | None) -> None:
        """Give free places to the flights whose turn it is."""
        while pool is not None and (flight := pool.next()) is not None:
            waited = self._clock() - flight.queued_at
            for asker in flight.askers:
                pool.leave(asker, flight)
                self._delays.note(asker, flight.question.name, waited)
            flight.pool = None
            self._send(flight)

    def _release(self, pool: Pool[Flight], place: Place[Flight]) -> None:
        pool.release(place)
        self._serve(pool)

    def _look_for_slow(self) -> None:
        """Move slow queries out of the fast places."""
        self._watch = None
        now = self._clock()
        while self._young:
            flight = next(iter(self._young))
            left = flight.since + self._linger - now
            if left > 0:
                self._watch = self._loop.call_later(left, self._look_for_slow)
                break
            del self._young[flight]
            self._note_slow(flight, now)
        self._serve(self._fast)

    def _note_slow(self, flight: Flight, now: float) -> None:
        flight.slow = True
        if self._heard_since(flight.since):  # else it may be the server's fault
            self._slow_domains.add(domain_of(flight.question.name), now)
        if flight.place is not None:
            place = self._slow.take(flight.place.asker)
            if place is not None:
                self._fast.release(flight.place)
                flight.pool, flight.place = self._slow, place
