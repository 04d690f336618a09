# SPDX-License-Identifier: GPL-3.0-or-later
"""One lookup on its way from nameserver to nameserver, and the waiters for it."""

from __future__ import annotations

from typing import Protocol

from assay.inquiry import Answer, Asker, Question, Urgency
from assay.resolver import transport
from assay.resolver.health import Server
from assay.resolver.share import Place, Pool
from assay.resolver.slow import domain_of
from assay.resolver.statistics import Statistics


class Waiter(Protocol):
    """One that waits for an answer."""

    @property
    def asker(self) -> Asker:
        """For whom it waits."""

    @property
    def urgency(self) -> Urgency:
        """How much depends on it."""

    def deliver(self, index: int, answer: Answer) -> None:
        """Take the answer to the question that was asked under this index."""


class Flight:
    """A lookup on its way.

    It waits in `pool` for a place there, or holds `place` while `exchange` is in flight, or waits for a probe of the
    nameservers or to be sent once more.
    """

    __slots__ = (
        "aliases", "asked", "askers", "exchange", "faults", "key", "over_tcp", "place", "pool", "probed_until",
        "question", "queued_at", "reasons", "repeats", "round", "secure", "since", "slow", "ttl", "waiting",
    )  # fmt: skip

    def __init__(self, key: str, question: Question, asked: bytes) -> None:
        self.key = key
        self.question = question
        self.asked = asked
        self.waiting: dict[tuple[Waiter, int], None] = {}
        self.askers: dict[Asker, int] = {}  # the count of each in `waiting`
        self.pool: Pool[Flight] | None = None
        self.place: Place[Flight] | None = None
        self.queued_at = 0.0
        self.exchange: transport.Exchange | None = None
        self.since = 0.0  # when the exchange began
        self.slow = False  # some answer was late
        self.over_tcp: Server | None = None  # whose answer was truncated
        self.round = 1
        self.repeats = 0  # after failures of all servers
        self.probed_until: float | None = None  # how long it waits for probes in a long outage
        self.faults: dict[Server, transport.Cause | None] = {}  # None: it answered, unusably
        self.reasons: list[str] = []
        # Of the CNAME chain so far:
        self.aliases = 0
        self.ttl: int | None = None
        self.secure = True

    @property
    def queued(self) -> bool:
        """Whether it waits for a place."""
        return self.pool is not None and self.place is None

    def join(self, waiter: Waiter, index: int) -> None:
        """Add a waiter."""
        self.waiting[waiter, index] = None
        self.askers[waiter.asker] = self.askers.get(waiter.asker, 0) + 1

    def part(self, waiter: Waiter, index: int) -> bool:
        """Remove a waiter; return whether it was the last of its asker."""
        if (waiter, index) not in self.waiting:
            return False
        del self.waiting[waiter, index]
        self.askers[waiter.asker] -= 1
        if self.askers[waiter.asker]:
            return False
        del self.askers[waiter.asker]
        return True

    def may_ask_again(self, cause: transport.Cause) -> None:
        """Allow servers that failed for this reason to be asked once more."""
        self.faults = {server: why for server, why in self.faults.items() if why is not cause}

    def follow(self, question: Question, asked: bytes, answer: Answer) -> None:
        """Go on with the target of a CNAME."""
        self.aliases += 1
        self.ttl, self.secure = answer.ttl, answer.secure
        self.question, self.asked = question, asked
        self.round = 1
        self.faults.clear()
        self.over_tcp = None
        self.slow = False

    def ended(self, statistics: Statistics, server: Server, outcome: str, now: float) -> None:
        """Count the exchange, before `over_tcp` changes.

        :param outcome: a `transport.Cause`, or what the answer says.
        """
        over = server.nameserver.scheme or ("udp" if self.over_tcp is None else "tcp")
        statistics.ended(domain_of(self.question.name), str(server), over, outcome, now - self.since, now)

    def deliver(self, answer: Answer) -> None:
        """Give the answer to all that wait."""
        waiting, self.waiting, self.askers = self.waiting, {}, {}
        for waiter, index in waiting:
            waiter.deliver(index, answer)
