# SPDX-License-Identifier: GPL-3.0-or-later
"""Send the reports that are due, one delivery at a time, and note what became of each at once.

A report is written to a file before its first delivery, so that it is the same octets however often it is tried. Its
destinations are looked up when it is due. If a sender dies in the middle, the next one finds in the database what is
left; at worst, a receiver gets a report twice, and recognizes it by its Report-ID (RFC 9990, 3.5.4).
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from assay.config.reports import ReportsSection
from assay.inquiry import Driver
from assay.keys import Signing
from assay.model.name import Domain, parse_mailbox
from assay.policy.addresses import Entries
from assay.protocol import dmarc, report
from assay.protocol.dmarc.tree import organizational_domain
from assay.reports import writing
from assay.reports.planning import days_to_plan, plan
from assay.reports.relay import Relay, RelayError, RelayOutcome
from assay.reports.signature import UnsignedError, signed
from assay.store import outbox
from assay.store.database import Database
from assay.store.outbox import DAY_SECONDS, OutgoingReport, ReportDelivery, ReportState, Suppression

GIVE_UP_SECONDS = 28 * 3600  # after a report was planned, our choice: sending begins 20 hours later at most
FIRST_WAIT_SECONDS = 300  # before the second try; doubled up to the longest
LONGEST_WAIT_SECONDS = 4 * 3600
FAILING_DAYS = 30  # in which all mail of a destination must have failed, for it to get no report
AT_A_TIME = 100  # reports that are read from the database
MAX_OCTETS = 50_000_000  # of a message with a report, our choice: no large site takes more; it is in memory while sent
_TOKEN_OCTETS = 8
_MAX_FILE_NAME = 255  # octets, on all usual file systems


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


class Dispatch:
    """Plans and sends. Only whoever has the `Leadership` may use it."""

    def __init__(self, database: Database, correspondence: Correspondence, tell: Callable[[str], None]) -> None:
        """
        :param tell: takes a line for the log.
        """
        self._database = database
        self._to = correspondence
        self._section = correspondence.section
        self._tell = tell

    def plan(self, now: int) -> int:
        """Plan the days that have ended. Returns how many reports wait.

        :raises UnavailableError: the database cannot be used now.
        """
        with self._database.writing() as connection:
            planned = outbox.planned_days(connection)
            waiting = 0
            for day in days_to_plan(planned, now):
                # What is seen on the first day is often a surprise, so nothing leaves then.
                dry_run = self._section.dry_run or not planned
                found = plan(
                    outbox.candidates(connection, day),
                    self._section,
                    self._to.listed,
                    self._to.source,
                    day=day,
                    now=now,
                )
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
        with self._database.reading() as connection:
            due = outbox.due_reports(connection, now, AT_A_TIME)
        done = 0
        with self._to.new_relay() as relay:
            for planned in due:
                if ending():
                    break
                try:
                    self._deal_with(planned, relay, now)
                except (RelayError, UnsignedError) as error:  # nothing else will get through now either
                    self._tell(f"reports: {error}; {len(due) - done} reports wait")
                    for left in due[done:]:
                        self._postpone(left, str(error), now)
                    break
                done += 1
        return done

    def _deal_with(self, planned: OutgoingReport, relay: Relay, now: int) -> None:
        """One report that is due, as far as possible now."""
        path = self._path(planned)
        try:
            described = self._written(planned, path, now)
        except writing.VanishedError:
            self._settle(planned, ReportState.NOT_SENT, "the store has no mail of it any more", now)
            return
        with self._database.reading() as connection:
            deliveries = outbox.deliveries_of(connection, planned.id)
            dry_run = outbox.planned_days(connection).get(planned.day, True)
        if not deliveries:
            deliveries, unknown = self._look_up(planned, described, now)
            if not deliveries:
                if unknown:
                    self._postpone(planned, unknown, now)
                return
        if dry_run and any(delivery.state is ReportState.WAITING for delivery in deliveries):
            self._write_only(planned, described, deliveries, now)
            return
        for delivery in deliveries:
            if delivery.state is ReportState.WAITING and delivery.due <= now:
                self._deliver(planned, described, delivery, path, relay, now)
        self._conclude(planned, now)

    def _write_only(
        self,
        planned: OutgoingReport,
        described: report.AggregateReport,
        deliveries: Iterable[ReportDelivery],
        now: int,
    ) -> None:
        """In a dry run: leave the file, with the name that a receiver would see if a file can have it."""
        path = self._path(planned)
        name = report.file_name(described, self._section.receiver_domain)
        if len(name) <= _MAX_FILE_NAME:
            path.rename(path.with_name(name))
        why = f"written to {self._to.directory}"
        with self._database.writing() as connection:
            for delivery in deliveries:
                if delivery.state is ReportState.WAITING:
                    outbox.change_delivery(connection, replace(delivery, state=ReportState.DRY_RUN, changed=now))
            outbox.change_report(connection, planned.id, now, state=ReportState.DRY_RUN, why=why)

    def _path(self, planned: OutgoingReport) -> Path:
        """The file with a report, from before its first delivery until after its last."""
        return self._to.directory / f"{planned.id}.xml.gz"

    def _written(self, planned: OutgoingReport, path: Path, now: int) -> report.AggregateReport:
        """Make the file, unless it is there."""
        with self._database.reading() as connection:
            described = writing.describe(connection, planned, self._section)
            if path.exists():
                return described
            _, text, _ = outbox.record_of(connection, planned.published[0])
            octets = writing.write(connection, planned, described, self._schema(text), path)
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

    def _look_up(
        self, planned: OutgoingReport, described: report.AggregateReport, now: int
    ) -> tuple[list[ReportDelivery], str]:
        """Where a report goes, and what is not known yet. If it goes nowhere, that is noted."""
        with self._database.reading() as connection:
            _, text, _ = outbox.record_of(connection, planned.published[0])
        record = dmarc.parse(text.encode("ascii", "replace"))
        policy_domain = Domain.parse_host(described.policy.domain)
        found = (
            self._to.new_driver()
            .start(
                report.evaluate_destinations(
                    policy_domain, record, report.Tag.RUA, public_suffix=self._to.public_suffix
                )
            )
            .result()
        )
        if not found.recipients:
            if found.unknown:
                return [], "; ".join(f"{each.uri}: {each.reason}" for each in found.uris)
            why = "; ".join(f"{each.uri}: {each.reason}" for each in found.uris)
            self._settle(planned, ReportState.NOT_SENT, why or "its record has no usable rua", now)
            return [], ""
        size = self._path(planned).stat().st_size * 3 // 2  # in base64, with the header
        deliveries: list[ReportDelivery] = []
        for recipient in found.recipients:
            host = recipient.mailbox.domain
            organization = (
                self._to.new_driver().start(organizational_domain(host, public_suffix=self._to.public_suffix)).result()
            )
            ahead = [each.organization for each in deliveries if each.state is ReportState.WAITING]
            why = self._why_not(recipient, (organization or host).name, ahead, size, now)
            deliveries.append(
                ReportDelivery(
                    planned.id,
                    str(recipient.mailbox),
                    (organization or host).name,
                    ReportState.NOT_SENT if why else ReportState.WAITING,
                    why,
                    0,
                    now,
                    now,
                    secrets.token_hex(_TOKEN_OCTETS),
                )
            )
        with self._database.writing() as connection:
            outbox.add_deliveries(connection, deliveries)
        return deliveries, ""

    def _why_not(
        self, recipient: report.Recipient, organization: str, ahead: Sequence[str], size: int, now: int
    ) -> str:
        """Why nothing is sent to an address, in one clause; empty if something may be.

        :param ahead: the organizational domains of the other addresses that the same report is sent to.
        """
        address, host = str(recipient.mailbox), recipient.mailbox.domain.name
        if recipient.max_size is not None and size > recipient.max_size:
            return f"the report has {size} octets, and its record wants at most {recipient.max_size}"
        if size > MAX_OCTETS:
            return f"the report has {size} octets, and at most {MAX_OCTETS} are sent"
        if self._to.listed.hold(address):
            return "listed in reports.suppress"
        midnight = now - now % DAY_SECONDS
        with self._database.reading() as connection:
            suppression = outbox.suppressed(connection, (address.lower(), host, organization), now)
            if suppression is not None:
                return f"{suppression.subject} is suppressed: {suppression.why}"
            since = now // DAY_SECONDS - FAILING_DAYS
            if any(outbox.only_failed(connection, domain, since) for domain in {host, organization}):
                return f"all mail from {host} failed DMARC itself"
            if outbox.taken_since(connection, midnight) + len(ahead) >= self._section.max_a_day:
                return "reports.max_a_day is reached"
            large = Entries.parse(self._section.large_destinations).hold(host)
            taken = outbox.taken_since(connection, midnight, organization) + ahead.count(organization)
            if not large and taken >= self._section.max_per_destination:
                return f"reports.max_per_destination is reached for {organization}"
        return ""

    def _deliver(
        self,
        planned: OutgoingReport,
        described: report.AggregateReport,
        delivery: ReportDelivery,
        path: Path,
        relay: Relay,
        now: int,
    ) -> None:
        """One try. What came of it is in the database when this returns."""
        message = self._message(planned, described, delivery, path, now)
        size = sum(map(len, message))
        most = relay.max_size
        if most is not None and size > most:
            why = f"the report has {size} octets, and the relay takes at most {most}"
            self._note(replace(delivery, state=ReportState.NOT_SENT, why=why, changed=now))
            return
        reply = relay.send(self._bounce_address(delivery), delivery.address, message)
        tries = delivery.tries + 1
        match reply.outcome:
            case RelayOutcome.TAKEN:
                self._note(replace(delivery, state=ReportState.SENT, why=reply.text, tries=tries, changed=now))
            case RelayOutcome.DEFERRED:
                wait = min(FIRST_WAIT_SECONDS << min(delivery.tries, 10), LONGEST_WAIT_SECONDS)
                self._note(replace(delivery, why=reply.text, tries=tries, due=now + wait, changed=now))
            case RelayOutcome.REFUSED:
                self._note(replace(delivery, state=ReportState.REFUSED, why=reply.text, tries=tries, changed=now))
                self._cool_down(delivery, f"it refused a report: {reply.text}", now)

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

    def _bounce_address(self, delivery: ReportDelivery) -> str:
        """The envelope sender: the null one, or an address by which a bounce is recognized."""
        local_part, at, domain = self._section.bounces.rpartition("@")
        return f"{local_part}+{delivery.token}{at}{domain}" if at else ""

    def _note(self, delivery: ReportDelivery) -> None:
        with self._database.writing() as connection:
            outbox.change_delivery(connection, delivery)

    def _cool_down(self, delivery: ReportDelivery, why: str, now: int) -> None:
        until = now + self._section.cool_down_days * DAY_SECONDS
        with self._database.writing() as connection:
            outbox.suppress(connection, Suppression(delivery.address.lower(), until, why, now))

    def _conclude(self, planned: OutgoingReport, now: int) -> None:
        """What became of a report, from what became of its deliveries."""
        with self._database.reading() as connection:
            deliveries = outbox.deliveries_of(connection, planned.id)
        waiting = [delivery for delivery in deliveries if delivery.state is ReportState.WAITING]
        if waiting and now >= planned.planned + GIVE_UP_SECONDS:
            for delivery in waiting:
                self._note(replace(delivery, state=ReportState.GIVEN_UP, changed=now))
                self._tell(f"reports: {planned.domain} to {delivery.address}: given up: {delivery.why}")
            deliveries, waiting = [*_given_up(deliveries, now)], []
        if waiting:
            with self._database.writing() as connection:
                due = min(delivery.due for delivery in waiting)
                outbox.change_report(connection, planned.id, now, due=due, why=waiting[0].why)
            return
        states = {delivery.state for delivery in deliveries}
        state = next(state for state in _BEST_FIRST if state in states)
        why = "; ".join(f"{each.address}: {each.why}" for each in deliveries if each.state is state)
        self._settle(planned, state, why, now)

    def _postpone(self, planned: OutgoingReport, why: str, now: int) -> None:
        """Try again later, or give up."""
        if now >= planned.planned + GIVE_UP_SECONDS:
            self._tell(f"reports: {planned.domain}: given up: {why}")
            self._settle(planned, ReportState.GIVEN_UP, why, now)
            return
        age = max(0, now - planned.planned)
        wait = min(max(FIRST_WAIT_SECONDS, age // 4), LONGEST_WAIT_SECONDS)
        with self._database.writing() as connection:
            outbox.change_report(connection, planned.id, now, due=now + wait, why=why)

    def _settle(self, planned: OutgoingReport, state: ReportState, why: str, now: int) -> None:
        """Note the end of a report, and remove its file."""
        self._path(planned).unlink(missing_ok=True)
        with self._database.writing() as connection:
            outbox.change_report(connection, planned.id, now, state=state, why=why)


_BEST_FIRST = (
    ReportState.SENT,
    ReportState.BOUNCED,
    ReportState.REFUSED,
    ReportState.GIVEN_UP,
    ReportState.NOT_SENT,
)


def _given_up(deliveries: Iterable[ReportDelivery], now: int) -> Iterator[ReportDelivery]:
    for delivery in deliveries:
        given_up = delivery.state is ReportState.WAITING
        yield replace(delivery, state=ReportState.GIVEN_UP, changed=now) if given_up else delivery
