# SPDX-License-Identifier: GPL-3.0-or-later
"""What the reports that came in say, added up by day: pages read these sums, and not each report.

A report is added in the transaction that keeps it, and taken back in the one that removes it, so the sums of a day, and
of a day and domain, are always those of the reports that are there. Strangers choose the names in a report. A day and
domain with too many keeps those with most messages, and the others are counted together. A name that is kept has at
most what the reports say of it: the rest was counted with the others when it was rare.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from sqlalchemy import Connection, bindparam, case, delete, func, or_, select, text

from assay.protocol.report.received import Received, ReceivedAggregate
from assay.store.schema import received_counts, received_days, received_reports, received_rows
from assay.store.statements import insert_into
from assay.store.tallies import DAY_MILLISECONDS

# All our choice. A page reads 14 days of each domain of ours.
MAX_NAMES = 500  # pairs of author domain and client of a day and domain
KEPT_NAMES = 200  # of these, when there are more
KEPT_AUTHORS = 50  # author domains, when there are more

_LOCK = 0x61737361790005  # of PostgreSQL's advisory locks

#: An author domain and a client.
Name = tuple[str, str]
#: Messages that passed DMARC, and those that failed.
Figures = tuple[int, int]
_NONE: Figures = (0, 0)


def lock(connection: Connection) -> None:
    """Wait until no other transaction changes the sums.

    It must be the first lock that a transaction takes when it keeps or removes reports. Otherwise two hosts could wait
    for each other for ever.
    """
    if connection.dialect.name != "sqlite":  # which has one writer
        connection.execute(text(f"SELECT pg_advisory_xact_lock({_LOCK})"))


def add(connection: Connection, report: Received, good: int, bad: int) -> None:
    """Add a report that is kept. Call `lock` before.

    :param good: as in `received_reports`; `bad` likewise.
    """
    day = report.begin * 1000 // DAY_MILLISECONDS
    _change_day(connection, day, str(report.__struct_config__.tag), good, bad)
    if not isinstance(report, ReceivedAggregate):
        return
    before = _figures(connection, day, report.domain)
    after = dict(before)
    for row in report.rows:
        name = (row.author_domain, row.source)
        figures = (row.count, 0) if row.dkim_aligned or row.spf_aligned else (0, row.count)
        after[name] = _plus(after.get(name, _NONE), figures)
    _replace(connection, day, report.domain, before, folded(after))


def take_back(connection: Connection, identities: Sequence[bytes]) -> None:
    """Take back what `add` has added, of reports that are about to be removed.

    :param identities: of reports that are still there with all their rows. Those that another host has removed since
        they were found are passed over.
    """
    lock(connection)
    for identity in identities:  # one by one: each may have very many rows
        _take_back(connection, identity)


def _take_back(connection: Connection, identity: bytes) -> None:
    reports, rows = received_reports.c, received_rows.c
    query = select(reports.kind, reports.domain, reports.begin, reports.good, reports.bad)
    report = connection.execute(query.where(reports.id == identity)).first()
    if report is None:
        return
    kind, domain, begin, good, bad = report
    day = begin // DAY_MILLISECONDS
    _change_day(connection, day, kind, -good, -bad)
    if kind != "aggregate":
        return
    passes = or_(rows.dkim_aligned, rows.spf_aligned)
    of_rows = select(
        rows.author_domain,
        rows.source,
        func.sum(case((passes, rows.count), else_=0)),
        func.sum(case((passes, 0), else_=rows.count)),
    )
    before = _figures(connection, day, domain)
    after = dict(before)
    of_rows = of_rows.where(rows.report == identity).group_by(rows.author_domain, rows.source)
    for author, source, passed, failed in connection.execute(of_rows):
        _take((int(passed), int(failed)), (author, source), after)
    _replace(connection, day, domain, before, {name: figures for name, figures in after.items() if any(figures)})


def _take(figures: Figures, name: Name, sums: dict[Name, Figures]) -> None:
    """Subtract from a name what it has, and the rest from where it was counted when it was rare."""
    for place in dict.fromkeys((name, (name[0], ""), ("", ""))):
        found = sums.get(place)
        if found is not None:
            taken = (min(figures[0], found[0]), min(figures[1], found[1]))
            sums[place] = (found[0] - taken[0], found[1] - taken[1])
            figures = (figures[0] - taken[0], figures[1] - taken[1])


def folded(sums: Mapping[Name, Figures]) -> Mapping[Name, Figures]:
    """Count rare names together, if there are too many names."""
    if len(sums) <= MAX_NAMES:
        return sums
    of_authors: Counter[str] = Counter()
    for (author, _), figures in sums.items():
        of_authors[author] += sum(figures)
    authors = set(sorted(filter(None, of_authors), key=lambda author: (-of_authors[author], author))[:KEPT_AUTHORS])
    named = [name for name in sums if name[1]]
    kept = set(sorted(named, key=lambda name: (-sum(sums[name]), name))[:KEPT_NAMES])
    found: dict[Name, Figures] = {}
    for name, figures in sums.items():
        author = name[0] if name[0] in authors else ""
        place = name if author and name in kept else (author, "")
        found[place] = _plus(found.get(place, _NONE), figures)
    return found


def _plus(figures: Figures, further: Figures) -> Figures:
    return figures[0] + further[0], figures[1] + further[1]


def _change_day(connection: Connection, day: int, kind: str, good: int, bad: int) -> None:
    table = received_days.c
    values = {"day": day, "kind": kind, "good": good, "bad": bad}
    insert = insert_into(connection, received_days)
    changed = {"good": table.good + insert.excluded.good, "bad": table.bad + insert.excluded.bad}
    connection.execute(insert.on_conflict_do_update(index_elements=["day", "kind"], set_=changed), values)
    if good <= 0 and bad <= 0:
        connection.execute(
            delete(received_days).where(table.day == day, table.kind == kind, table.good == 0, table.bad == 0)
        )


def _figures(connection: Connection, day: int, domain: str) -> dict[Name, Figures]:
    table = received_counts.c
    query = select(table.author_domain, table.source, table.passed, table.failed)
    found = connection.execute(query.where(table.day == day, table.domain == domain))
    return {(author, source): (passed, failed) for author, source, passed, failed in found}


def _replace(
    connection: Connection, day: int, domain: str, before: Mapping[Name, Figures], after: Mapping[Name, Figures]
) -> None:
    """Write what is different."""
    table = received_counts.c
    gone = [{"author": author, "client": client} for author, client in before if (author, client) not in after]
    if gone:
        connection.execute(
            delete(received_counts).where(
                table.day == day,
                table.domain == domain,
                table.author_domain == bindparam("author"),
                table.source == bindparam("client"),
            ),
            gone,
        )
    changed = [
        {"day": day, "domain": domain, "author_domain": name[0], "source": name[1], "passed": passed, "failed": failed}
        for name, (passed, failed) in after.items()
        if before.get(name) != (passed, failed)
    ]
    if changed:
        insert = insert_into(connection, received_counts)
        key = [column.name for column in received_counts.primary_key.columns]
        new = {"passed": insert.excluded.passed, "failed": insert.excluded.failed}
        connection.execute(insert.on_conflict_do_update(index_elements=key, set_=new), changed)
