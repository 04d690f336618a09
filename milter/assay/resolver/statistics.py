# SPDX-License-Identifier: GPL-3.0-or-later
"""The counters of a resolver, for the metrics.

Every thread that asks increments them without a lock. CPython switches threads only at calls and at backward
jumps, so ``x.n += 1`` on a plain attribute loses nothing there; elsewhere a count may be short by a few.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from msgspec import Struct

from assay.resolver.troubles import Troubles

#: Gets a query that has ended: server, transport, outcome and seconds.
Watch = Callable[[str, str, str, float], None]


def unwatched(_server: str, _transport: str, _outcome: str, _seconds: float) -> None:
    """Nobody watches."""


class State(Struct, frozen=True):
    """How it is now: the number of slow domains, and whether each nameserver asked so far answers."""

    slow_domains: int = 0
    nameservers: Mapping[str, bool] = MappingProxyType({})


@dataclass(slots=True)
class Statistics:
    """Counters since the resolver was made; they only grow."""

    watch: Watch = unwatched  #: called in the loop's thread
    local: int = 0  #: questions answered by the local zone, or not asked because the DNS cannot carry the name
    hits: int = 0  #: questions answered from the cache
    misses: int = 0  #: questions that the cache could not answer
    shared: int = 0  #: questions that joined a query already in flight (single flight)
    queries: int = 0  #: queries sent over UDP, retries included
    streams: int = 0  #: queries sent over TCP after a truncated answer
    encrypted: int = 0  #: queries sent over TLS or HTTPS, those that were sent again included
    handshakes: int = 0  #: connections opened for them
    probes: int = 0  #: health probes sent to nameservers believed to be down
    timeouts: int = 0  #: queries without an answer in time
    failures: int = 0  #: lookups that ended in TEMPFAIL
    refused: int = 0  #: questions answered TEMPFAIL because too many of the same client or message were waiting
    spent: int = 0  #: questions answered TEMPFAIL because a message's time budget was spent
    stale: int = 0  #: failed lookups, and questions for which no time was left, that an expired answer stood in for
    troubles: Troubles = field(default_factory=Troubles)  #: what was slow or failed

    def ended(self, domain: str, server: str, transport: str, outcome: str, seconds: float, now: float) -> None:
        """A query has ended.

        :param outcome: a `transport.Cause`, or what the answer says.
        """
        self.watch(server, transport, outcome, seconds)
        self.troubles.note(domain, server, outcome, seconds, now)

    def stood_in(self, now: float) -> None:
        """An expired answer stood in. In any thread."""
        self.stale += 1
        self.troubles.note_stale(now)
