# SPDX-License-Identifier: GPL-3.0-or-later
"""A report of ours that came back: its destination gets no more for a while."""

from __future__ import annotations

from msgspec import Struct
from msgspec.structs import replace
from sqlalchemy import Connection

from assay.store import outbox, report_deliveries, suppressions
from assay.store.suppressions import Suppression

_DAY_SECONDS = 86_400


class StoppedDestination(Struct, frozen=True):
    """Who gets no more reports.

    :ivar until: Unix seconds.
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
    report_deliveries.change_delivery(connection, replace(found, state=outbox.ReportState.BOUNCED, changed=now))
    outbox.change_report(connection, found.report, now, why=f"{found.address}: it came back")
    stopped = StoppedDestination(found.address.lower(), now + cool_down_days * _DAY_SECONDS)
    suppressed = Suppression(stopped.address, stopped.until, "a report came back", now)
    suppressions.suppress(connection, suppressed)
    return stopped
