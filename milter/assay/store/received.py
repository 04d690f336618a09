# SPDX-License-Identifier: GPL-3.0-or-later
"""Reports that came in: each is kept once (`assay.store.reporting` shows them beside what we saw ourselves).

Anyone can send a report with the names of another one, even before it. So a copy that passed DMARC, as RFC 9990, 3.5.2
requires, is known only if it came from that domain before, and replaces what is kept in the name of that domain without
proof.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from enum import StrEnum
from typing import Any

import msgspec
from msgspec import Struct
from sqlalchemy import ColumnElement, Connection, Select, and_, delete, or_, select

from assay.protocol.report.received import (
    AggregateRow,
    Arrival,
    Received,
    ReceivedAggregate,
    ReceivedFailure,
    ReceivedTls,
    ReportSender,
    Unreadable,
    digest,
)
from assay.store import received_counts
from assay.store.schema import received_reports, received_rows, unreadable_reports
from assay.store.statements import insert_into

MAX_UNREADABLE = 1000  # that are kept, our choice: the newest
MAX_CONTENT_OCTETS = 100_000  # of what is kept of each, our choice: most reports have less; 100 MB in all
MAX_REPORTS = 1000  # in a list, our choice: the newest

DAY_SECONDS = 86_400
_ROWS_AT_A_TIME = 2000


class ReportOutcome(StrEnum):
    """What became of a report that came in. One that was kept before is known.

    `REPLACES`: it is authenticated, and was kept in place of a copy that was not.
    """

    NEW = "new"
    REPLACES = "replaces"
    KNOWN = "known"
    UNREADABLE = "unreadable"


class ReportSummary(Struct, frozen=True):
    """A report in a list.

    :ivar kind: aggregate, failure or tls.
    :ivar received: Unix seconds, as `begin` and `end` are.
    :ivar good: messages that passed DMARC, or sessions with TLS; `bad` those that did not.
    """

    id: bytes
    kind: str
    received: int
    sender: str
    sender_dmarc: str
    organization: str
    report_id: str
    domain: str
    begin: int
    end: int
    good: int
    bad: int


class UnreadableReport(Struct, frozen=True):
    """What came in and could not be used.

    :ivar received: Unix seconds.
    :ivar octets: how large it is; its `content` is empty if that is too large to keep.
    """

    id: bytes
    received: int
    sender: str
    sender_dmarc: str
    reason: str
    octets: int


def keep_arrival(connection: Connection, arrival: Arrival, content: bytes, *, now: float) -> ReportOutcome:
    """Keep a report, or what cannot be used as such.

    :param content: the mail or file in which it came.
    :param now: Unix time.
    """
    if isinstance(arrival.report, Unreadable):
        keep_unreadable(connection, arrival.sender, arrival.report.reason, content, now=now)
        return ReportOutcome.UNREADABLE
    return keep(connection, arrival.sender, arrival.report, now=now)


def keep(connection: Connection, sender: ReportSender, report: Received, *, now: float) -> ReportOutcome:
    """Keep a report.

    :param now: Unix time.
    """
    received_counts.lock(connection)
    copies = _copies(connection, sender, report)
    if copies and not sender.is_authenticated:
        return ReportOutcome.KNOWN  # of several that nobody has proven, the first stays
    if any(copy.is_authenticated for copy in copies.values()):
        return ReportOutcome.KNOWN
    # What names another author domain stays: otherwise anyone could remove it.
    replaced = [
        identity
        for identity, copy in copies.items()
        if not copy.is_authenticated and copy.author in ("", sender.author)
    ]
    if replaced:
        _remove(connection, replaced)
    _add(connection, sender, report, now)
    return ReportOutcome.REPLACES if replaced else ReportOutcome.NEW


def _copies(connection: Connection, sender: ReportSender, report: Received) -> dict[bytes, ReportSender]:
    """Who sent the copies that are kept and may be the same as that of a sender, by their ids."""
    table = received_reports.c
    if sender.author:
        other: ColumnElement[bool] = table.id == report.id_from(ReportSender(sender.author, "pass"))
    else:  # a file may be a copy from anybody
        other = and_(
            table.domain == report.domain,
            table.begin == report.begin * 1000,
            table.report_id.in_((report.report_id, "")),  # `forget` may have emptied it; the id tells
        )
    query = select(table.id, table.sender, table.sender_dmarc).where(or_(table.id == report.id, other))
    found = connection.execute(query)
    copies = {bytes(identity): ReportSender(author, dmarc) for identity, author, dmarc in found}
    return {identity: copy for identity, copy in copies.items() if identity in (report.id, report.id_from(copy))}


def _remove(connection: Connection, identities: Sequence[bytes]) -> None:
    received_counts.take_back(connection, identities)
    for column in (received_rows.c.report, received_reports.c.id):
        connection.execute(delete(column.table).where(column.in_(identities)))


def _add(connection: Connection, sender: ReportSender, report: Received, now: float) -> None:
    identity = report.id_from(sender)
    good, bad = sums(report)
    connection.execute(
        received_reports.insert(),
        {
            "id": identity,
            "kind": str(report.__struct_config__.tag),
            "received": int(now * 1000),
            "sender": sender.author,
            "sender_dmarc": sender.dmarc,
            "organization": report.organization,
            "contact": report.contact,
            "report_id": report.report_id,
            "domain": report.domain,
            "begin": report.begin * 1000,
            "end": report.end * 1000,
            "good": good,
            "bad": bad,
            "report": _as_json(report),
        },
    )
    if isinstance(report, ReceivedAggregate):
        for start in range(0, len(report.rows), _ROWS_AT_A_TIME):
            connection.execute(received_rows.insert(), list(_rows(report, identity, start)))
    received_counts.add(connection, report, good, bad)


def keep_unreadable(connection: Connection, sender: ReportSender, reason: str, content: bytes, *, now: float) -> None:
    """Keep what cannot be used, so that nothing is lost; the same content once. The oldest beyond a bound go."""
    received_counts.lock(connection)  # of the other reports in the mail
    connection.execute(
        insert_into(connection, unreadable_reports).on_conflict_do_nothing(),
        {
            "id": digest(content),
            "received": int(now * 1000),
            "sender": sender.author,
            "sender_dmarc": sender.dmarc,
            "reason": reason,
            "octets": len(content),
            "content": content if len(content) <= MAX_CONTENT_OCTETS else b"",
        },
    )
    arrived = unreadable_reports.c.received
    oldest = select(arrived).order_by(arrived.desc()).offset(MAX_UNREADABLE - 1).limit(1).scalar_subquery()
    connection.execute(delete(unreadable_reports).where(arrived < oldest))


def summaries(
    connection: Connection,
    first: int,
    last: int,
    domains: Collection[str] = (),
    kind: str = "",
    client: str = "",
    author: str = "",
    *,
    start: int = 0,
    most: int = MAX_REPORTS,
) -> list[ReportSummary]:
    """The reports about periods that begin on the days from `first` to `last`, the newest first.

    :param domains: only about these; all if empty.
    :param kind: aggregate, failure or tls; all if empty.
    :param client: only aggregate reports with rows of this address, the newest `MAX_REPORTS`; all if empty.
    :param author: only aggregate reports with rows of this author domain, and of the client; all if empty.
    :param start: how many to pass over; there are none beyond `MAX_REPORTS`.
    """
    table, rows = received_reports.c, received_rows.c
    query = (
        select_summaries()
        .where(table.begin.between(*_milliseconds(first, last)))
        .order_by(table.begin.desc(), table.received.desc(), table.id.desc())
        .limit(max(0, min(most, MAX_REPORTS - start)))
        .offset(start)
    )
    if kind:
        query = query.where(table.kind == kind)
    if client:
        of_client = select(rows.report).where(rows.source == client, rows.day.between(first, last))
        if author:
            of_client = of_client.where(rows.author_domain == author)
        if domains:
            of_client = of_client.where(rows.domain.in_(domains))
        newest = of_client.group_by(rows.day, rows.report).order_by(rows.day.desc(), rows.report.desc())
        query = query.where(table.id.in_(newest.limit(MAX_REPORTS)))
    else:
        if author:  # with a column named, SQLite finds it in an index alone
            of_author = select(rows.report).where(rows.author_domain == author, rows.report == table.id)
            query = query.where(table.kind == "aggregate", of_author.exists())
        if domains:
            query = query.where(table.domain.in_(domains))
    return [ReportSummary(*tuple(row)) for row in connection.execute(query)]


def select_summaries() -> Select[Any]:
    """The columns of `ReportSummary`."""
    table = received_reports.c
    return select(
        table.id, table.kind, table.received // 1000, table.sender, table.sender_dmarc, table.organization,
        table.report_id, table.domain, table.begin // 1000, table.end // 1000, table.good, table.bad,
    )  # fmt: skip


def report(connection: Connection, identity: bytes) -> Received | None:
    """A report as it came in; None if there is none with this id."""
    text = connection.execute(select(received_reports.c.report).where(received_reports.c.id == identity)).scalar()
    if text is None:
        return None
    found: Any = json.loads(text)
    if found["type"] == "aggregate":
        columns = [received_rows.c[name] for name in AggregateRow.__struct_fields__]
        rows = select(*columns).where(received_rows.c.report == identity).order_by(received_rows.c.number)
        found["rows"] = [row_values(row) for row in connection.execute(rows)]
    return msgspec.convert(found, ReceivedAggregate | ReceivedFailure | ReceivedTls)


def unreadable(connection: Connection) -> list[UnreadableReport]:
    """What could not be used, the newest first."""
    table = unreadable_reports.c
    query = select(
        table.id, table.received // 1000, table.sender, table.sender_dmarc, table.reason, table.octets
    ).order_by(table.received.desc(), table.id)
    return [UnreadableReport(*tuple(row)) for row in connection.execute(query)]


def unreadable_content(connection: Connection, identity: bytes) -> bytes:
    """What came in; empty if it is not kept."""
    table = unreadable_reports.c
    return bytes(connection.execute(select(table.content).where(table.id == identity)).scalar() or b"")


def sums(report: Received) -> tuple[int, int]:
    """Messages that passed DMARC, or sessions with TLS; and those that did not."""
    match report:
        case ReceivedAggregate():
            good = sum(row.count for row in report.rows if row.dkim_aligned or row.spf_aligned)
            return good, report.messages - good
        case ReceivedTls():
            return sum(policy.successful for policy in report.policies), sum(
                policy.failed for policy in report.policies
            )
        case _:
            return 0, report.incidents


def _as_json(report: Received) -> str:
    values = msgspec.to_builtins(report)
    values.pop("rows", None)
    return json.dumps(values, ensure_ascii=False)


def _rows(report: ReceivedAggregate, identity: bytes, start: int) -> Iterator[dict[str, Any]]:
    for number, row in enumerate(report.rows[start : start + _ROWS_AT_A_TIME], start):
        values = msgspec.to_builtins(row)
        yield {
            **values,
            **{name: json.dumps(values[name], ensure_ascii=False) for name in _LISTS},
            "report": identity,
            "number": number,
            "day": report.begin // DAY_SECONDS,
            "domain": report.domain,
        }


_LISTS = ("reasons", "dkim", "spf")


def row_values(row: Sequence[Any]) -> dict[str, Any]:
    """What is in the columns of `AggregateRow`, as values of its fields."""
    values = dict(zip(AggregateRow.__struct_fields__, row, strict=True))
    return values | {name: json.loads(values[name]) for name in _LISTS}


def _milliseconds(first: int, last: int) -> tuple[int, int]:
    return first * DAY_SECONDS * 1000, (last + 1) * DAY_SECONDS * 1000 - 1
