# SPDX-License-Identifier: GPL-3.0-or-later
"""How long to wait before a failed lookup is tried again: longer after each failure, reset once the cause is gone.

A first failure is kept for a second, so that a name which fails briefly costs one message and not all of the next
seconds; a name that keeps failing is asked for less and less often. No socket; the time is an argument.
"""

from __future__ import annotations

#: Seconds for which a first failure is kept. The evaluators of one message ask the same names several times within it.
FIRST_TTL = 1
#: Seconds that a name which keeps failing is kept for. RFC 2308, 7.1 allows five minutes; a sender's retry should
#: find the repaired server.
MAX_TTL = 60
#: Seconds without a failure after which the next one is a first one again.
FORGET = 300.0
#: Names remembered; the one that failed longest ago goes first.
MAX_NAMES = 2_000


class Failures:
    """Names whose last lookup failed."""

    def __init__(self) -> None:
        self._names: dict[str, tuple[int, float]] = {}  # TTL of the last failure, and when it was

    def __len__(self) -> int:
        return len(self._names)

    def failed(self, key: str, now: float) -> int:
        """A lookup failed: return for how many seconds not to try it again."""
        ttl, before = self._names.pop(key, (0, now))
        ttl = FIRST_TTL if not ttl or now - before > FORGET else min(2 * ttl, MAX_TTL)
        if len(self._names) >= MAX_NAMES:
            del self._names[next(iter(self._names))]
        self._names[key] = ttl, now
        return ttl

    def has(self, key: str, now: float) -> bool:
        """Whether this name failed a short while ago."""
        return key in self._names and now - self._names[key][1] <= FORGET

    def succeeded(self, key: str) -> None:
        """A lookup was answered."""
        self._names.pop(key, None)

    def clear(self) -> list[str]:
        """The cause of many failures is gone: forget all of them, and return their names."""
        names = list(self._names)
        self._names.clear()
        return names
