# SPDX-License-Identifier: GPL-3.0-or-later
"""Slow domains, and reports of questions that wait too long.

No socket; the time is an argument.
"""

from __future__ import annotations

from collections.abc import Callable

from assay.inquiry import Asker
from assay.model.printable import escape, escaped, without_claims

#: Seconds that a domain counts as slow after its last late answer. Short: it is only asked apart, so little is lost.
SLOW_SECONDS = 60.0
#: Domains remembered; the longest known goes first. A forgotten domain is found slow again by its next question.
MAX_SLOW = 1_000

#: Seconds that a question may wait for its turn before it is reported.
LONG = 1.0
#: Seconds between two such lines.
PAUSE = 60.0
#: Seconds from the first such question to the line, which then knows more than one of them.
GATHER = 1.0
MAX_CLIENTS = 100  #: clients that are counted for a line
MAX_DOMAINS = 5  #: domains that a line names


def domain_of(name: str) -> str:
    """The domain that a name belongs to: the labels after the last one with an underscore, or all of them.

    Never the parent of a domain, which others share: a stranger's name must not make another's slow.
    """
    if "_" not in name:
        return name
    labels = name.split(".")
    for number in range(len(labels) - 1, -1, -1):
        if labels[number].startswith("_"):
            return ".".join(labels[number + 1 :])
    return name


class SlowDomains:
    """Domains whose nameservers were slow."""

    def __init__(self) -> None:
        self._until: dict[str, float] = {}

    def __len__(self) -> int:
        return len(self._until)

    def add(self, domain: str, now: float) -> None:
        """An answer about it is late."""
        self._until.pop(domain, None)
        if len(self._until) >= MAX_SLOW:
            del self._until[next(iter(self._until))]
        self._until[domain] = now + SLOW_SECONDS

    def discard(self, domain: str) -> None:
        """An answer came in time."""
        self._until.pop(domain, None)

    def has(self, domain: str, now: float) -> bool:
        """Whether it was slow a short while ago."""
        until = self._until.get(domain)
        if until is None:
            return False
        if now < until:
            return True
        del self._until[domain]
        return False


class Delays:
    """Reports clients that ask for more than their share."""

    def __init__(self, tell: Callable[[str], None], later: Callable[[float, Callable[[], None]], object]) -> None:
        """
        :param tell: called with a line for the log.
        :param later: calls a function after so many seconds.
        """
        self._tell = tell
        self._later = later
        self._gathering = self._silent = False
        self._longest = 0.0
        self._counts: dict[str, int] = {}
        self._domains: dict[str, dict[str, None]] = {}

    def note(self, asker: Asker, name: str, seconds: float) -> None:
        """A question waited this long for its turn, or did not get one."""
        if seconds < LONG or self._silent:
            return
        client = "no client" if asker.client is None else str(asker.client)
        if client not in self._counts and len(self._counts) >= MAX_CLIENTS:
            return
        self._longest = max(self._longest, seconds)
        self._counts[client] = self._counts.get(client, 0) + 1
        domains = self._domains.setdefault(client, {})
        if len(domains) < MAX_DOMAINS:
            domains[without_claims(escaped(domain_of(name)), escape("="))] = None
        if not self._gathering:
            self._gathering = True
            self._later(GATHER, self._flush)

    def _flush(self) -> None:
        client = max(self._counts, key=self._counts.__getitem__)
        others = f" and {len(self._counts) - 1} other clients" if len(self._counts) > 1 else ""
        self._tell(
            f"{sum(self._counts.values())} DNS questions waited up to {self._longest:.1f} s for their turn, "
            f"{self._counts[client]} of them for mail from {client} (about {', '.join(self._domains[client])}){others}"
        )
        self._counts, self._domains, self._longest = {}, {}, 0.0
        self._gathering, self._silent = False, True
        self._later(PAUSE, self._listen)

    def _listen(self) -> None:
        self._silent = False
