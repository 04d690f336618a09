# SPDX-License-Identifier: GPL-3.0-or-later
"""Where each report goes, and what became of it there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from msgspec import Struct
from sqlalchemy import Connection, delete, select, update

from assay.store.outbox import DAY_SECONDS, MAX_TEXT, ReportKind, ReportState, insert
from assay.store.schema import deliveries, reports


class ReportDelivery(Struct, frozen=True):
    """A row of `deliveries`.

    One without an organization is not to an address, but of a URI of the record: it waits for what the DNS says about
    its host, or it is not sent to.

    :ivar max_octets: of a message, that the record wants there; None without such a limit.
    """

    report: str
    address: str
    organization: str
    state: ReportState
    why: str
    tries: int
    due: int
    changed: int
    token: str
    max_octets: int | None = None

    @property
    def is_unchecked(self) -> bool:
        """Whether it is not known yet where it goes."""
        return self.state is ReportState.WAITING and not self.organization


def deliveries_of(connection: Connection, identifier: str) -> list[ReportDelivery]:
    """Where a report goes."""
    found = connection.execute(
        select(deliveries).where(deliveries.c.report == identifier).order_by(deliveries.c.address)
    )
    return [_delivery(row) for row in found.mappings()]


def _delivery_values(delivery: ReportDelivery) -> dict[str, Any]:
    values = {name: getattr(delivery, name) for name in delivery.__struct_fields__}
    return {**values, "why": delivery.why[:MAX_TEXT]}


def _delivery(row: Any) -> ReportDelivery:
    return ReportDelivery(**{**row, "state": ReportState(row["state"])})


def replace_deliveries(
    connection: Connection, identifier: str, gone: Iterable[str], added: Iterable[ReportDelivery]
) -> None:
    """Note where a report goes.

    :param gone: the URIs about which more is known now.
    """
    for address in gone:
        connection.execute(delete(deliveries).where(deliveries.c.report == identifier, deliveries.c.address == address))
    rows = [_delivery_values(each) for each in added]
    if rows:
        connection.execute(insert(connection, deliveries).on_conflict_do_nothing(), rows)


def change_delivery(connection: Connection, delivery: ReportDelivery) -> None:
    """Write a delivery as it is now."""
    connection.execute(
        update(deliveries)
        .where(deliveries.c.report == delivery.report, deliveries.c.address == delivery.address)
        .values(_delivery_values(delivery))
    )


def exchange_delivery(connection: Connection, before: ReportDelivery, after: ReportDelivery) -> bool:
    """Write a delivery, unless it is no longer as it was: another process has made or given up this try.

    :returns: whether it was written.
    """
    changed = connection.execute(
        update(deliveries)
        .where(
            deliveries.c.report == before.report,
            deliveries.c.address == before.address,
            deliveries.c.state == before.state,
            deliveries.c.tries == before.tries,
        )
        .values(_delivery_values(after))
    )
    return bool(changed.rowcount)


def handed_over(connection: Connection, of: Sequence[str]) -> list[ReportDelivery]:
    """The deliveries of some reports that a relay may have taken.

    :param of: ids of reports.
    """
    found = connection.execute(
        select(deliveries)
        .where(deliveries.c.report.in_(of), deliveries.c.state == ReportState.HANDED_OVER)
        .order_by(deliveries.c.report, deliveries.c.address)
    )
    return [_delivery(row) for row in found.mappings()]


def delivery_of(connection: Connection, token: str) -> ReportDelivery | None:
    """The delivery that a bounce is about."""
    row = connection.execute(select(deliveries).where(deliveries.c.token == token)).mappings().first()
    return None if row is None else _delivery(row)


#: After the day that it is about, no report is sent any more; what comes back later was sent before.
_LONGEST_DAYS = 3
_TAKEN = (ReportState.SENT, ReportState.HANDED_OVER, ReportState.WAITING, ReportState.BOUNCED)


def taken_by_organization(
    connection: Connection,
    since: int,
    kind: ReportKind = ReportKind.AGGREGATE,
    states: Sequence[ReportState] = _TAKEN,
) -> Counter[str]:
    """How many deliveries of a kind were sent, or wait for another try, since a time, for each organizational domain.

    :param states: other states that count.
    """
    of_kind = select(reports.c.id).where(reports.c.day >= since // DAY_SECONDS - _LONGEST_DAYS, reports.c.kind == kind)
    found = connection.execute(
        select(deliveries.c.organization).where(
            deliveries.c.report.in_(of_kind),
            deliveries.c.changed >= since,
            deliveries.c.state.in_(states),
            deliveries.c.organization != "",
        )
    )
    return Counter(found.scalars())  # grouped by the database, it would read all deliveries that there ever were
