# SPDX-License-Identifier: GPL-3.0-or-later
"""Send reports that are due, of any kind, one delivery at a time, and note what became of each at once.

What is common to all kinds is here: tries with growing pauses, and how each ends. To whom a report goes is in
`assay.reports.destinations`. What a report says, and how many are sent, each kind knows itself.

No report is sent twice. A delivery is noted as handed over just before the end of its message goes to the relay. If no
answer can be noted after that, it may have been taken, and is given up.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from msgspec.structs import replace

from assay.model.name import parse_mailbox
from assay.model.wording import counted
from assay.protocol import dmarc
from assay.reports.correspondence import (
    FIRST_WAIT_SECONDS,
    LONGEST_WAIT_SECONDS,
    Correspondence,
    EndingError,
    TooLarge,
    Way,
)
from assay.reports.destinations import DestinationCheck
from assay.reports.figures import ReportFigures, Tried, Withheld
from assay.reports.relay import Relay, RelayError, RelayOutcome
from assay.reports.signature import UnsignedError
from assay.store import outbox, report_deliveries, suppressions
from assay.store.database import Database
from assay.store.feeding import UnavailableError, described
from assay.store.outbox import (
    DAY_SECONDS,
    OutgoingReport,
    ReportState,
)
from assay.store.report_deliveries import ReportDelivery

MAX_OCTETS = 50_000_000  # of a message with a report, our choice: no large site takes more; it is in memory while sent
AT_A_TIME = 100  # reports that are read from the database
_MAYBE_TAKEN = "it may have been taken"


class Deliveries:
    """Sends one kind of report. Only the process with the `Leadership` may use it."""

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
        self.figures = ReportFigures()
        self._check = DestinationCheck(database, correspondence, way, self.figures)
        self._ending: Callable[[], bool] = lambda: False

    def send_due(
        self, deal_with: Callable[[OutgoingReport, Relay, int], None], now: int, ending: Callable[[], bool]
    ) -> int:
        """Send what is due. Returns how many reports were dealt with.

        :param deal_with: takes one report as far as possible now.
        :param now: Unix time in seconds.
        :param ending: whether to stop early.
        :raises UnavailableError: the database cannot be used now.
        """
        self._ending = ending
        with self._database.reading() as connection:
            due = outbox.due_reports(connection, now, AT_A_TIME, self._way.kind)
            unanswered = report_deliveries.handed_over(connection, [planned.id for planned in due])
        self._give_up(unanswered, {planned.id: planned for planned in due}, now)
        done = 0
        with self._to.new_relay() as relay:
            for planned in due:
                if ending():
                    break
                try:
                    deal_with(planned, relay, now)
                except EndingError:
                    break
                except (RelayError, UnsignedError) as error:  # nothing else will get through now either
                    self._tell(f"reports: {error}; {counted(len(due) - done, 'report')} waiting")
                    for left in due[done:]:
                        self.postpone(left, str(error), now)
                    break
                except (UnavailableError, OSError):
                    raise
                except Exception as error:  # a bug: all the others are sent, and this one is given up in the end
                    self._tell(f"reports: {planned.domain}: {described(error)}; tried again later")
                    self.postpone(planned, described(error), now)
                done += 1
        return done

    def due(self, planned: OutgoingReport, record: dmarc.DmarcRecord, now: int) -> list[ReportDelivery]:
        """The deliveries of a report that are to be made now. Destinations that are not known yet are looked up.

        :raises EndingError: the process is to end.
        """
        found = self._check.deliveries(planned, record, now, self._ending)
        return [
            each for each in found if each.state is ReportState.WAITING and not each.is_unchecked and each.due <= now
        ]

    def deliver(
        self, planned: OutgoingReport, delivery: ReportDelivery, message: Sequence[bytes], relay: Relay, now: int
    ) -> TooLarge | None:
        """One try. What came of it is in the database when this returns, but for a message that is too large.

        :returns: whether that is so.
        :raises RelayError: the relay cannot be used now.
        """
        if why := self._check.why_suppressed(planned, parse_mailbox(delivery.address), now):  # since the last try
            self._note(replace(delivery, state=ReportState.NOT_SENT, why=why, changed=now))
            self.figures.withheld[Withheld.SUPPRESSED] += 1
            return None
        size = sum(map(len, message))
        if (too_large := self.too_large(delivery, size, relay)) is not None:
            return too_large
        handed_over = replace(delivery, state=ReportState.HANDED_OVER, why=_MAYBE_TAKEN, changed=now)

        def hand_over() -> None:
            if not self._exchange(delivery, handed_over):  # another process has become the sender
                raise EndingError

        try:
            reply = relay.send(self._bounce_address(delivery), delivery.address, message, hand_over)
        except RelayError:
            self._exchange(handed_over, delivery)
            raise
        tries = delivery.tries + 1
        self.figures.tried[_TRIED[reply.outcome]] += 1
        match reply.outcome:
            case RelayOutcome.TAKEN:
                self._note(replace(delivery, state=ReportState.SENT, why=reply.text, tries=tries, changed=now))
            case RelayOutcome.UNANSWERED:
                why = f"{_MAYBE_TAKEN}: {reply.text}"
                self._note(replace(delivery, state=ReportState.GIVEN_UP, why=why, tries=tries, changed=now))
                self._tell(f"reports: {planned.domain} to {delivery.address}: given up: {why}")
            case RelayOutcome.DEFERRED:
                due = self._way.next_try(planned, tries, now)
                later = replace(delivery, why=reply.text, tries=tries, due=due, changed=now)
                self._exchange(handed_over, later) or self._exchange(delivery, later)
            case RelayOutcome.REFUSED | RelayOutcome.DENIED:
                self._note(replace(delivery, state=ReportState.REFUSED, why=reply.text, tries=tries, changed=now))
                if reply.outcome is RelayOutcome.REFUSED:
                    self._cool_down(delivery, f"it refused a report: {reply.text}", now)
                self._tell(f"reports: {planned.domain} to {delivery.address}: refused: {reply.text}")
            case RelayOutcome.TOO_LARGE:  # and how much would be taken is not known
                self._exchange(handed_over, delivery)  # it was not taken, whatever happens before it is divided
                return TooLarge(size, size // 2, f"it is refused: {reply.text}")
        return None

    def too_large(self, delivery: ReportDelivery, size: int, relay: Relay) -> TooLarge | None:
        """Whether a message of so many octets is too large for a destination, as far as that is known beforehand.

        :raises RelayError: the relay cannot be used now.
        """
        limits = [(MAX_OCTETS, f"at most {MAX_OCTETS} are sent")]
        if delivery.max_octets is not None:
            limits.append((delivery.max_octets, f"its record allows at most {delivery.max_octets}"))
        if (taken := relay.max_size) is not None:
            limits.append((taken, f"the relay takes at most {taken}"))
        most, why = min(limits)
        return TooLarge(size, most, why) if size > most else None

    def withhold(self, delivery: ReportDelivery, too_large: TooLarge, now: int) -> None:
        """Nothing is sent to a destination, because it would be too large there."""
        self._note(replace(delivery, state=ReportState.NOT_SENT, why=str(too_large), changed=now))
        self.figures.withheld[Withheld.SIZE] += 1

    def _give_up(self, unanswered: Sequence[ReportDelivery], planned: Mapping[str, OutgoingReport], now: int) -> None:
        """Give up what an earlier sender handed over, and did not note what the relay said."""
        for delivery in unanswered:
            why = f"{_MAYBE_TAKEN}: the sender ended before the answer"
            given_up = replace(delivery, state=ReportState.GIVEN_UP, why=why, tries=delivery.tries + 1, changed=now)
            if self._exchange(delivery, given_up):
                self.figures.tried[Tried.GIVEN_UP] += 1
                domain = planned[delivery.report].domain
                self._tell(f"reports: {domain} to {delivery.address}: given up: {why}")

    def _bounce_address(self, delivery: ReportDelivery) -> str:
        """The envelope sender: the null one, or an address by which a bounce is recognized."""
        local_part, at, domain = self._section.bounces.rpartition("@")
        return f"{local_part}+{delivery.token}{at}{domain}" if at else ""

    def _note(self, delivery: ReportDelivery) -> None:
        with self._database.writing() as connection:
            report_deliveries.change_delivery(connection, delivery)

    def _exchange(self, before: ReportDelivery, after: ReportDelivery) -> bool:
        with self._database.writing() as connection:
            return report_deliveries.exchange_delivery(connection, before, after)

    def _cool_down(self, delivery: ReportDelivery, why: str, now: int) -> None:
        until = now + self._section.cool_down_days * DAY_SECONDS
        with self._database.writing() as connection:
            suppressions.cool_down(connection, suppressions.Suppression(delivery.address.lower(), until, why, now))

    def written(self, planned: OutgoingReport, now: int) -> None:
        """In a dry run, the file is there, and nothing leaves."""
        with self._database.writing() as connection:
            for delivery in report_deliveries.deliveries_of(connection, planned.id):
                if delivery.state is ReportState.WAITING:
                    report_deliveries.change_delivery(
                        connection, replace(delivery, state=ReportState.DRY_RUN, changed=now)
                    )
                    self.figures.tried[Tried.DRY_RUN] += 1
        self.settle(planned, ReportState.DRY_RUN, f"written to {self._to.directory}", now)

    def conclude(self, planned: OutgoingReport, now: int, why: str = "") -> None:
        """What became of a report, from what became of its deliveries.

        :param why: none of them can be made now; by default, each has its own reason.
        """
        with self._database.reading() as connection:
            deliveries = report_deliveries.deliveries_of(connection, planned.id)
        waiting = [delivery for delivery in deliveries if delivery.state is ReportState.WAITING]
        if waiting and now >= self._way.gives_up_at(planned):
            for delivery in waiting:
                given_up = replace(delivery, state=ReportState.GIVEN_UP, why=why or delivery.why, changed=now)
                self._note(given_up)
                self.figures.tried[Tried.GIVEN_UP] += 1
                self._tell(f"reports: {planned.domain} to {delivery.address}: given up: {given_up.why}")
            with self._database.reading() as connection:
                deliveries, waiting = report_deliveries.deliveries_of(connection, planned.id), []
        if waiting:
            with self._database.writing() as connection:
                due = min(delivery.due for delivery in waiting)
                outbox.change_report(connection, planned.id, now, due=due, why=waiting[0].why)
            return
        states = {delivery.state for delivery in deliveries}
        state = next((state for state in _BEST_FIRST if state in states), ReportState.NOT_SENT)
        whys = "; ".join(f"{each.address}: {each.why}" for each in deliveries if each.state is state)
        self.settle(planned, state, whys or f"its record has no usable {self._way.tag}", now)

    def postpone(self, planned: OutgoingReport, why: str, now: int) -> None:
        """Nothing can be sent now: try again later, or give up."""
        if now < self._way.gives_up_at(planned):
            wait = min(max(FIRST_WAIT_SECONDS, (now - planned.planned) // 4), LONGEST_WAIT_SECONDS)
            with self._database.writing() as connection:
                due = min(now + wait, self._way.gives_up_at(planned))
                outbox.change_report(connection, planned.id, now, due=due, why=why)
            return
        with self._database.reading() as connection:
            begun = bool(report_deliveries.deliveries_of(connection, planned.id))
        if begun:  # some of its deliveries may have been made
            self.conclude(planned, now, why)
        else:
            self._tell(f"reports: {planned.domain}: given up: {why}")
            self.figures.tried[Tried.GIVEN_UP] += 1
            self.settle(planned, ReportState.GIVEN_UP, why, now)

    def end(self, planned: OutgoingReport, state: ReportState, why: str, now: int) -> None:
        """No delivery of a report can be made any more. Those that were made count all the same.

        :param state: of the others, and of a report without deliveries.
        """
        with self._database.writing() as connection:
            known = report_deliveries.deliveries_of(connection, planned.id)
            for delivery in known:
                if delivery.state is ReportState.WAITING:
                    ended = replace(delivery, state=state, why=why, changed=now)
                    report_deliveries.change_delivery(connection, ended)
        if known:
            self.conclude(planned, now)
        else:
            self.settle(planned, state, why, now)

    def settle(self, planned: OutgoingReport, state: ReportState, why: str, now: int) -> None:
        """Note the end of a report, and remove what it was made of."""
        self._way.discard(planned)
        with self._database.writing() as connection:
            outbox.change_report(connection, planned.id, now, state=state, why=why)


_TRIED = {
    RelayOutcome.TAKEN: Tried.SENT,
    RelayOutcome.DEFERRED: Tried.DEFERRED,
    RelayOutcome.REFUSED: Tried.REFUSED,
    RelayOutcome.DENIED: Tried.REFUSED,
    RelayOutcome.TOO_LARGE: Tried.REFUSED,
    RelayOutcome.UNANSWERED: Tried.GIVEN_UP,
}
_BEST_FIRST = (
    ReportState.SENT,
    ReportState.DIVIDED,
    ReportState.BOUNCED,
    ReportState.REFUSED,
    ReportState.GIVEN_UP,
    ReportState.NOT_SENT,
)
