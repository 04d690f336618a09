# SPDX-License-Identifier: GPL-3.0-or-later
"""The counters of a resolver, for the metrics.

Every thread that asks increments them without a lock. CPython switches threads only at calls and at backward
jumps, so ``x.n += 1`` on a plain attribute loses nothing there; elsewhere a count may be short by a few.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Statistics:
    """Counters since the resolver was made; they only grow."""

    local: int = 0  #: questions answered by the local zone, or not asked because the DNS cannot carry the name
    hits: int = 0  #: questions answered from the cache
    misses: int = 0  #: questions that the cache could not answer
    shared: int = 0  #: questions that joined a query already in flight (single flight)
    queries: int = 0  #: queries sent over UDP, retries included
    streams: int = 0  #: queries sent over TCP after a truncated answer
    probes: int = 0  #: health probes sent to nameservers believed to be down
    timeouts: int = 0  #: queries without an answer in time
    failures: int = 0  #: lookups that ended in TEMPFAIL
    refused: int = 0  #: questions answered TEMPFAIL because too many of the same client or message were waiting
    spent: int = 0  #: questions answered TEMPFAIL because a message's time budget was spent
