# SPDX-License-Identifier: GPL-3.0-or-later
"""The reports that go out: which were planned, which were sent, and why others were not.

Everything about a report is in the database, so that several hosts, the command line and the page see the same, and a
sender that dies in the middle is followed by another that knows what is left.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Generator, Iterable, Iterator, Sequence
from enum import StrEnum
from typing import Any

from msgspec import Struct
from sqlalchemy import Connection as Connection  # exported: the rooms above pass it through
from sqlalchemy import and_, case, func, or_, select, tuple_, update
from sqlalchemy.dialects import postgresql, sqlite

from assay.store.schema import (
    counts,
    published,
    report_days,
    report_groups,
    reports,
)

DAY_SECONDS = 86_400
MAX_PARTS_READ = 1000  # in place of one report; our choice: ten destinations may want others
MAX_TEXT = 500  # characters of a reply or a reason that are kept
MAX_WHY = 320  # characters of a reason that is searched for: what an address on the page may have


class ReportState(StrEnum):
    """What became of a report, or of one of its deliveries."""

    WAITING = "waiting"
    HANDED_OVER = "handed over"  #: of a delivery: the relay has it and may take it, and has not answered yet
    SENT = "sent"  #: the relay has taken it; of a report: for at least one destination
    DIVIDED = "divided"  #: it is too large, and sent in parts, each of which is a report of its own
    NOT_SENT = "not sent"  #: by our own decision
    REFUSED = "refused"  #: the relay or the destination refused it for good
    GIVEN_UP = "given up"  #: it could not be sent in time
    BOUNCED = "bounced"  #: taken, and came back
    DRY_RUN = "dry run"  #: only the file was written


#: Those of a report; a delivery may be in any.
REPORT_STATES = tuple(state for state in ReportState if state is not ReportState.HANDED_OVER)


class ReportKind(StrEnum):
    """What a report is."""

    AGGREGATE = "aggregate"
    FAILURE = "failure"


class ReportForm(StrEnum):
    """What is sent of an aggregate report. What is not the whole report is a row of `reports` of its own."""

    WHOLE = "whole"
    PART = "part"  #: some of the records of one that is too large
    ERROR = "error report"  #: in place of one that is too large (RFC 7489, 7.2.2)


#: A row of `report_groups` on its day: `published` and `id`.
GroupKey = tuple[int, int]


class Candidate(Struct, frozen=True):
    """A DMARC record that applied to mail of a day.

    :ivar published: its id.
    :ivar messages: how many messages of which it is known what was done; `passing` of these passed DMARC, and
        `report_mail` were reports or bounces themselves.
    :ivar last_seen: Unix milliseconds.
    """

    published: int
    domain: str
    record: str
    method: str
    messages: int
    passing: int
    report_mail: int
    last_seen: int


class OutgoingReport(Struct, frozen=True):
    """A row of `reports`, with ids of `published` as they are there.

    :ivar part_of: the report in whose place it is sent; empty for a whole one.
    :ivar part: which of so many `parts` it is, from 1.
    :ivar first: of a part, its first record; `last` is the last.
    :ivar supplement: which one to the report about its day, from 1; 0 for this.
    """

    id: str
    day: int
    domain: str
    published: tuple[int, ...]
    state: ReportState
    why: str
    due: int
    planned: int
    changed: int
    messages: int
    octets: int
    kind: ReportKind = ReportKind.AGGREGATE
    form: ReportForm = ReportForm.WHOLE
    part_of: str = ""
    part: int = 0
    parts: int = 0
    first: GroupKey | None = None
    last: GroupKey | None = None
    supplement: int = 0


class Group(Struct, frozen=True):
    """A record of a report: a row of `report_groups`."""

    client: str
    author_domain: str
    null_sender: bool
    sender_domain: str
    disposition: str
    dkim_aligned: bool
    spf_aligned: bool
    reasons: tuple[tuple[str, str], ...]
    dkim: tuple[tuple[str, str, str, str, bool], ...]
    spf: tuple[str, str, str] | None
    count: int
    key: GroupKey


def candidates(connection: Connection, day: int, supplement: int = 0, *, until: bool = False) -> list[Candidate]:
    """The records that applied to mail of a day.

    :param supplement: of which report about it.
    :param until: with the mail of those before.
    """
    groups = report_groups.c
    wanted = groups.supplement <= supplement if until else groups.supplement == supplement
    passed = or_(groups.dkim_aligned, groups.spf_aligned)
    found = connection.execute(
        select(
            groups.published,
            published.c.domain,
            published.c.record,
            published.c.method,
            func.sum(groups.count),
            func.sum(case((passed, groups.count), else_=0)),
            func.sum(groups.report_mail),
            published.c.last_seen,
        )
        .join(published, published.c.id == groups.published)
        .where(groups.day == day, wanted, groups.client != "")  # RFC 9990, 3.1.1.8: a record has an address
        .group_by(groups.published, published.c.domain, published.c.record, published.c.method, published.c.last_seen)
    )
    return [Candidate(row[0], row[1], row[2], row[3], *map(int, row[4:])) for row in found]


def plan(
    connection: Connection,
    day: int,
    planned: Iterable[OutgoingReport],
    *,
    now: int,
    dry_run: bool,
    supplement: int = 0,
) -> None:
    """Note the reports of a day, or a supplement to them. Those that are there already stay as they are."""
    rows = [_values(report) for report in planned]
    for start in range(0, len(rows), 500):
        connection.execute(insert(connection, reports).on_conflict_do_nothing(), rows[start : start + 500])
    values = {"day": day, "planned": now, "dry_run": dry_run}
    noted = {"noted": supplement + 1}
    connection.execute(
        insert(connection, report_days).on_conflict_do_update(index_elements=["day"], set_=noted), values
    )


def insert_report(connection: Connection, planned: OutgoingReport) -> bool:
    """Note one report. Returns whether it is new."""
    return bool(connection.execute(insert(connection, reports).on_conflict_do_nothing(), _values(planned)).rowcount)


def add_parts(connection: Connection, parts: Sequence[OutgoingReport]) -> None:
    """Note the parts of a report. Those that are there stay as they are, and wait again, for a further destination."""
    for part in parts:
        again = {"state": ReportState.WAITING, "due": part.due, "changed": part.changed}
        connection.execute(
            insert(connection, reports).on_conflict_do_update(index_elements=["id"], set_=again), _values(part)
        )


def parts_of(connection: Connection, identifier: str) -> list[OutgoingReport]:
    """What is sent in place of a report: its parts, and error reports."""
    found = _reports(connection, reports.c.part_of == identifier, MAX_PARTS_READ)
    return sorted(found, key=lambda each: (each.form, each.parts, each.part, each.id))


def first_planned(connection: Connection, kind: ReportKind) -> int | None:
    """When the first report of a kind that is still known was planned; None if there is none."""
    found = connection.execute(select(func.min(reports.c.planned)).where(reports.c.kind == kind)).scalar()
    return None if found is None else int(found)


def _values(report: OutgoingReport) -> dict[str, Any]:
    values = {name: getattr(report, name) for name in report.__struct_fields__}
    del values["first"], values["last"]
    return {
        **values,
        "published": json.dumps(report.published),
        "why": report.why[:MAX_TEXT],
        "first_group": json.dumps(report.first) if report.first else "",
        "last_group": json.dumps(report.last) if report.last else "",
    }


def insert(connection: Connection, table: Any) -> Any:
    return (sqlite if connection.dialect.name == "sqlite" else postgresql).insert(table)


def groups(connection: Connection, of: OutgoingReport) -> Generator[Group]:
    """The records of a report, each as it is stored, in an order that is always the same.

    Close it before the connection if not all are read: the server's cursor stays open until then.
    """
    key = tuple_(report_groups.c.published, report_groups.c.id)
    conditions = [report_groups.c.day == of.day, report_groups.c.published.in_(of.published)]
    conditions.append(report_groups.c.client != "")  # RFC 9990, 3.1.1.8: a record has an address
    conditions.append(report_groups.c.supplement == of.supplement)
    if of.first is not None and of.last is not None:
        conditions.append(key.between(tuple_(*of.first), tuple_(*of.last)))
    asked = select(report_groups).where(*conditions).order_by(report_groups.c.published, report_groups.c.id)
    with connection.execution_options(stream_results=True, yield_per=1000).execute(asked) as found:
        for row in found.mappings():
            yield Group(
                row["client"],
                row["author_domain"],
                bool(row["null_sender"]),
                row["sender_domain"],
                row["disposition"],
                bool(row["dkim_aligned"]),
                bool(row["spf_aligned"]),
                tuple(map(tuple, json.loads(row["reasons"] or "[]"))),
                tuple(map(tuple, json.loads(row["dkim"] or "[]"))),
                tuple(json.loads(row["spf"])) if row["spf"] else None,
                row["count"],
                (row["published"], row["id"]),
            )


def record_of(connection: Connection, published_id: int) -> tuple[str, str, str]:
    """Domain, text and discovery method of a record; empty texts if it is gone."""
    row = connection.execute(
        select(published.c.domain, published.c.record, published.c.method).where(published.c.id == published_id)
    ).first()
    return (row[0], row[1], row[2]) if row is not None else ("", "", "")


def due_reports(
    connection: Connection, now: int, most: int, kind: ReportKind = ReportKind.AGGREGATE
) -> list[OutgoingReport]:
    """The reports of a kind that wait and are due, the oldest first."""
    where = and_(reports.c.state == ReportState.WAITING, reports.c.due <= now, reports.c.kind == kind)
    return list(_reports(connection, where, most, ascending=True))


def waiting_reports(connection: Connection) -> tuple[int, int]:
    """How many reports wait, and when the oldest of them was planned, in Unix seconds; 0 for none."""
    where = reports.c.state == ReportState.WAITING
    row = connection.execute(select(func.count(), func.min(reports.c.planned)).where(where)).one()
    return int(row[0]), int(row[1] or 0)


def find_reports(
    connection: Connection,
    *,
    domain: str = "",
    day: int | None = None,
    since: int | None = None,
    states: Collection[str] = (),
    kind: str = "",
    why: str | None = None,
    most: int = 1000,
    start: int = 0,
) -> list[OutgoingReport]:
    """Reports, the newest first. All conditions that are given hold.

    :param since: the first day.
    :param why: as noted, or at least the first `MAX_WHY` characters of it.
    :param start: how many to pass over.
    """
    conditions = []
    if domain:
        conditions.append(reports.c.domain == domain)
    if day is not None:
        conditions.append(reports.c.day == day)
    if since is not None:
        conditions.append(reports.c.day >= since)
    if why is not None:
        conditions.append(
            reports.c.why == why if len(why) < MAX_WHY else reports.c.why.startswith(why, autoescape=True)
        )
    if states:
        conditions.append(reports.c.state.in_(tuple(states)))
    if kind:
        conditions.append(reports.c.kind == kind)
    return list(_reports(connection, and_(True, *conditions), most, start=start))


def report(connection: Connection, identifier: str) -> OutgoingReport | None:
    """One report."""
    return next(_reports(connection, reports.c.id == identifier, 1), None)


def _reports(
    connection: Connection, where: Any, most: int, *, ascending: bool = False, start: int = 0
) -> Iterator[OutgoingReport]:
    order = (reports.c.due, reports.c.id) if ascending else (reports.c.day.desc(), reports.c.domain, reports.c.id)
    query = select(reports).where(where).order_by(*order).limit(most).offset(start)
    for row in connection.execute(query).mappings():
        values = dict(row)
        first, last = values.pop("first_group"), values.pop("last_group")
        yield OutgoingReport(
            **{
                **values,
                "published": tuple(json.loads(row["published"])),
                "state": ReportState(row["state"]),
                "kind": ReportKind(row["kind"]),
                "form": ReportForm(row["form"]),
                "first": _key(first),
                "last": _key(last),
            }
        )


def _key(text: str) -> GroupKey | None:
    if not text:
        return None
    published_id, identity = json.loads(text)
    return published_id, identity


def change_report(connection: Connection, identifier: str, now: int, **values: Any) -> None:
    """Change a report: its state, why, due or octets."""
    if "why" in values:
        values["why"] = values["why"][:MAX_TEXT]
    connection.execute(update(reports).where(reports.c.id == identifier).values(changed=now, **values))


def only_failed(connection: Connection, domain: str, days: range) -> bool:
    """Whether mail from a domain came in some days, and all of it failed DMARC."""
    word, number = counts.c.word, counts.c["count"]
    row = connection.execute(
        select(
            func.sum(case((word == "fail", number), else_=0)),
            func.sum(case((word == "fail", 0), else_=number)),
        ).where(counts.c.kind == "domain", counts.c.subject == domain, counts.c.day.in_(days))
    ).one()
    return bool(row[0]) and not row[1]
