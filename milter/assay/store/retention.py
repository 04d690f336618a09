# SPDX-License-Identifier: GPL-3.0-or-later
"""Remove what is older than the operator wants, in small steps, so that a writer never waits long.

Every host that shares a PostgreSQL tries once an hour; the one that gets the lock does it for all.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from msgspec import Struct
from sqlalchemy import Column, ColumnElement, Connection, Table, delete, select, text, tuple_

from assay.store import received_counts, schema
from assay.store.database import Database
from assay.store.incidents import KEPT_SECONDS
from assay.store.tallies import DAY_MILLISECONDS

#: How long ids of written rows are known, our choice: a row that comes again does so within seconds of a restart, and
#: this is longer than a host is down over a weekend.
SEEN_DAYS = 7
OVER_SECONDS = 7 * 86_400  # since the end of a suppression, our choice: it says why nothing was sent until then
#: How long the groups of aggregate reports and the records are kept, our choice: reports are made a day later, and an
#: operator who had a fault may want to make those of last week again.
GROUP_DAYS = 14
STEP_ROWS = 500  # of one transaction, our choice: as many as a batch writes
STEP_REPORTS = 20  # that came in, our choice: one may have 50,000 rows, and most have some dozens
SECONDS = 30.0  # at a time, our choice: rows that come meanwhile wait in the spool
_PRUNING_LOCK = 0x61737361790002  # of PostgreSQL's advisory locks


class Retention(Struct, frozen=True):
    """How many days are kept. The day that is going on does not count.

    :ivar received_days: of reports that others sent.
    """

    messages_days: int
    counts_days: int
    received_days: int


def prune(
    database: Database,
    retention: Retention,
    now: float,
    *,
    seconds: float = SECONDS,
    clock: Callable[[], float] = time.monotonic,
) -> int:
    """Remove what is too old, for a time at most; the rest comes the next time.

    :param now: Unix time in seconds.
    :param seconds: after which it ends, so that the rows that come meanwhile do not wait.
    :returns: how many rows were removed.
    :raises UnavailableError: the database cannot be used now; what was removed before stays removed.
    """
    deadline = clock() + seconds
    removed = 0
    for step in _steps(retention, int(now * 1000)):
        while clock() < deadline:
            done, found = _run(database, step)
            removed += found
            if done:
                break
    return removed


class _Step(Struct, frozen=True):
    """What is removed together: rows of a table that a condition chooses, and the rows of other tables that are theirs.

    :ivar order: which come first; an index leads to them.
    :ivar owned: columns of other tables that have the id of a row.
    :ivar take_back: takes back what was added up of rows, by their ids, while they are there.
    :ivar most: how many rows in one transaction; 0 for `STEP_ROWS`.
    """

    table: Table
    condition: ColumnElement[bool]
    order: tuple[Column[Any], ...]
    owned: tuple[Column[Any], ...] = ()
    take_back: Callable[[Connection, Sequence[bytes]], None] | None = None
    most: int = 0


def _steps(retention: Retention, now: int) -> tuple[_Step, ...]:
    """:param now: Unix time in milliseconds."""
    today = now // DAY_MILLISECONDS
    message_day, count_day = today - retention.messages_days, today - retention.counts_days
    # Single messages and groups refer to records.
    record_day = min(message_day, today - GROUP_DAYS) - 1
    seen_day = today - SEEN_DAYS
    received_day = today - retention.received_days
    return (
        _Step(
            schema.messages,
            schema.messages.c.time < message_day * DAY_MILLISECONDS,
            (schema.messages.c.time,),
            (schema.findings.c.message, schema.addresses.c.message, schema.answers.c.message),
        ),
        _by_day(schema.counts, count_day),
        _by_day(schema.report_groups, today - GROUP_DAYS),
        _by_day(schema.report_days, count_day),
        _Step(
            schema.reports,
            schema.reports.c.day < count_day,
            (schema.reports.c.day,),
            (schema.deliveries.c.report,),
        ),
        _Step(
            schema.suppressions,
            schema.suppressions.c.until.between(1, now // 1000 - OVER_SECONDS),  # 0 is for ever
            (schema.suppressions.c.subject,),
        ),
        # Whether or not anybody sends failure reports, headers go after a day.
        _Step(schema.incidents, schema.incidents.c.time < now - KEPT_SECONDS * 1000, (schema.incidents.c.report,)),
        _Step(
            schema.published,
            schema.published.c.last_seen < record_day * DAY_MILLISECONDS,
            (schema.published.c.id,),
        ),
        _Step(
            schema.received_reports,
            schema.received_reports.c.received < received_day * DAY_MILLISECONDS,
            (schema.received_reports.c.received,),
            (schema.received_rows.c.report,),
            received_counts.take_back,
            STEP_REPORTS,
        ),
        _Step(
            schema.unreadable_reports,
            schema.unreadable_reports.c.received < received_day * DAY_MILLISECONDS,
            (schema.unreadable_reports.c.received,),
        ),
        # An id begins with the time at which its row was made, and that is before it was written: so the search ends
        # where the first younger row is, without an index of the days.
        _Step(
            schema.seen,
            (schema.seen.c.id < (seen_day * DAY_MILLISECONDS).to_bytes(6, "big")) & (schema.seen.c.day < seen_day),
            (schema.seen.c.id,),
        ),
    )


def _by_day(table: Table, day: int) -> _Step:
    return _Step(table, table.c.day < day, tuple(table.primary_key.columns))


def _run(database: Database, step: _Step) -> tuple[bool, int]:
    """Remove the rows of one transaction. Returns whether there are no more, or another host does it; and how many."""
    keys = tuple(step.table.primary_key.columns)
    most = step.most or STEP_ROWS
    with database.writing() as connection:
        if not database.is_sqlite:
            got = connection.execute(text(f"SELECT pg_try_advisory_xact_lock({_PRUNING_LOCK})")).scalar_one()
            if not got:
                return True, 0
        chosen = select(*keys).where(step.condition).order_by(*step.order).limit(most)
        found = [tuple(row) for row in connection.execute(chosen)]
        if found:
            first = [key[0] for key in found]
            if step.take_back is not None:
                step.take_back(connection, first)
            for column in step.owned:
                connection.execute(delete(column.table).where(column.in_(first)))
            connection.execute(
                delete(step.table).where(keys[0].in_(first) if len(keys) == 1 else tuple_(*keys).in_(found))
            )
    return len(found) < most, len(found)
