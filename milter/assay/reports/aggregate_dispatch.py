# SPDX-License-Identifier: GPL-3.0-or-later
"""Plan aggregate reports, and send those that are due.

A report is written to a file before its first delivery, so that it is the same octets however often it is tried. Its
destinations are looked up when it is due. If a sender dies in the middle, the next one finds in the database what is
left.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from assay.model.name import parse_mailbox
from assay.policy.addresses import Entries
from assay.protocol import dmarc, report
from assay.reports import aggregate_writing
from assay.reports.correspondence import Correspondence, Way
from assay.reports.delivering import MAX_OCTETS, Deliveries
from assay.reports.oversize import Oversize
from assay.reports.planning import Closed, days_to_plan, plan, supplements_to_plan
from assay.reports.quota import Quota
from assay.reports.relay import Relay
from assay.reports.signature import signed
from assay.store import outbox, report_days
from assay.store.database import Database
from assay.store.outbox import (
    DAY_SECONDS,
    OutgoingReport,
    ReportForm,
    ReportKind,
    ReportState,
)
from assay.store.report_days import ReportDay
from assay.store.report_deliveries import ReportDelivery

GIVE_UP_SECONDS = 28 * 3600  # after a report was planned, our choice: sending begins 20 hours later at most
_OLDER = "rfc7489-"  # before the name of a file in the older schema
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
            limit=lambda connection, host, organization, now: self._quota.take(connection, host, organization, 1, now),
            discard=self._discard,
        )
        self.deliveries = Deliveries(database, correspondence, way, tell)
        self._quota = Quota(self._section)
        self._oversize = Oversize(database, self.deliveries.figures, self._quota, tell)

    def plan(self, now: int) -> int:
        """Plan the days that have ended. Returns how many reports wait.

        :raises UnavailableError: the database cannot be used now.
        """
        with self._database.reading() as connection:
            known = report_days.known_days(connection)
        if new := days_to_plan(known, now):  # supplements are planned along with a new day: one a day at most
            late = supplements_to_plan((day for day, each in known.items() if each.late), now)
            for day in (*late, *new):
                # What is seen on the first day is often a surprise, so nothing leaves then.
                dry_run = known[day].dry_run if day in known else self._section.dry_run or not known
                with self._database.writing() as connection:
                    report_days.close(connection, day, now=now, dry_run=dry_run)
                    known = report_days.known_days(connection)
        waiting = 0
        for each in sorted(known.values(), key=lambda each: each.day):
            # More than one if an earlier sender ended in between.
            for supplement in range(each.noted, each.closed):
                waiting += self._plan(each, supplement, now)
        return waiting

    def _plan(self, planned: ReportDay, supplement: int, now: int) -> int:
        """Plan the reports about a day, or a supplement to them. Returns how many wait."""
        day = planned.day
        with self._database.reading() as connection:  # this may take a while, and writers do not wait for it
            candidates = outbox.candidates(connection, day, supplement)
            messages = {candidate.published: candidate.messages for candidate in candidates}
            if supplement:
                all_of_day = outbox.candidates(connection, day, supplement, until=True)
                candidates = [candidate for candidate in all_of_day if candidate.published in messages]
        found = plan(
            Closed(candidates, messages, supplement),
            self._section,
            self._to.listed,
            self._to.source,
            day=day,
            now=now,
            figures=self.deliveries.figures,
        )
        with self._database.writing() as connection:
            outbox.plan(connection, day, found, now=now, dry_run=planned.dry_run, supplement=supplement)
        return sum(each.state is ReportState.WAITING for each in found)

    def send_due(self, now: int, ending: Callable[[], bool] = lambda: False) -> int:
        """Send what is due. Returns how many reports were dealt with.

        :param now: Unix time in seconds.
        :param ending: whether to stop early.
        :raises UnavailableError: the database cannot be used now.
        """
        self._quota.forget()
        return self.deliveries.send_due(self._deal_with, now, ending)

    def _deal_with(self, planned: OutgoingReport, relay: Relay, now: int) -> None:
        """One report that is due, as far as possible now."""
        if planned.form is ReportForm.ERROR:
            self._send_error_report(planned, relay, now)
            return
        try:
            with self._database.reading() as connection:
                described = aggregate_writing.describe(connection, planned, self._section)
                known = report_days.known_days(connection).get(planned.day)
                dry_run = known is None or known.dry_run
                _, text, _ = outbox.record_of(connection, planned.published[0])
            due = self.deliveries.due(planned, dmarc.parse(text.encode("ascii", "replace")), now)
            if dry_run and due:
                self._write_only(planned, described, due, now)
                return
            for delivery in due:
                self._send(planned, described, delivery, relay, now)
        except aggregate_writing.VanishedError:
            self.deliveries.end(planned, ReportState.NOT_SENT, "the store has no mail of it any more", now)
            return
        self.deliveries.conclude(planned, now)

    def _send(
        self,
        planned: OutgoingReport,
        described: report.AggregateReport,
        delivery: ReportDelivery,
        relay: Relay,
        now: int,
    ) -> None:
        """One delivery: the report, or what comes in its place if it is too large."""
        schema = self._schema(delivery)
        path = self._written(planned, described, schema, now)
        file_octets = path.stat().st_size
        size = report.mail_size(file_octets)
        too_large = self.deliveries.too_large(delivery, size, relay)
        if size <= MAX_OCTETS:  # the message is in memory, and its size is known to the octet
            message = self._message(planned, described, delivery, path, now)
            too_large = self.deliveries.deliver(planned, delivery, message, relay, now)
        if too_large is not None:
            self._oversize.settle(planned, described, schema, delivery, file_octets, too_large, now)

    def _send_error_report(self, planned: OutgoingReport, relay: Relay, now: int) -> None:
        section = self._section
        error = report.ErrorReport(
            planned.planned,
            planned.domain,
            planned.part_of,
            planned.octets,
            planned.day * DAY_SECONDS,
            section.contact,
        )
        for delivery in self.deliveries.due(planned, dmarc.parse(b""), now):
            mail = report.error_mail(error, self._letterhead(planned), parse_mailbox(delivery.address), planned.id)
            message = signed(mail, self._to.signing, section.sender, now)
            too_large = self.deliveries.deliver(planned, delivery, message, relay, now)
            if too_large is not None:
                self.deliveries.withhold(delivery, too_large, now)
        self.deliveries.conclude(planned, now)

    def _write_only(
        self,
        planned: OutgoingReport,
        described: report.AggregateReport,
        due: Sequence[ReportDelivery],
        now: int,
    ) -> None:
        """In a dry run: leave the files, with names that stay: those that a receiver would see if a file can have
        them.
        """
        for schema in {self._schema(delivery) for delivery in due}:
            path = self._written(planned, described, schema, now)
            name = report.file_name(described, self._section.receiver_domain)
            if len(name) > _MAX_FILE_NAME:
                name = f"long-{self._path(planned, report.Schema.RFC9990).name}"
            older = _OLDER if schema is report.Schema.RFC7489 else ""
            path.rename(path.with_name(older + name))
        self.deliveries.written(planned, now)

    def _discard(self, planned: OutgoingReport) -> None:
        for schema in report.Schema:
            self._path(planned, schema).unlink(missing_ok=True)

    def _path(self, planned: OutgoingReport, schema: report.Schema) -> Path:
        """The file with a report, from before its first delivery until after its last."""
        older = _OLDER if schema is report.Schema.RFC7489 else ""
        return self._to.directory / f"{older}{planned.id}.xml.gz"

    def _written(
        self, planned: OutgoingReport, described: report.AggregateReport, schema: report.Schema, now: int
    ) -> Path:
        """Make the file, unless it is there."""
        path = self._path(planned, schema)
        if not path.exists():
            with self._database.reading() as connection:
                octets = aggregate_writing.write(connection, planned, described, schema, path)
            with self._database.writing() as connection:
                outbox.change_report(connection, planned.id, now, octets=octets)
        return path

    def _schema(self, delivery: ReportDelivery) -> report.Schema:
        """The older one for those who want it."""
        host = parse_mailbox(delivery.address).domain.name
        older = Entries.parse(self._section.older_schema).hold(host)
        return report.Schema.RFC7489 if older else report.Schema.RFC9990

    def _message(
        self,
        planned: OutgoingReport,
        described: report.AggregateReport,
        delivery: ReportDelivery,
        path: Path,
        now: int,
    ) -> list[bytes]:
        """The signed message, in pieces."""
        letterhead, mailbox = self._letterhead(planned), parse_mailbox(delivery.address)
        with path.open("rb") as file:
            mail = report.aggregate_mail(described, iter(lambda: file.read(1 << 16), b""), letterhead, (mailbox,))
            return signed(mail, self._to.signing, self._section.sender, now)

    def _letterhead(self, planned: OutgoingReport) -> report.Letterhead:
        section = self._section
        return report.Letterhead(section.organization, section.sender, section.receiver_domain, planned.planned)
