# SPDX-License-Identifier: GPL-3.0-or-later
"""Where a report goes, and why not to the other URIs of its record.

Each URI becomes a delivery to each of its addresses, or one that says why there is none. If the DNS does not say now
whether the host of a URI wants reports, that is a delivery that waits and is asked about again. Those beside it are
sent.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator

from msgspec.structs import replace

from assay.model.name import Domain, Mailbox
from assay.protocol import dmarc, report
from assay.protocol.dmarc.tree import organizational_domain
from assay.reports.correspondence import Correspondence, EndingError, Way
from assay.reports.figures import ReportFigures, Tried, Withheld
from assay.store import outbox, report_deliveries, suppressions
from assay.store.database import Database
from assay.store.outbox import DAY_SECONDS, MAX_TEXT, OutgoingReport, ReportState
from assay.store.report_deliveries import ReportDelivery

FAILING_DAYS = 30  # in which all mail of a destination must have failed, for it to get no report
_TOKEN_OCTETS = 8


class DestinationCheck:
    """Finds out where reports go. Only the process with the `Leadership` may use it."""

    def __init__(self, database: Database, correspondence: Correspondence, way: Way, figures: ReportFigures) -> None:
        self._figures = figures
        self._database = database
        self._to = correspondence
        self._way = way

    def deliveries(
        self,
        planned: OutgoingReport,
        record: dmarc.DmarcRecord,
        now: int,
        ending: Callable[[], bool],
    ) -> list[ReportDelivery]:
        """The deliveries of a report, after asking about those URIs that are due.

        :param ending: whether the process is to end.
        :raises EndingError: it ended before the DNS had answered. Nothing has changed.
        """
        with self._database.reading() as connection:
            known = report_deliveries.deliveries_of(connection, planned.id)
        due = {each.address: each for each in known if each.is_unchecked and each.due <= now}
        if known and not due:
            return known
        if known:
            rua, ruf = (tuple(uri for uri in uris if uri[:MAX_TEXT] in due) for uris in (record.rua, record.ruf))
            record = replace(record, rua=rua, ruf=ruf)
        found, organizations = self._ask(Domain.parse_host(planned.domain), record, ending)
        kept = [each for each in known if each.address not in due]
        added: list[ReportDelivery] = []
        # One more than are used, which says that there are too many.
        for each in found.uris[: report.MAX_DESTINATIONS + 1]:
            tries = due[each.uri[:MAX_TEXT]].tries + 1 if each.uri[:MAX_TEXT] in due else 1
            for delivery in self._of_uri(planned, each, organizations, tries, now):
                if all(delivery.address != other.address for other in (*kept, *added)):
                    added.append(delivery)
        with self._database.writing() as connection:
            report_deliveries.replace_deliveries(connection, planned.id, due, added)
        return [*kept, *added]  # RFC 9990, 3.5: those that are new in the order of the record

    def _ask(
        self, policy_domain: Domain, record: dmarc.DmarcRecord, ending: Callable[[], bool]
    ) -> tuple[report.Destinations, dict[Domain, Domain | None]]:
        """What the DNS says about a record, and the organizational domain of each host; None where the DNS failed."""
        suffix = self._to.public_suffix
        driver = self._to.new_driver()
        inquiry = report.evaluate_destinations(policy_domain, record, self._way.tag, public_suffix=suffix)
        found = driver.start(inquiry).result()
        hosts = dict.fromkeys(recipient.mailbox.domain for recipient in found.recipients)
        # All are started before the first is waited for.
        walks = {host: driver.start(organizational_domain(host, public_suffix=suffix)) for host in hosts}
        organizations = {host: walk.result() for host, walk in walks.items()}
        if ending():  # then the resolver was closed, and answers mean nothing
            raise EndingError
        return found, organizations

    def _of_uri(
        self,
        planned: OutgoingReport,
        uri: report.ReportUri,
        organizations: dict[Domain, Domain | None],
        tries: int,
        now: int,
    ) -> Iterator[ReportDelivery]:
        """The deliveries in place of a URI."""
        reason, unknown = uri.reason, uri.usability is report.Usability.UNKNOWN
        for recipient in uri.recipients:
            if organizations[recipient.mailbox.domain] is None:  # whose share of the reports it counts to
                unknown = True
                reason = f"the organizational domain of {recipient.mailbox.domain} was not found: the DNS failed"
        if unknown or not uri.recipients:
            state = ReportState.WAITING if unknown else ReportState.NOT_SENT
            if unknown:
                self._figures.tried[Tried.UNKNOWN] += 1
            else:
                self._figures.withheld[Withheld.UNUSABLE] += 1
            due = self._way.next_try(planned, tries, now) if unknown else now
            yield _delivery(planned, uri.uri[:MAX_TEXT], "", state, reason, now, due, tries)
            return
        for recipient in uri.recipients:
            mailbox = recipient.mailbox
            organization = (organizations[mailbox.domain] or mailbox.domain).name
            withheld = self._why_not(planned, recipient, organization, now)
            if withheld is not None:
                self._figures.withheld[withheld[0]] += 1
            state = ReportState.NOT_SENT if withheld else ReportState.WAITING
            why = withheld[1] if withheld else ""
            delivery = _delivery(planned, str(mailbox), organization, state, why, now, now, 0)
            yield replace(delivery, max_octets=recipient.max_size)

    def _why_not(
        self,
        planned: OutgoingReport,
        recipient: report.Recipient,
        organization: str,
        now: int,
    ) -> tuple[Withheld, str] | None:
        """Why nothing is sent to an address, as figures have it and in one clause; None if something may be."""
        host = recipient.mailbox.domain.name
        if why := self.why_suppressed(planned, recipient.mailbox, now):
            return Withheld.SUPPRESSED, why
        with self._database.reading() as connection:
            today = now // DAY_SECONDS
            days = range(today - FAILING_DAYS, today + 1)
            if any(outbox.only_failed(connection, domain, days) for domain in {host, organization}):
                return Withheld.FAILING, f"all mail from {host} failed DMARC itself"
            limited = self._way.limit(connection, host, organization, now)
            return (Withheld.LIMIT, limited) if limited else None

    def why_suppressed(self, planned: OutgoingReport, mailbox: Mailbox, now: int) -> str:
        """Why the operator, or what came back, forbids to send a report to an address now; empty if nothing does."""
        address = str(mailbox)
        if self._to.listed.hold(address) or self._to.listed.hold(planned.domain):
            return "listed in reports.suppress"
        with self._database.reading() as connection:
            suppression = suppressions.suppressed(connection, (address, planned.domain), now)
        return f"{suppression.subject} is suppressed: {suppression.why}" if suppression is not None else ""


def _delivery(
    planned: OutgoingReport,
    address: str,
    organization: str,
    state: ReportState,
    why: str,
    now: int,
    due: int,
    tries: int,
) -> ReportDelivery:
    return ReportDelivery(planned.id, address, organization, state, why, tries, due, now, new_token())


def new_token() -> str:
    """What a bounce address has, so that a bounce is recognized."""
    return secrets.token_hex(_TOKEN_OCTETS)
