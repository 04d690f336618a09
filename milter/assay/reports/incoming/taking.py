# SPDX-License-Identifier: GPL-3.0-or-later
"""Take a mail or a file with reports: read it, choose what is used, and keep all of it in the store."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from msgspec import Struct

from assay.config import Configuration
from assay.model.name import Domain
from assay.protocol.report.received import (
    Arrival,
    Received,
    ReceivedAggregate,
    ReceivedFailure,
    ReceivedTls,
    ReportSender,
    Unreadable,
)
from assay.reports.incoming.read import read
from assay.reports.incoming.screen import screen
from assay.store import received
from assay.store.database import Database
from assay.store.feeding import UnwritableError
from assay.store.received import ReportOutcome

_KINDS = {ReceivedAggregate: "aggregate", ReceivedFailure: "failure", ReceivedTls: "TLS"}
_WORDS = {ReportOutcome.REPLACES: "replaces a copy that was not authenticated"}  # the others are words for people


class Taken(Struct, frozen=True):
    """What became of one report.

    :ivar kind: ``aggregate``, ``failure`` or ``tls``; ``unknown`` if it cannot be read.
    :ivar text: the outcome, with what the report is about or why it is not used, for people.
    """

    kind: str
    outcome: ReportOutcome
    text: str


class Taker(Struct, frozen=True):
    """Takes reports.

    :ivar ours: the domains that reports may be about.
    :ivar authserv_id: in whose name an Authentication-Results field is believed; empty for nobody.
    :ivar complain: is called with the traceback of a bug.
    """

    ours: tuple[Domain, ...]
    authserv_id: str
    complain: Callable[[str], None]

    @classmethod
    def of(cls, configuration: Configuration, complain: Callable[[str], None]) -> Taker:
        """What the configuration says.

        A name that is not configured is not used: fields with it are removed from a stranger's mail only if the MTA
        calls itself the same.
        """
        return cls(configuration.reports.incoming.ours, configuration.identity.authserv_id, complain)

    def take(self, database: Database, octets: bytes, *, now: float, delivered: bool = True) -> tuple[Taken, ...]:
        """Read a mail or a file, and keep it. Call it in a process with one thread: reading forks.

        :param now: Unix time.
        :param delivered: it is a mail that came to this site, so that our field in it is ours.
        :returns: at least one.
        :raises UnavailableError: the database cannot be used now; nothing was kept.
        :raises OSError: there is no process or descriptor left; nothing was kept.
        """
        found = [self._screened(arrival, now) for arrival in self._read(octets, delivered)]
        try:
            return _keep(database, found, octets, now)
        except UnwritableError as error:
            return _keep(database, [Arrival(found[0].sender, Unreadable(f"it cannot be stored: {error}"))], octets, now)

    def _read(self, octets: bytes, delivered: bool) -> tuple[Arrival, ...]:
        try:
            return read(octets, authserv_id=self.authserv_id if delivered else "")
        except RuntimeError as error:
            self.complain(str(error))
            return (Arrival(ReportSender(), Unreadable("assay has a bug in reading it, which the log describes")),)

    def _screened(self, arrival: Arrival, now: float) -> Arrival:
        if isinstance(arrival.report, Unreadable):
            return arrival
        return Arrival(arrival.sender, screen(arrival.report, self.ours, now=now))


def _keep(database: Database, arrivals: Sequence[Arrival], octets: bytes, now: float) -> tuple[Taken, ...]:
    with database.writing() as connection:
        kept = [received.keep_arrival(connection, arrival, octets, now=now) for arrival in arrivals]
    return tuple(map(_taken, arrivals, kept))


def _taken(arrival: Arrival, outcome: ReportOutcome) -> Taken:
    report = arrival.report
    if isinstance(report, Unreadable):
        return Taken("unknown", outcome, f"unreadable: {report.reason}{_origin(arrival.sender)}")
    text = f"{_WORDS.get(outcome, outcome)}: {_described(report)}{_origin(arrival.sender)}"
    return Taken(str(report.__struct_config__.tag), outcome, text)


def _described(report: Received) -> str:
    """Which report it is."""
    good, bad = received.sums(report)
    match report:
        case ReceivedAggregate():
            counted = f"messages: {good} passed, {bad} failed"
            if report.left_out:
                counted += f"; records left out: {report.left_out}"
        case ReceivedTls():
            counted = f"sessions: {good} with TLS, {bad} without"
        case _:
            counted = f"messages: {bad} failed"
    return (
        f"{_KINDS[type(report)]} report {report.report_id} of {report.organization} about {report.domain} since "
        f"{datetime.fromtimestamp(report.begin, UTC):%Y-%m-%d %H:%M} UTC: {counted}"
    )


def _origin(sender: ReportSender) -> str:
    """From whom it came, as far as that is known."""
    if not sender.author:
        return ""
    return f"; from {sender.author}" + (f", dmarc={sender.dmarc}" if sender.dmarc else "")
