# SPDX-License-Identifier: GPL-3.0-or-later
"""Which domains and nameservers were slow or failed: one line a minute at most, and nothing while all is well.

No socket, no clock; the time is an argument.
"""

from __future__ import annotations

from collections import Counter

from assay.model.printable import escape, escaped, without_claims

SLOW_SECONDS = 0.5  # most answers that a resolver must look up itself take a tenth
PERIOD = 60.0  # seconds that a line is about
MAX_DOMAINS = 1_000  # domains remembered in that time; strangers choose them
MAX_SHOWN = 5  # domains that a line names, the worst first
FINE = frozenset(("found", "nodata", "nxdomain", "truncated"))  # outcomes that are not trouble if they come in time


class Troubles:
    """Gathers what goes wrong."""

    def __init__(self) -> None:
        self.slowest: tuple[tuple[str, float, int], ...] = ()  #: of the last period: domain, seconds, queries
        self._since: float | None = None  # when the first trouble of this period was
        self._queries = 0
        self._worst: dict[str, float] = {}  # by domain, in seconds
        self._domains: Counter[tuple[str, str]] = Counter()  # by domain and what was wrong
        self._servers: Counter[tuple[str, str]] = Counter()
        self._stale = 0

    def note_stale(self, now: float) -> None:
        """An expired answer stood in for one that could not be had. In any thread."""
        if self._since is None:
            self._since, self._queries = now, 0
        self._stale += 1

    def note(self, domain: str, server: str, outcome: str, seconds: float, now: float) -> None:
        """A query has ended.

        :param outcome: one of `FINE`, or what failed.
        """
        self._queries += 1
        wrong = outcome if outcome not in FINE else "slow" if seconds >= SLOW_SECONDS else ""
        if not wrong:
            return
        if self._since is None:
            self._since, self._queries = now, 1
        self._servers[server, wrong] += 1
        if domain in self._worst or len(self._worst) < MAX_DOMAINS:
            self._worst[domain] = max(self._worst.get(domain, 0.0), seconds)
            self._domains[domain, wrong] += 1

    def line(self, now: float) -> str:
        """The line about the last minute, once it is over; empty before, and if there is nothing to say."""
        if self._since is None or now - self._since < PERIOD:
            if self._since is None:
                self._queries = 0
            return ""
        counts = dict.fromkeys(self._worst, 0)
        for (domain, _), count in self._domains.items():
            counts[domain] += count
        shown = sorted(self._worst, key=lambda domain: (-counts[domain], -self._worst[domain]))[:MAX_SHOWN]
        others = f" and {len(counts) - len(shown)} others" if len(counts) > len(shown) else ""
        parts = []
        servers = self._servers.most_common()
        if servers:
            parts += [
                f"of {self._queries} queries in a minute {_sum(self._servers)}",
                f"about {', '.join(f'{_safe(domain)} ({self._of(domain)})' for domain in shown)}{others}",
                f"to {', '.join(f'{server} ({number} {wrong})' for (server, wrong), number in servers)}",
            ]
        if self._stale:
            parts.append(f"expired answers used: {self._stale}")
        line = f"DNS: {'; '.join(parts)}"
        slowest = sorted(self._worst, key=lambda domain: -self._worst[domain])[:MAX_SHOWN]
        self.slowest = tuple((_safe(domain), round(self._worst[domain], 3), counts[domain]) for domain in slowest)
        self._since, self._queries = None, 0
        self._worst, self._domains, self._servers = {}, Counter(), Counter()
        self._stale = 0
        return line

    def _of(self, domain: str) -> str:
        words = [f"{count} {wrong}" for (name, wrong), count in self._domains.items() if name == domain]
        return f"{', '.join(words)}, up to {self._worst[domain]:.1f} s"


def _sum(servers: Counter[tuple[str, str]]) -> str:
    slow = sum(count for (_, wrong), count in servers.items() if wrong == "slow")
    failed = sum(servers.values()) - slow
    return " and ".join([*([f"{failed} failed"] if failed else []), *([f"{slow} were slow"] if slow else [])])


def _safe(domain: str) -> str:
    return without_claims(escaped(domain), escape("="))
