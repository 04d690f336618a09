# SPDX-License-Identifier: GPL-3.0-or-later
"""Send reports that are due, of any kind, one delivery at a time, and note what became of each at once.

What is common to all kinds is here: to whom a report goes, why to others it does not, tries with growing pauses, and
how each ends. What a report says, and how many are sent, each kind knows itself.
"""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from assay.config.reports import ReportsSection
from assay.inquiry import Driver
from assay.keys import Signing
from assay.model.name import Domain
from assay.policy.addresses import Entries
from assay.protocol import dmarc, report
from assay.protocol.dmarc.tree import organizational_domain
from assay.reports.relay import Relay, RelayError, RelayOutcome
from assay.reports.signature import UnsignedError
from assay.store import outbox
from assay.store.database import Database
from assay.store.outbox import (
    DAY_SECONDS,
    Connection,
    OutgoingReport,
    ReportDelivery,
    ReportKind,
    ReportState,
    Suppression,
)

FIRST_WAIT_SECONDS = 300  # before the second try; doubled up to the longest
LONGEST_WAIT_SECONDS = 4 * 3600
FAILING_DAYS = 30  # in which all mail of a destination must have failed, for it to get no report
AT_A_TIME = 100  # reports that are read from the database
MAX_OCTETS = 50_000_000  # of a message with a report, our choice: no large site takes more; it is in memory while sent
_TOKEN_OCTETS = 8


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
    :ivar at_most_once: a sender that dies during a delivery has given it up. Without it, the next one sends it again,
        and the receiver has to recognize it.
    :ivar limit: why a limit forbids another report to an organizational domain, in one clause; empty if none does. It
        gets the host, the organizational domain, those of the other addresses that the same report goes to, and the
        time.
    :ivar discard: removes what a report is made of, when it has come to its end.
    """

    kind: ReportKind
    tag: report.Tag
    give_up_seconds: int
    at_most_once: bool
    limit: Callable[[Connection, str, str, Sequence[str], int], str]
    discard: Callable[[OutgoingReport], None]


class Deliveries:
    """Sends one kind of report. Only whoever has the `Leadership` may use it."""

    def __init__(
        self, database: Database, correspondence: Correspondence, way: Way, tell: Callable[[str], None]
    ) -> None:
        """
        :param tell: takes a line for the log.
        """
        self._database = database
        self._to = correspondence
        self._section = correspondence.section
        self._way = way
        self._tell = tell
        self.ended: Counter[ReportState] = Counter()  #: reports by how they ended

    def send_due(
        self, deal_with: Callable[[OutgoingReport, Relay, int], None], now: int, ending: Callable[[], bool]
    ) -> int:
        """Send what is due. Returns how many reports were dealt with.

        :param deal_with: takes one report as far as possible now.
        :param now: Unix time in seconds.
        :param ending: whether to stop early.
        :raises UnavailableError: the database cannot be used now.
        """
        with self._database.reading() as connection:
            due = outbox.due_reports(connection, now, AT_A_TIME, self._way.kind)
        done = 0
        with self._to.new_relay() as relay:
            for planned in due:
                if ending():
                    break
                try:
                    deal_with(planned, relay, now)
                except (RelayError, UnsignedError) as error:  # nothing else will get through now either
                    self._tell(f"reports: {error}; {len(due) - done} reports wait")
                    for left in due[done:]:
                        self.postpone(left, str(error), now)
                    break
                done += 1
        return done

    def look_up(
        self, planned: OutgoingReport, record: dmarc.DmarcRecord, size: int, now: int
    ) -> tuple[list[ReportDelivery], str]:
        """Where a report goes, and what is not known yet. If it goes nowhere, that is noted.

        :param size: of the message in octets, about.
        """
        found = (
            self._to.new_driver()
            .start(
                report.evaluate_destinations(
                    Domain.parse_host(planned.domain), record, self._way.tag, public_suffix=self._to.public_suffix
                )
            )
            .result()
        )
        if not found.recipients:
            why = "; ".join(f"{each.uri}: {each.reason}" for each in found.uris)
            if found.unknown:
                return [], why
            self.settle(planned, ReportState.NOT_SENT, why or f"its record has no usable {self._way.tag}", now)
            return [], ""
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
        with self._database.reading() as connection:
            suppression = outbox.suppressed(connection, (address.lower(), host, organization), now)
            if suppression is not None:
                return f"{suppression.subject} is suppressed: {suppression.why}"
            since = now // DAY_SECONDS - FAILING_DAYS
            if any(outbox.only_failed(connection, domain, since) for domain in {host, organization}):
                return f"all mail from {host} failed DMARC itself"
            return self._way.limit(connection, host, organization, ahead, now)

    def deliver(self, delivery: ReportDelivery, message: Sequence[bytes], relay: Relay, now: int) -> None:
        """One try. What came of it is in the database when this returns.

        :raises RelayError: the relay cannot be used now.
        """
        size = sum(map(len, message))
        most = relay.max_size
        if most is not None and size > most:
            why = f"the report has {size} octets, and the relay takes at most {most}"
            self._note(replace(delivery, state=ReportState.NOT_SENT, why=why, changed=now))
            return
        if self._way.at_most_once:
            why = "the sender ended while it was sent"
            self._note(replace(delivery, state=ReportState.GIVEN_UP, why=why, changed=now))
        try:
            reply = relay.send(self._bounce_address(delivery), delivery.address, message)
        except RelayError:
            if self._way.at_most_once:
                self._note(delivery)
            raise
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

    def written(self, planned: OutgoingReport, deliveries: Iterable[ReportDelivery], now: int) -> None:
        """In a dry run, the file is there, and nothing leaves."""
        with self._database.writing() as connection:
            for delivery in deliveries:
                if delivery.state is ReportState.WAITING:
                    outbox.change_delivery(connection, replace(delivery, state=ReportState.DRY_RUN, changed=now))
        self.settle(planned, ReportState.DRY_RUN, f"written to {self._to.directory}", now)

    def conclude(self, planned: OutgoingReport, now: int) -> None:
        """What became of a report, from what became of its deliveries."""
        with self._database.reading() as connection:
            deliveries = outbox.deliveries_of(connection, planned.id)
        waiting = [delivery for delivery in deliveries if delivery.state is ReportState.WAITING]
        if waiting and now >= planned.planned + self._way.give_up_seconds:
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
        self.settle(planned, state, why, now)

    def postpone(self, planned: OutgoingReport, why: str, now: int) -> None:
        """Try again later, or give up."""
        if now >= planned.planned + self._way.give_up_seconds:
            self._tell(f"reports: {planned.domain}: given up: {why}")
            self.settle(planned, ReportState.GIVEN_UP, why, now)
            return
        age = max(0, now - planned.planned)
        wait = min(max(FIRST_WAIT_SECONDS, age // 4), LONGEST_WAIT_SECONDS)
        with self._database.writing() as connection:
            outbox.change_report(connection, planned.id, now, due=now + wait, why=why)

    def settle(self, planned: OutgoingReport, state: ReportState, why: str, now: int) -> None:
        """Note the end of a report, and remove what it was made of."""
        self._way.discard(planned)
        with self._database.writing() as connection:
            outbox.change_report(connection, planned.id, now, state=state, why=why)
        self.ended[state] += 1


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
