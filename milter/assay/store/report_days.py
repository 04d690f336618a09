# SPDX-License-Identifier: GPL-3.0-or-later
"""Which report a message is in: that about its day, or a supplement to it.

Every message is in exactly one of them. A report is closed before it is planned, and a message that is written after
that is in the next one. With PostgreSQL, where hosts write at the same time, a lock keeps apart who closes and who
writes about days that are over; with SQLite, there is one writer at a time.
"""

from __future__ import annotations

from collections.abc import Collection

from msgspec import Struct
from sqlalchemy import Connection, select, text, update

from assay.store.outbox import DAY_SECONDS, insert
from assay.store.schema import report_days

#: For so long after a day its late messages are in supplements, our choice: as long as it is known which messages were
#: written before (`assay.store.retention.SEEN_DAYS`).
LATE_DAYS = 7
CLOCKS_SECONDS = 3600  # that the clocks of hosts may differ, beside the half hour before a day is planned
_CLOSING_LOCK = 0x61737361790004  # of PostgreSQL's advisory locks


class ReportDay(Struct, frozen=True):
    """A row of `report_days`."""

    day: int
    dry_run: bool
    closed: int
    noted: int
    late: bool


def known_days(connection: Connection) -> dict[int, ReportDay]:
    """The days that reports are planned for."""
    table = report_days.c
    found = connection.execute(select(table.day, table.dry_run, table.closed, table.noted, table.late))
    return {row.day: ReportDay(row.day, bool(row.dry_run), row.closed, row.noted, bool(row.late)) for row in found}


def close(connection: Connection, day: int, *, now: int, dry_run: bool) -> None:
    """Let nothing more be added to the report about a day, or to its next supplement.

    :param dry_run: whether the reports about this day are only written to files; it stays so for its supplements.
    """
    _lock(connection, "pg_advisory_xact_lock")
    values = {"day": day, "planned": now, "dry_run": dry_run, "closed": 1, "noted": 0, "late": False}
    again = {"closed": report_days.c.closed + 1, "late": False}
    connection.execute(
        insert(connection, report_days).on_conflict_do_update(index_elements=["day"], set_=again), values
    )


def supplements(connection: Connection, days: Collection[int], now: float) -> dict[int, int]:
    """The supplements that messages of some days belong to, for those days whose report is closed.

    Call it early in the transaction that writes the messages.

    :param now: Unix time in seconds.
    """
    over = sorted(day for day in days if day < (now + CLOCKS_SECONDS) // DAY_SECONDS)
    if not over:
        return {}
    _lock(connection, "pg_advisory_xact_lock_shared")
    table = report_days.c
    found = {
        row.day: row
        for row in connection.execute(select(table.day, table.closed, table.late).where(table.day.in_(over)))
    }
    for day in over:  # in this order, as others do
        if day in found and not found[day].late:
            connection.execute(update(report_days).where(table.day == day).values(late=True))
    return {day: row.closed for day, row in found.items()}


def _lock(connection: Connection, function: str) -> None:
    if connection.dialect.name != "sqlite":
        connection.execute(text(f"SELECT {function}({_CLOSING_LOCK})"))
