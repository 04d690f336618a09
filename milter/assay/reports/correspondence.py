# SPDX-License-Identifier: GPL-3.0-or-later
"""What sending reports needs besides the database, and how each kind of report is sent."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from msgspec import Struct

from assay.config.reports import ReportsSection
from assay.inquiry import Driver
from assay.keys import Signing
from assay.policy.addresses import Entries
from assay.protocol import dmarc, report
from assay.reports.relay import Relay
from assay.store.outbox import Connection, OutgoingReport, ReportKind

FIRST_WAIT_SECONDS = 300  # before the second try; doubled up to the longest
LONGEST_WAIT_SECONDS = 4 * 3600


class Correspondence(Struct, frozen=True):
    """What sending needs, besides the database.

    :ivar listed: domains and addresses that no report is about or goes to.
    :ivar directory: where files are.
    :ivar source: what tells apart the stores of one receiver.
    :ivar new_driver: asks the DNS, with a budget of its own.
    :ivar new_relay: a connection to the relay, which opens at the first message.
    """

    section: ReportsSection
    signing: Signing
    listed: Entries
    directory: Path
    source: str
    new_driver: Callable[[], Driver]
    new_relay: Callable[[], Relay]
    public_suffix: dmarc.PublicSuffix | None = None


class Way(Struct, frozen=True):
    """How one kind of report is sent.

    :ivar tag: names its destinations in a record.
    :ivar give_up_seconds: after a report was planned.
    :ivar limit: why a limit forbids another report to an organizational domain, in one clause; empty if none does, and
        then the report is counted. It gets the host, the organizational domain and the time.
    :ivar discard: removes what a report is made of, when it has come to its end.
    """

    kind: ReportKind
    tag: report.Tag
    give_up_seconds: int
    limit: Callable[[Connection, str, str, int], str]
    discard: Callable[[OutgoingReport], None]

    def gives_up_at(self, planned: OutgoingReport) -> int:
        """When the last try of a report is, in Unix seconds."""
        return planned.planned + self.give_up_seconds

    def next_try(self, planned: OutgoingReport, tries: int, now: int) -> int:
        """When to try again: after growing pauses, and for the last time when the report is given up.

        :param tries: how many there were, 1 at least.
        """
        wait = min(FIRST_WAIT_SECONDS << min(tries - 1, 10), LONGEST_WAIT_SECONDS)
        return max(now + 1, min(now + wait, self.gives_up_at(planned)))


class TooLarge(Struct, frozen=True):
    """A message that a destination or the relay does not take because of its size.

    :ivar octets: that it has.
    :ivar most: that it may have.
    :ivar why: the rest of a clause that begins with "the report has ... octets, and".
    """

    octets: int
    most: int
    why: str

    def __str__(self) -> str:
        return f"the report has {self.octets} octets, and {self.why}"


class EndingError(Exception):
    """The process is to end, or another one sends now. What was under way is left as it was."""
