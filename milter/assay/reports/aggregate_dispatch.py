# SPDX-License-Identifier: GPL-3.0-or-later
"""Plan aggregate reports, and send those that are due.

A report is written to a file before its first delivery, so that it is the same octets however often it is tried. Its
destinations are looked up when it is due. If a sender dies in the middle, the next one finds in the database what is
left.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from assay.model.name import parse_mailbox
from assay.policy.addresses import Entries
from assay.protocol import dmarc, report
from assay.reports import aggregate_writing
from assay.reports.correspondence import Correspondence, Way
from assay.reports.delivering import Deliveries
from assay.reports.planning import days_to_plan, plan
from assay.reports.relay import Relay
from assay.reports.signature import signed
from assay.store import outbox, report_deliveries
from assay.store.database import Database
from assay.store.outbox import (
    DAY_SECONDS,
    Connection,
    OutgoingReport,
    ReportKind,
    ReportState,
)
from assay.store.report_deliveries import ReportDelivery

GIVE_UP_SECONDS = 28 * 3600  # after a report was planned, our choice: sending begins 20 hours later at most
_MAX_FILE_NAME = 255  # octets, on all usual file systems


class AggregateDispatch:
    """Plans and sends aggregate reports. Only the process with the `Leadership` may use it."""

    def __init__(self, database: Database, correspondence: Correspondence, tell: Callable[[str], None]) -> None:
        """
        :param tell: takes a line for the log.
        """
        self._database = database
        self._to = correspondence
        self._section = correspondence.section
        way = Way(
            ReportKind.AGGREGATE,
            report.Tag.RUA,
            GIVE_UP_SECONDS,
            limit=self._limit,
            discard=lambda planned: self._path(planned).unlink(missing_ok=True),
        )
        self.deliveries = Deliveries(database, correspondence, way, tell)
        self._taken: Counter[str] | None = None  # what each organizational domain gets today; read once a turn

    def plan(self, now: int) -> int:
        """Plan the days that have ended. Returns how many reports wait.

        :raises UnavailableError: the database cannot be used now.
        """
        with self._database.reading() as connection:
            planned = outbox.planned_days(connection)
        waiting = 0
        for day in days_to_plan(planned, now):
            # What is seen on the first day is often a surprise, so nothing leaves then.
            dry_run = self._section.dry_run or not planned
            with self._database.reading() as connection:  # this may take a while, and whoever writes does not wait
                candidates = outbox.candidates(connection, day)
            found = plan(
                candidates,
                self._section,
                self._to.listed,
                self._to.source,
                day=day,
                now=now,
                figures=self.deliveries.figures,
            )
            with self._database.writing() as connection:
                outbox.plan(connection, day, found, now=now, dry_run=dry_run)
            planned[day] = dry_run
            waiting += sum(each.state is ReportState.WAITING for each in found)
        return waiting

    def send_due(self, now: int, ending: Callable[[], bool] = lambda: False) -> int:
        """Send what is due. Returns how many reports were dealt with.

        :param now: Unix time in seconds.
        :param ending: whether to stop early.
        :raises UnavailableError: the database cannot be used now.
        """
        self._taken = None
        return self.deliveries.send_due(self._deal_with, now, ending)

    def _deal_with(self, planned: OutgoingReport, relay: Relay, now: int) -> None:
        """One report that is due, as far as possible now."""
        path = self._path(planned)
        try:
            described = self._written(planned, path, now)
        except aggregate_writing.VanishedError:
            self.deliveries.settle(planned, ReportState.NOT_SENT, "the store has no mail of it any more", now)
            return
        with self._database.reading() as connection:
            dry_run = outbox.planned_days(connection).get(planned.day, True)
            _, text, _ = outbox.record_of(connection, planned.published[0])
        size = report.mail_size(path.stat().st_size)
        due = self.deliveries.due(planned, dmarc.parse(text.encode("ascii", "replace")), size, now)
        if dry_run and due:
            self._write_only(planned, described, now)
            return
        for delivery in due:
            message = self._message(planned, described, delivery, path, now)
            self.deliveries.deliver(planned, delivery, message, relay, now)
        self.deliveries.conclude(planned, now)

    def _write_only(self, planned: OutgoingReport, described: report.AggregateReport, now: int) -> None:
        """In a dry run: leave the file, with a name that stays: the one that a receiver would see if a file can have
        it."""
        name = report.file_name(described, self._section.receiver_domain)
        path = self._path(planned)
        path.rename(path.with_name(name if len(name) <= _MAX_FILE_NAME else f"long-{path.name}"))
        self.deliveries.written(planned, now)

    def _path(self, planned: OutgoingReport) -> Path:
        """The file with a report, from before its first delivery until after its last."""
        return self._to.directory / f"{planned.id}.xml.gz"

    def _written(self, planned: OutgoingReport, path: Path, now: int) -> report.AggregateReport:
        """Make the file, unless it is there."""
        with self._database.reading() as connection:
            described = aggregate_writing.describe(connection, planned, self._section)
            if path.exists():
                return described
            _, text, _ = outbox.record_of(connection, planned.published[0])
            octets = aggregate_writing.write(connection, planned, described, self._schema(text), path)
        with self._database.writing() as connection:
            outbox.change_report(connection, planned.id, now, octets=octets)
        return described

    def _schema(self, record: str) -> report.Schema:
        """The older one if any destination of a record wants it: all of them get the same file."""
        older = Entries.parse(self._section.older_schema)
        for uri in dmarc.parse(record.encode("ascii", "replace")).rua:
            with suppress(report.UriError):
                if older.hold(report.parse_mailto(uri).domain.name):
                    return report.Schema.RFC7489
        return report.Schema.RFC9990

    def _limit(self, connection: Connection, host: str, organization: str, ahead: Sequence[str], now: int) -> str:
        """Why a limit forbids another report to an organizational domain (see `Way`). What is allowed is counted here,
        so that not each report has to count all that were sent before it.
        """
        if self._taken is None:
            self._taken = report_deliveries.taken_by_organization(connection, now - now % DAY_SECONDS)
        if self._taken.total() >= self._section.max_a_day:
            return "reports.max_a_day is reached"
        large = Entries.parse(self._section.large_destinations).hold(host)
        if not large and self._taken[organization] >= self._section.max_per_destination:
            return f"reports.max_per_destination is reached for {organization}"
        self._taken[organization] += 1
        return ""

    def _message(
        self,
        planned: OutgoingReport,
        described: report.AggregateReport,
        delivery: ReportDelivery,
        path: Path,
        now: int,
    ) -> list[bytes]:
        """The signed message, in pieces."""
        letterhead = report.Letterhead(
            self._section.organization, self._section.sender, self._section.receiver_domain, planned.planned
        )
        mailbox = parse_mailbox(delivery.address)
        with path.open("rb") as file:
            mail = report.aggregate_mail(described, iter(lambda: file.read(1 << 16), b""), letterhead, (mailbox,))
            return signed(mail, self._to.signing, self._section.sender, now)
