# SPDX-License-Identifier: GPL-3.0-or-later
"""A report of ours that came back: its destination gets no more for a while."""

from __future__ import annotations

from msgspec import Struct
from msgspec.structs import replace
from sqlalchemy import Connection

from assay.store import outbox, report_deliveries, suppressions
from assay.store.outbox import DAY_SECONDS, ReportState
from assay.store.suppressions import Suppression


class StoppedDestination(Struct, frozen=True):
    """Who gets no more reports.

    :ivar until: Unix seconds; 0 for ever, if the operator has said so.
    """

    address: str
    until: int


def note_bounce(connection: Connection, token: str, cool_down_days: int, *, now: int) -> StoppedDestination | None:
    """Note that a report came back.

    :param token: in the bounce address of the report.
    :param cool_down_days: how long its destination gets none.
    :returns: the destination; None if no report has this token.
    """
    found = report_deliveries.delivery_of(connection, token)
    if found is None:
        return None
    report_deliveries.change_delivery(connection, replace(found, state=ReportState.BOUNCED, changed=now))
    planned = outbox.report(connection, found.report)
    states = {each.state for each in report_deliveries.deliveries_of(connection, found.report)}
    if planned is not None and planned.state is ReportState.SENT and ReportState.SENT not in states:
        why = f"{found.address}: it came back"
        outbox.change_report(connection, planned.id, now, state=ReportState.BOUNCED, why=why)
    until = now + cool_down_days * DAY_SECONDS
    added = Suppression(found.address.lower(), until, "a report came back", now)
    holds = suppressions.cool_down(connection, added)
    return StoppedDestination(holds.subject, holds.until)
