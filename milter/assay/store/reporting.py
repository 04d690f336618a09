# SPDX-License-Identifier: GPL-3.0-or-later
"""What pages show about reports: sums of those that went out and came in, and what others saw beside what we saw.

Nothing here reads a whole report of others, which may have 50,000 records. What they say is added up by day
(`assay.store.received_counts`).
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Sequence
from typing import Any

import msgspec
from msgspec import Struct
from msgspec.structs import astuple
from sqlalchemy import Connection, Select, case, func, or_, select

from assay.protocol.report.received import AggregateRow, Received, ReceivedAggregate, ReceivedFailure, ReceivedTls
from assay.store.outbox import OutgoingReport, ReportForm, ReportState
from assay.store.overview import DaySum
from assay.store.received import ReportSummary, row_values, select_summaries
from assay.store.schema import (
    published,
    received_counts,
    received_days,
    received_reports,
    received_rows,
    report_groups,
    reports,
)

MAX_DOMAINS = 1000  # that others report about, our choice: without domains of ours, they may be any
MAX_RECORDS = 10_000  # of DMARC, our choice: the newest of these domains
MAX_GROUPS = 1000  # of one report, our choice: the messages of a longer one are found soon among all of its day
MAX_REASONS = 30  # our choice: whys have numbers and addresses in them, so there may be one for each report


class NotSentSum(Struct, frozen=True):
    """How many reports ended in a state for a reason."""

    state: str
    why: str
    count: int
    messages: int


class SeenBeside(Struct, frozen=True):
    """What was sent in the name of a domain, as others and as we saw it.

    :ivar domain: the author domain.
    :ivar source: the address of the client; empty if it is of all clients.
    :ivar passing: messages that passed DMARC at those who report; `failing` those that did not.
    :ivar own_passing: the same of messages that came to us.
    """

    domain: str
    source: str
    passing: int = 0
    failing: int = 0
    own_passing: int = 0
    own_failing: int = 0


class FoundReport(Struct, frozen=True):
    """A report that came in, and some of its rows."""

    summary: ReportSummary
    report: Received
    rows: tuple[AggregateRow, ...]


def sent_daily(connection: Connection, days: Sequence[int]) -> list[DaySum]:
    """The reports about each day by state, those that were divided as their parts."""
    count = func.count()
    query = select(reports.c.day, reports.c.state, count).where(
        _between(reports.c.day, days), reports.c.state != ReportState.DIVIDED, reports.c.form != ReportForm.ERROR
    )
    found = connection.execute(query.group_by(reports.c.day, reports.c.state))
    return [DaySum(day, state, int(number)) for day, state, number in found]


def reasons(connection: Connection, days: Sequence[int], states: Collection[str]) -> list[NotSentSum]:
    """Why reports about these days are in these states: the most frequent reasons."""
    count = func.count()
    query = (
        select(reports.c.state, reports.c.why, count, func.sum(reports.c.messages))
        .where(_between(reports.c.day, days), reports.c.state.in_(tuple(states)))
        .group_by(reports.c.state, reports.c.why)
        .order_by(count.desc(), reports.c.state, reports.c.why)
        .limit(MAX_REASONS)
    )
    return [NotSentSum(state, why, int(number), int(total)) for state, why, number, total in connection.execute(query)]


def author_domain(connection: Connection, report: OutgoingReport) -> str:
    """The author domain of all messages of an aggregate report, by which an index leads to them.

    :returns: empty if there are several, if the report has more records than `MAX_GROUPS`, or if they are removed.
    """
    table = report_groups.c
    query = select(table.author_domain).where(table.day == report.day, table.published.in_(report.published))
    found = connection.execute(query.limit(MAX_GROUPS + 1)).scalars().all()
    names = set(found)
    return names.pop() if len(found) <= MAX_GROUPS and len(names) == 1 else ""


def received_daily(connection: Connection, days: Sequence[int], kind: str) -> list[DaySum]:
    """What reports of a kind say about each day, on which their period begins: the words are pass and fail."""
    table = received_days.c
    query = select(table.day, table.good, table.bad).where(table.day.in_(tuple(days)), table.kind == kind)
    found = []
    for day, good, bad in connection.execute(query.order_by(table.day)):
        found += [DaySum(day, "pass", good), DaySum(day, "fail", bad)]
    return found


def beside(
    connection: Connection, days: Sequence[int], domains: Collection[str], *, by_source: bool, most: int = 200
) -> list[SeenBeside]:
    """What others and we saw, by author domain or by author domain and client: those with the most messages.

    :param domains: with the policies; if empty, those that most messages were reported of, at most `MAX_DOMAINS`.
    :param most: how many of what others saw, and as many of what we saw.
    :returns: the last without a name: the sum of the rare ones that others saw, if there are any.
    """
    theirs, ours = received_counts.c, report_groups.c
    messages = theirs.passed + theirs.failed
    reported = select(theirs.domain).where(theirs.day.in_(tuple(days))).group_by(theirs.domain)
    most_reported = reported.order_by(func.sum(messages).desc(), theirs.domain).limit(MAX_DOMAINS)
    wanted = tuple(domains) or tuple(connection.execute(most_reported).scalars())
    of_wanted = select(published.c.id).where(published.c.domain.in_(wanted))
    newest = of_wanted.order_by(published.c.last_seen.desc(), published.c.id).limit(MAX_RECORDS)
    policies = tuple(connection.execute(newest).scalars())
    of_others = (theirs.author_domain, theirs.source)[: 1 + by_source]
    of_ours = (ours.author_domain, ours.client)[: 1 + by_source]
    chosen = (theirs.day.in_(tuple(days)), theirs.domain.in_(wanted))
    passed = or_(ours.dkim_aligned, ours.spf_aligned)
    queries = (
        _sums(of_others, theirs.passed, theirs.failed).where(*chosen, of_others[-1] != ""),
        _sums(of_ours, case((passed, ours.count), else_=0), case((passed, 0), else_=ours.count)).where(
            ours.day.in_(tuple(days)), ours.published.in_(policies)
        ),
    )
    found = [_figures(connection.execute(query.limit(most))) for query in queries]
    keys = tuple(dict.fromkeys((*found[0], *found[1])))
    # Who is among the first of one and not of the other has figures there all the same.
    for query, known, column in zip(queries, found, (of_others[-1], of_ours[-1]), strict=True):
        missing = {key[-1] for key in keys if key not in known}
        if missing:
            known |= _figures(connection.execute(query.where(column.in_(missing))))
    both = [
        SeenBeside(key[0], key[1] if by_source else "", *found[0].get(key, (0, 0)), *found[1].get(key, (0, 0)))
        for key in keys
    ]
    both.sort(key=lambda seen: (-sum(astuple(seen)[2:]), seen.domain, seen.source))
    rare = select(func.sum(theirs.passed), func.sum(theirs.failed)).where(*chosen, of_others[-1] == "")
    figures = [int(figure or 0) for figure in connection.execute(rare).one()]
    return [*both, SeenBeside("", "", *figures)] if any(figures) else both


def received_report(connection: Connection, identity: bytes, *, start: int = 0, most: int = 200) -> FoundReport | None:
    """A report that came in, with some of its rows.

    :param start: how many rows to pass over.
    """
    row = connection.execute(select_summaries().where(received_reports.c.id == identity)).first()
    if row is None:
        return None
    text = connection.execute(select(received_reports.c.report).where(received_reports.c.id == identity)).scalar_one()
    columns = [received_rows.c[name] for name in AggregateRow.__struct_fields__]
    query = select(*columns).where(received_rows.c.report == identity, received_rows.c.number >= start)
    rows = [row_values(values) for values in connection.execute(query.order_by(received_rows.c.number).limit(most))]
    return FoundReport(
        ReportSummary(*tuple(row)),
        msgspec.convert({"rows": [], **json.loads(text)}, ReceivedAggregate | ReceivedFailure | ReceivedTls),
        msgspec.convert(rows, tuple[AggregateRow, ...]),
    )


def _sums(key: Sequence[Any], passed: Any, failed: Any) -> Select[Any]:
    sums = (func.sum(passed), func.sum(failed))
    query: Select[Any] = select(*key, *sums)
    return query.group_by(*key).order_by((sums[0] + sums[1]).desc(), *key)


def _figures(rows: Iterable[Any]) -> dict[tuple[str, ...], tuple[int, int]]:
    return {tuple(row[:-2]): (int(row[-2]), int(row[-1])) for row in rows}


def _between(column: Any, days: Sequence[int]) -> Any:
    return column.between(days[0], days[-1])
