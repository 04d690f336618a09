# SPDX-License-Identifier: GPL-3.0-or-later
"""Send failure reports that are due (RFC 9991).

The message with a report is made again for each try, of the same values, and nothing of it is in a file.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from msgspec.structs import replace

from assay import __version__, files
from assay.model.message import Header, HeaderField
from assay.model.name import Domain, Mailbox, ReversePath, parse_mailbox
from assay.policy.addresses import Entries
from assay.protocol import dmarc, report
from assay.reports.correspondence import Correspondence, Way
from assay.reports.delivering import Deliveries
from assay.reports.relay import Relay
from assay.reports.signature import signed
from assay.store import incidents, outbox, report_deliveries, suppressions
from assay.store.database import Database
from assay.store.incidents import Incident
from assay.store.outbox import DAY_SECONDS, Connection, OutgoingReport, ReportKind, ReportState

_GENERATOR = f"assay/{__version__}"
_HOUR_SECONDS = 3600
#: What counts against the limits: in a dry run, what would have been sent does too. What was given up may have been
#: sent by a process that died.
_COUNTED = (
    ReportState.SENT,
    ReportState.HANDED_OVER,
    ReportState.WAITING,
    ReportState.BOUNCED,
    ReportState.GIVEN_UP,
    ReportState.DRY_RUN,
)
_FILE_MODE = 0o600
_CLOSED = 1  # octets of a report in which no further message counts, before its size is known


class FailureDispatch:
    """Sends failure reports. Only the process with the `Leadership` may use it."""

    def __init__(
        self,
        database: Database,
        correspondence: Correspondence,
        redactor: report.Redactor | None,
        tell: Callable[[str], None],
    ) -> None:
        """
        :param redactor: None if failure reports are no longer made: those that wait are not sent.
        :param tell: takes a line for the log.
        """
        self._database = database
        self._to = correspondence
        self._section = correspondence.section
        self._redactor = redactor
        way = Way(
            ReportKind.FAILURE,
            report.Tag.RUF,
            incidents.KEPT_SECONDS,
            limit=self._limit,
            discard=self._discard,
        )
        self.deliveries = Deliveries(database, correspondence, way, tell)
        self._large = Entries.parse(correspondence.section.large_destinations)
        self._taken: dict[int, Counter[str]] = {}  #: in this hour or day, by the seconds that it has

    def send_due(self, now: int, ending: Callable[[], bool] = lambda: False) -> int:
        """Send what is due. Returns how many reports were dealt with.

        :param now: Unix time in seconds.
        :param ending: whether to stop early.
        :raises UnavailableError: the database cannot be used now.
        """
        self._taken.clear()  # since the last turn, another process may have sent
        return self.deliveries.send_due(self._deal_with, now, ending)

    def _deal_with(self, planned: OutgoingReport, relay: Relay, now: int) -> None:
        """One report that is due, as far as possible now."""
        planned = self._closed(planned, now)
        with self._database.reading() as connection:
            incident = incidents.incident_of(connection, planned.id)
            _, text, _ = outbox.record_of(connection, planned.published[0])
            why = self._why_not(connection, planned, incident, now)
            first = outbox.first_planned(connection, ReportKind.FAILURE)
        if incident is None or self._redactor is None or why:
            gone = "the header that it is about was removed after a day"
            state = ReportState.NOT_SENT if why else ReportState.GIVEN_UP
            self.deliveries.end(planned, state, why or gone, now)
            return
        if incident.row.spf_domain and incident.spf_text is None:
            looked_up = self._with_spf(planned, incident)
            if looked_up is None:
                self.deliveries.postpone(planned, f"the SPF record of {incident.row.spf_domain} is not known", now)
                return
            incident = looked_up
        described = describe(incident, planned.messages)
        if planned.octets == _CLOSED:
            size = sum(map(len, self._message(planned, described, self._redactor, self._section.sender, now)))
            with self._database.writing() as connection:
                outbox.change_report(connection, planned.id, now, octets=size)
        due = self.deliveries.due(planned, dmarc.parse(text.encode("ascii", "replace")), now)
        # What is seen on the first day is often a surprise, so nothing leaves then.
        is_first_day = first is None or planned.planned < first + DAY_SECONDS
        if due and (self._section.dry_run or is_first_day):
            message = self._message(planned, described, self._redactor, parse_mailbox(due[0].address), now)
            path = self._to.directory / f"failure-{planned.id}.eml"
            files.replace(path, b"".join(message), mode=_FILE_MODE, like=self._to.directory.stat())
            self.deliveries.written(planned, now)
            return
        for delivery in due:
            message = self._message(planned, described, self._redactor, parse_mailbox(delivery.address), now)
            too_large = self.deliveries.deliver(planned, delivery, message, relay, now)
            if too_large is not None:
                self.deliveries.withhold(delivery, too_large, now)
        self.deliveries.conclude(planned, now)

    def _closed(self, planned: OutgoingReport, now: int) -> OutgoingReport:
        """From here on, no further message counts in a report, so that all destinations get the same."""
        if planned.octets:
            return planned
        with self._database.writing() as connection:
            outbox.change_report(connection, planned.id, now, octets=_CLOSED)
            return outbox.report(connection, planned.id) or planned

    def _why_not(self, connection: Connection, planned: OutgoingReport, incident: Incident | None, now: int) -> str:
        """Why no report is sent, in one clause; empty if one may be."""
        if self._redactor is None:
            return "reports.failure.enabled is false"
        if not Domain.parse(planned.domain).is_host_name:
            return "not a host name"
        if incident is None:
            return ""
        # The policy domain, which may be above, is looked at with each destination.
        if self._to.listed.hold(incident.author_domain):
            return "listed in reports.suppress"
        suppression = suppressions.suppressed(connection, (incident.author_domain,), now)
        return "" if suppression is None else f"{suppression.subject} is suppressed: {suppression.why}"

    def _with_spf(self, planned: OutgoingReport, incident: Incident) -> Incident | None:
        """What a report is made of, with the SPF record (RFC 9991, 4), None if the DNS did not answer."""
        inquiry = report.published_spf(Domain.parse(incident.row.spf_domain))
        found = self._to.new_driver().start(inquiry).result()
        if found is None:
            return None
        incident = replace(incident, spf_text=found.text)
        with self._database.writing() as connection:
            incidents.change(connection, planned.id, incident)
        return incident

    def _message(
        self,
        planned: OutgoingReport,
        described: report.FailureReport,
        redactor: report.Redactor,
        recipient: Mailbox,
        now: int,
    ) -> list[bytes]:
        """The signed message, in pieces."""
        section = self._section
        date = planned.planned + incidents.COLLECT_SECONDS
        letterhead = report.Letterhead(section.organization, section.sender, section.receiver_domain, date)
        mail = report.failure_mail(described, letterhead, (recipient,), redactor)
        return signed(mail, self._to.signing, section.sender, now)

    def _limit(self, connection: Connection, host: str, organization: str, now: int) -> str:
        """Why a limit forbids another report to an organizational domain (see `Way`); RFC 9991, 2 requires a limit.

        Otherwise it counts as taken.
        """
        failure = self._section.failure
        day, hour = (self._taken_in(connection, seconds, now) for seconds in (DAY_SECONDS, _HOUR_SECONDS))
        if day.total() >= failure.max_a_day:
            return "reports.failure.max_a_day is reached"
        if not self._large.hold(host):
            if day[organization] >= failure.max_per_destination_a_day:
                return f"reports.failure.max_per_destination_a_day is reached for {organization}"
            if hour[organization] >= failure.max_per_destination_an_hour:
                return f"reports.failure.max_per_destination_an_hour is reached for {organization}"
        for taken in (day, hour):
            taken[organization] += 1
        return ""

    def _taken_in(self, connection: Connection, seconds: int, now: int) -> Counter[str]:
        """How many deliveries there were in this hour or day, by organizational domain, with those of this turn."""
        if seconds not in self._taken:
            self._taken[seconds] = report_deliveries.taken_by_organization(
                connection, now - now % seconds, ReportKind.FAILURE, _COUNTED
            )
        return self._taken[seconds]

    def _discard(self, planned: OutgoingReport) -> None:
        with self._database.writing() as connection:
            incidents.remove(connection, planned.id)


def describe(incident: Incident, messages: int) -> report.FailureReport:
    """What a report says.

    :param messages: how many it stands for.
    """
    row = incident.row
    return report.FailureReport(
        incident.author_domain,
        report.AuthFailure(row.failure),
        incident.dkim_aligned,
        incident.spf_aligned,
        row.results,
        report.DeliveryResult(row.delivery),
        incident.arrival,
        _GENERATOR,
        incident.client,
        ReversePath.parse(row.mail_from) if row.mail_from is not None else None,
        incident.queue,
        messages,
        report.FailedSignature(*row.signature) if row.signature is not None else None,
        report.PublishedSpf(row.spf_domain, incident.spf_text or "") if row.spf_domain else None,
        Header(tuple([HeaderField(name, value) for name, value in row.header])),
        row.complete,
        incident.host,
    )
