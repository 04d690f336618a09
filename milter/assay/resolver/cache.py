# SPDX-License-Identifier: GPL-3.0-or-later
"""Answers kept for as long as their publishers allow, shared by all messages of a worker.

Positive answers live for their TTL (RFC 2181, 5.2), negative ones for the SOA's minimum (RFC 2308, 5), failures for a
few seconds (RFC 2308, 7.1), all between the named floors and ceilings below.

Memory is bounded by weight: an answer weighs one for itself and one more for each `UNIT` bytes of its records, so
that a stranger's wildcard of 64 KiB texts fills no memory either. A unit costs 0.4 KiB with usual SPF records and at
most 0.6 KiB (a test measures it): the default cache takes 8 to 12 MiB when full.

The least recently used answers go first, in two generations: what is asked moves to the young one; when that is
half of the cache, it becomes the old one, and the old one is dropped whole. So a reader of a young answer takes no
lock and writes nothing: one ``dict.get``, atomic in CPython. Writers, and the rare reader that promotes an answer,
take the lock.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from threading import Lock

from assay.inquiry import Answer, Outcome

#: Seconds. Even a TTL of 0 holds for the message at hand, whose evaluators ask the same names several times.
MIN_TTL = 10
#: Seconds. unbound's and BIND's caps are a day and a week; nobody revokes a key and waits longer than a day.
MAX_TTL = 86_400
#: Seconds. RFC 2308, 5: "values of one to three hours have been found to work well".
MAX_NEGATIVE_TTL = 3_600
#: Seconds. The most that RFC 2308, 7.1 allows for a failure; how long one is really kept is said by `failures`.
MAX_TEMPFAIL_TTL = 300

DEFAULT_SIZE = 20_000  # units of weight
UNIT = 256  # bytes of records
RECORD = 64  # bytes that a record costs whatever is in it


class _Entry:
    """An answer and when it ends. `answer` is replaced about once a second, when its TTL has to be told anew."""

    __slots__ = ("answer", "expires", "weight")

    def __init__(self, answer: Answer, expires: float, weight: int) -> None:
        self.answer = answer
        self.expires = expires
        self.weight = weight


class Cache:
    """A bounded map from keys to answers. Any thread may read and write."""

    def __init__(self, size: int = DEFAULT_SIZE, clock: Callable[[], float] = time.monotonic) -> None:
        """
        :param size: the most weight to keep, in units of one answer.
        :param clock: seconds that never go back.
        """
        self._half = max(1, size // 2)
        self._clock = clock
        self._young: dict[str, _Entry] = {}
        self._old: dict[str, _Entry] = {}
        self._weight = 0  # of the young generation
        self._lock = Lock()

    def __len__(self) -> int:
        """How many answers are kept, ended ones included."""
        return len(self._young.keys() | self._old.keys())

    def get(self, key: str) -> Answer | None:
        """The answer, with what is left of its TTL, or None where none is known (any more)."""
        entry = self._young.get(key)
        if entry is None:
            entry = self._old.get(key)
            if entry is None:
                return None
            self._keep(key, entry)
        left = entry.expires - self._clock()
        if left <= 0:
            return None
        answer = entry.answer
        if answer.ttl - left >= 1:
            answer = Answer(answer.outcome, answer.records, answer.secure, math.ceil(left), answer.reason)
            entry.answer = answer
        return answer

    def put(self, key: str, answer: Answer) -> Answer:
        """Keep an answer; returns it with the TTL it is kept for."""
        ttl = lifetime(answer)
        if ttl != answer.ttl:
            answer = Answer(answer.outcome, answer.records, answer.secure, ttl, answer.reason)
        self._keep(key, _Entry(answer, self._clock() + ttl, _weight(answer)))
        return answer

    def drop(self, key: str) -> None:
        """Forget an answer."""
        with self._lock:  # its weight counts until the generation ends
            self._young.pop(key, None)
            self._old.pop(key, None)

    def _keep(self, key: str, entry: _Entry) -> None:
        with self._lock:
            if self._weight + entry.weight > self._half:
                self._old, self._young, self._weight = self._young, {}, 0
            # An answer that is replaced is weighed twice: the generation ends a little early, never late.
            self._young[key] = entry
            self._weight += entry.weight


def lifetime(answer: Answer) -> int:
    """For how many seconds an answer may be kept."""
    match answer.outcome:
        case Outcome.FOUND:
            return min(max(answer.ttl, MIN_TTL), MAX_TTL)
        case Outcome.NODATA | Outcome.NXDOMAIN:
            return min(max(answer.ttl, MIN_TTL), MAX_NEGATIVE_TTL)
        case Outcome.TEMPFAIL:
            return min(answer.ttl, MAX_TEMPFAIL_TTL)


def _weight(answer: Answer) -> int:
    return 1 + sum(RECORD + (len(record) if isinstance(record, bytes) else 0) for record in answer.records) // UNIT
