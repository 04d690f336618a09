# SPDX-License-Identifier: GPL-3.0-or-later
"""Answers, kept for as long as their publishers allow and shared by all messages of a worker.

Positive answers live for their TTL (RFC 2181, 5.2), negative ones for the SOA's minimum (RFC 2308, 5), failures for a
few seconds (RFC 2308, 7.1), all between the named floors and ceilings below.

An answer that has expired stays until another takes its place or its room. If the operator allows it, it stands in for
one that cannot be had (RFC 8767). Nothing is kept longer for that, so the bound is the same.

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
#: Seconds that an expired answer stands in before it is asked for again: RFC 8767, 4 and 5 recommend 30 for both.
STALE_TTL = 30

#: Octets of an answer of usual size with all its parts, such as a domain's SPF record.
USUAL = 640
DEFAULT_SIZE = caches.BOUNDS["DNS answers"] // USUAL


class AnswerCache(caches.Cache[str, Answer]):
    """A bounded map from keys to answers. Any thread may read and write."""

    def __init__(
        self, size: int = DEFAULT_SIZE, clock: Callable[[], float] = time.monotonic, stale_seconds: float = 0.0
    ) -> None:
        """
        :param size: how many answers of `USUAL` size to keep at most.
        :param clock: seconds that never go back.
        :param stale_seconds: for how long after its end an answer may stand in (RFC 8767, 5: the maximum stale timer).
        """
        super().__init__("DNS answers", size * USUAL)
        self._clock = clock
        self._stale_seconds = stale_seconds

    def get(self, key: str) -> Answer | None:
        """The answer as `put` returned it; None if there is none or it has expired."""
        entry = self.find(key)
        if entry is None or entry.expires <= self._clock():
            return None
        return entry.value

    def put(self, key: str, answer: Answer) -> Answer:
        """Keep an answer if it may be kept, and return it with the TTL for which it is kept. An older one is gone."""
        given, ttl = answer.ttl, lifetime(answer)
        if ttl != given:
            answer = Answer(answer.outcome, answer.records, answer.secure, ttl, answer.reason)
        if ttl:
            kind = caches.Entry if given else _Momentary
            self.keep(key, kind(answer, _weight(key, answer), self._clock() + ttl))
        else:
            self.drop(key)
        return answer

    def stale(self, key: str) -> Answer | None:
        """The answer that may be given because there is no time for a fresh one (RFC 8767, 5), or None."""
        entry = self._old(key)
        return None if entry is None else entry.value

    def stand_in(self, key: str) -> Answer | None:
        """A lookup has failed: the answer that stands in, which is then kept for `STALE_TTL`; or None."""
        entry = self._old(key)
        if entry is None:
            return None
        entry.expires = min(self._clock() + STALE_TTL, entry.until)
        self.keep(key, entry)
        return entry.value

    def try_again(self, key: str) -> None:
        """The cause of a failure is gone: the next question for it is asked."""
        entry = self.find(key)
        if isinstance(entry, _StandIn):
            entry.expires = 0.0
        elif entry is not None and entry.value.outcome is Outcome.TEMPFAIL:
            self.drop(key)

    def _old(self, key: str) -> _StandIn | None:
        """An entry for what is kept of an answer, as far as it may still be used."""
        entry = self.find(key) if self._stale_seconds else None
        if entry is None or entry.value.outcome is Outcome.TEMPFAIL or isinstance(entry, _Momentary):
            return None
        now = self._clock()
        if isinstance(entry, _StandIn):
            return entry if now < entry.until else None
        until = entry.expires + self._stale_seconds
        if not entry.expires <= now < until:
            return None
        old = entry.value
        answer = Answer(old.outcome, old.records, ttl=STALE_TTL, stale=True)
        return _StandIn(answer, _weight(key, answer), entry.expires, until)


class _Momentary(caches.Entry[Answer]):
    """An answer with a TTL of 0. It never stands in (RFC 8767, 7)."""

    __slots__ = ()


class _StandIn(caches.Entry[Answer]):
    """An answer that has expired. It is not used after `until`, however often it stands in."""

    __slots__ = ("until",)

    def __init__(self, value: Answer, weight: int, expires: float, until: float) -> None:
        super().__init__(value, weight, expires)
        self.until = until


def _weight(key: str, answer: Answer) -> int:
    return caches.ENTRY + caches.measure(key, answer)


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
