# SPDX-License-Identifier: GPL-3.0-or-later
"""Answers, kept for as long as their publishers allow and shared by all messages of a worker.

Positive answers live for their TTL (RFC 2181, 5.2), negative ones for the SOA's minimum (RFC 2308, 5), failures for a
few seconds (RFC 2308, 7.1), all between the named floors and ceilings below.

`assay.caches` decides how much is kept and what goes first.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from assay import caches
from assay.inquiry import Answer, Outcome

#: Seconds. Even a TTL of 0 is valid for the current message, whose evaluators ask the same names several times.
MIN_TTL = 10
#: Seconds. unbound's and BIND's caps are a day and a week; nobody revokes a key and waits longer than a day.
MAX_TTL = 86_400
#: Seconds. RFC 2308, 5: "values of one to three hours have been found to work well".
MAX_NEGATIVE_TTL = 3_600
#: Seconds. The most that RFC 2308, 7.1 allows for a failure; `failures` decides how long one is really kept.
MAX_TEMPFAIL_TTL = 300

#: Octets of an answer of usual size with all its parts, such as a domain's SPF record.
USUAL = 640
DEFAULT_SIZE = caches.BOUNDS["DNS answers"] // USUAL


class AnswerCache(caches.Cache[str, Answer]):
    """A bounded map from keys to answers. Any thread may read and write."""

    def __init__(self, size: int = DEFAULT_SIZE, clock: Callable[[], float] = time.monotonic) -> None:
        """
        :param size: how many answers of `USUAL` size to keep at most.
        :param clock: seconds that never go back.
        """
        super().__init__("DNS answers", size * USUAL)
        self._clock = clock

    def get(self, key: str) -> Answer | None:
        """The answer as `put` returned it; None if there is none or it has expired."""
        entry = self.find(key)
        if entry is None or entry.expires <= self._clock():
            return None
        return entry.value

    def put(self, key: str, answer: Answer) -> Answer:
        """Keep an answer if it may be kept, and return it with the TTL for which it is kept."""
        ttl = lifetime(answer)
        if ttl != answer.ttl:
            answer = Answer(answer.outcome, answer.records, answer.secure, ttl, answer.reason)
        if ttl:
            weight = caches.ENTRY + caches.measure(key, answer)
            self.keep(key, caches.Entry(answer, weight, self._clock() + ttl))
        return answer


def lifetime(answer: Answer) -> int:
    """How many seconds an answer may be kept."""
    match answer.outcome:
        case Outcome.FOUND:
            return min(max(answer.ttl, MIN_TTL), MAX_TTL)
        case Outcome.NODATA | Outcome.NXDOMAIN:
            # RFC 2308, 5: one without an SOA has no TTL and must not be kept.
            return min(max(answer.ttl, MIN_TTL), MAX_NEGATIVE_TTL) if answer.ttl else 0
        case Outcome.TEMPFAIL:
            return min(answer.ttl, MAX_TEMPFAIL_TTL)
