# SPDX-License-Identifier: GPL-3.0-or-later
"""What becomes of an aggregate report that is too large for a destination.

It is divided into parts, each a report of its own with its own Report-ID, about the same domain and day; every record
is in one of them. Destinations with the same limit and schema get the same parts. If it cannot be divided, the
destination gets an error report (RFC 7489, 7.2.2), and the log has a line.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing

from msgspec.structs import replace

from assay.model.name import parse_mailbox
from assay.protocol import report
from assay.reports import aggregate_writing
from assay.reports.correspondence import TooLarge
from assay.reports.destinations import new_token
from assay.reports.figures import ReportFigures, Tried, Withheld
from assay.reports.quota import Quota
from assay.store import outbox, report_deliveries
from assay.store.database import Database
from assay.store.outbox import Connection, OutgoingReport, ReportForm, ReportState
from assay.store.report_deliveries import ReportDelivery

MAX_PARTS = 20  # of a report for a destination, our choice: with "!1k", a message would go out for each record
MAX_DIVISIONS = 3  # one within the other, our choice: of what is refused although no limit was known
_MARGIN = 200  # octets: what is around the file of a part may be longer than around the whole one


class UndividedError(Exception):
    """A report cannot be divided. The message says why, in one clause."""


class Oversize:
    """Divides reports. Only the process with the `Leadership` may use it."""

    def __init__(
        self,
        database: Database,
        figures: ReportFigures,
        quota: Quota,
        tell: Callable[[str], None],
    ) -> None:
        """
        :param tell: takes a line for the log.
        """
        self._database = database
        self._figures = figures
        self._quota = quota
        self._tell = tell

    def settle(
        self,
        planned: OutgoingReport,
        described: report.AggregateReport,
        schema: report.Schema,
        delivery: ReportDelivery,
        file_octets: int,
        too_large: TooLarge,
        now: int,
    ) -> None:
        """Put the parts in the place of a delivery, or an error report.

        :param file_octets: of the compressed file of the report.
        """
        try:
            parts = self._parts(planned, described, schema, file_octets, too_large, now)
            host, further = parse_mailbox(delivery.address).domain.name, len(parts) - 1
            with self._database.reading() as connection:
                limited = self._quota.take(connection, host, delivery.organization, further, now)
            if limited:
                raise UndividedError(limited)
        except UndividedError as error:
            self._put_error_report(planned, delivery, too_large, str(error), now)
            return
        why = f"{too_large}: it is sent in {len(parts)} parts"
        divided = replace(delivery, state=ReportState.DIVIDED, why=why, tries=delivery.tries + 1, changed=now)
        with self._database.writing() as connection:
            outbox.add_parts(connection, parts)
            each = [_first_try(delivery, part.id, now) for part in parts]
            report_deliveries.replace_deliveries(connection, planned.id, (), each)
            report_deliveries.change_delivery(connection, divided)
        self._figures.tried[Tried.DIVIDED] += 1

    def _parts(
        self,
        planned: OutgoingReport,
        described: report.AggregateReport,
        schema: report.Schema,
        file_octets: int,
        too_large: TooLarge,
        now: int,
    ) -> list[OutgoingReport]:
        """The parts of a report for a limit, those that are known already or new ones.

        :raises UndividedError: it cannot be divided.
        """

        def identifier(number: int) -> str:
            return report.derived_id(planned.id, schema.value, too_large.most, number)

        with self._database.reading() as connection:
            first = outbox.report(connection, identifier(1))
            if first is not None:
                known = [outbox.report(connection, identifier(number)) for number in range(1, first.parts + 1)]
                return [replace(part, due=now, changed=now) for part in known if part is not None]
            if _depth(connection, planned) >= MAX_DIVISIONS:
                raise UndividedError("it was divided before")
            around = too_large.octets - report.mail_size(file_octets, 0) + _MARGIN
            room = report.file_room(too_large.most, around)
            if file_octets > room * MAX_PARTS:
                raise UndividedError(f"it would have more than {MAX_PARTS} parts")
            metadata = replace(described.metadata, report_id=identifier(1))
            divider = report.Divider(replace(described, metadata=metadata), schema, room)
            found: list[OutgoingReport] = []
            with closing(outbox.groups(connection, planned)) as groups:
                for group in groups:
                    try:
                        begins = divider.begins_part(aggregate_writing.record(group))
                    except report.RecordTooLargeError as error:
                        raise UndividedError(str(error)) from error
                    if begins:
                        if len(found) == MAX_PARTS:
                            raise UndividedError(f"it would have more than {MAX_PARTS} parts")
                        number = len(found) + 1
                        part = replace(
                            planned, id=identifier(number), form=ReportForm.PART, part_of=planned.id, part=number
                        )
                        found.append(replace(part, why="", due=now, changed=now, messages=0, octets=0, first=group.key))
                    found[-1] = replace(found[-1], last=group.key, messages=found[-1].messages + group.count)
        if len(found) < 2:
            raise UndividedError("it is a single part")
        return [replace(part, parts=len(found)) for part in found]

    def _put_error_report(
        self, planned: OutgoingReport, delivery: ReportDelivery, too_large: TooLarge, why: str, now: int
    ) -> None:
        """Report it to the destination and to the operator."""
        why = f"{too_large}; {why}"
        error_report = OutgoingReport(
            report.derived_id(planned.id, ReportForm.ERROR, delivery.address),
            planned.day,
            planned.domain,
            planned.published,
            ReportState.WAITING,
            "",
            now,
            now,
            now,
            0,
            too_large.octets,
            form=ReportForm.ERROR,
            part_of=planned.id,
        )
        not_sent = replace(delivery, state=ReportState.NOT_SENT, why=why, tries=delivery.tries + 1, changed=now)
        with self._database.writing() as connection:
            report_deliveries.change_delivery(connection, not_sent)
            if outbox.insert_report(connection, error_report):
                notice = replace(_first_try(delivery, error_report.id, now), max_octets=None)
                report_deliveries.replace_deliveries(connection, error_report.id, (), (notice,))
        self._figures.withheld[Withheld.SIZE] += 1
        self._tell(f"reports: {planned.domain} to {delivery.address}: not sent: {why}")


def _first_try(delivery: ReportDelivery, identifier: str, now: int) -> ReportDelivery:
    """The delivery of another report to the same address."""
    return replace(delivery, report=identifier, why="", tries=0, due=now, changed=now, token=new_token())


def _depth(connection: Connection, planned: OutgoingReport) -> int:
    """In how many reports it is, one within the other."""
    depth = 0
    above: OutgoingReport | None = planned
    while above is not None and above.part_of and depth < MAX_DIVISIONS:
        above = outbox.report(connection, above.part_of)
        depth += 1
    return depth
