# SPDX-License-Identifier: GPL-3.0-or-later
"""The reports about our domains that came in, and what others saw beside what we saw."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from assay.model.smtp import parse_address
from assay.store import received, reporting
from assay.store.overview import DaySum
from assay.store.received import ReportSummary, UnreadableReport
from assay.store.reporting import SeenBeside
from assay.store.retention import GROUP_DAYS
from assay.web import periods
from assay.web.parts import (
    Bars,
    Cell,
    Choice,
    Column,
    DataTable,
    Link,
    Moment,
    Part,
    SearchForm,
    Several,
    WebPage,
    Word,
)
from assay.web.periods import RARE, last_days, link, of_day, word
from assay.web.site import Site, WebQuery, address, rows_of

ROWS = 50
MAX_DAYS = 400  # of one list: as long as reports are kept by default
SOURCES = 50  # that others saw most of, and as many that we saw most of
_KINDS = ("", "aggregate", "failure", "tls")
_FIGURES = (
    Column("passed", "passed there", numeric=True),
    Column("failed", "failed there", numeric=True),
    Column("own_passed", "passed here", numeric=True),
    Column("own_failed", "failed here", numeric=True),
)


def page(site: Site, query: WebQuery) -> WebPage:
    """Reports that came in."""
    database, days = site.store.database, last_days(site)
    both = last_days(site, GROUP_DAYS)
    with database.reading() as connection:
        dmarc, failures, tls = (reporting.received_daily(connection, days, kind) for kind in _KINDS[1:])
        by_domain = reporting.beside(connection, both, site.domains, by_source=False, most=SOURCES)
        by_source = reporting.beside(connection, both, site.domains, by_source=True, most=SOURCES)
        unreadable = received.unreadable(connection)
    parts: list[Part] = [
        *_plot(
            "dmarc",
            "DMARC of mail in the name of our domains, as others report it, last 30 days",
            days,
            dmarc,
            "aggregate",
        ),
        _by_domain(by_domain, both),
        _by_source(by_source, both),
        _form(query),
        _reports(site, query, days),
        *_plot("tls", "TLS sessions with our mail servers, as others report them, last 30 days", days, tls, "tls"),
        *_plot("failures", "Messages in failure reports, last 30 days", days, failures, "failure"),
        _unreadable(unreadable),
    ]
    return WebPage("Reports received", tuple(parts), "What receivers of mail report about our domains.")


def _plot(name: str, caption: str, days: Sequence[int], found: Sequence[DaySum], kind: str) -> Iterator[Bars]:
    figures = {(each.day, each.word): each.count for each in found if each.count}
    if figures:
        yield periods.bars(name, caption, days, figures, lambda count, of, _: _to_reports(count, of, kind))


def _to_reports(count: int, days: Sequence[int], kind: str) -> Cell:
    when = {"day" if len(days) == 1 else "since": str(of_day(days[0]))}
    return Link(count, address("/received", kind=kind, **when)) if count else count


def _by_domain(found: Sequence[SeenBeside], days: Sequence[int]) -> DataTable:
    rows: list[tuple[Cell, ...]] = [
        (
            Link(each.domain, address("/messages", author=each.domain)),
            _reported(each.passing, days, author=each.domain),
            _reported(each.failing, days, author=each.domain),
            link(each.own_passing, days, author=each.domain, reported="pass"),
            link(each.own_failing, days, author=each.domain, reported="fail"),
        )
        for each in found
        if each.domain
    ]
    rows += [(RARE, each.passing, each.failing, None, None) for each in found if not each.domain]
    return DataTable(
        "names",
        f"Seen by others and by us, last {GROUP_DAYS} days, by author domain",
        (Column("domain", "author domain"), *_FIGURES),
        rows,
        note="Messages by DMARC: there, as the reports of receivers say; here, as we saw ourselves.",
        empty="No mail in the names of our domains.",
    )


def _by_source(found: Sequence[SeenBeside], days: Sequence[int]) -> DataTable:
    rows: list[tuple[Cell, ...]] = [
        (
            Link(each.source, address("/messages", client=each.source)),
            each.domain,
            _reported(each.passing, days, author=each.domain, client=each.source),
            _reported(each.failing, days, author=each.domain, client=each.source),
            link(each.own_passing, days, client=each.source, author=each.domain, reported="pass"),
            link(each.own_failing, days, client=each.source, author=each.domain, reported="fail"),
        )
        for each in found
        if each.source
    ]
    rows += [(RARE, None, each.passing, each.failing, None, None) for each in found if not each.source]
    return DataTable(
        "sources",
        f"Seen by others and by us, last {GROUP_DAYS} days, by client",
        (Column("client", "client"), Column("domain", "author domain"), *_FIGURES),
        rows,
        note="What they saw leads to reports with the client. One of yours that fails needs SPF or DKIM: see Domains.",
        empty="No mail in the names of our domains.",
    )


def _reported(count: int, days: Sequence[int], **criteria: str) -> Cell:
    """What others saw, which leads to their reports with it."""
    return Link(count, address("/received", since=str(of_day(days[0])), **criteria)) if count else count


def _form(query: WebQuery) -> SearchForm:
    return SearchForm(
        "/received",
        "Search reports",
        (
            Choice("kind", "Kind", query.text("kind"), options=_KINDS),
            Choice("domain", "Domain", query.text("domain"), "example.org"),
            Choice("client", "Client in it", query.text("client"), "192.0.2.1"),
            Choice("author", "Author domain in it", query.text("author"), "example.org"),
            Choice("day", "Day it begins (UTC)", query.text("day"), "2026-11-25"),
            Choice("since", "Begins since (UTC)", query.text("since"), "2026-11-01"),
        ),
        "Search",
    )


def _reports(site: Site, query: WebQuery, days: Sequence[int]) -> DataTable:
    start, most = query.number("from", 0, 0, 10**6), rows_of(query, ROWS)
    names = ("kind", "domain", "client", "author", "day", "since")
    kind, domain, client, author, text, from_text = map(query.text, names)
    day, first = periods.day_of(text), periods.day_of(from_text)
    wrong = next((each for each, number in ((text, day), (from_text, first)) if each and number is None), "")
    span = (max(days[0] if first is None else first, days[-1] - MAX_DAYS), days[-1] + 1) if day is None else (day, day)
    found: list[ReportSummary] = []
    if not wrong:
        domains = (periods.domain_of(domain),) if domain else site.domains if author else ()
        with site.store.database.reading() as connection:
            found = received.summaries(
                connection,
                *span,
                domains=domains,
                kind=kind,
                client=str(parse_address(client) or client),
                author=periods.domain_of(author),
                start=start,
                most=most + 1,
            )
    rows = [_row(each) for each in found[:most]]
    criteria: dict[str, str | int] = {
        "kind": kind, "domain": domain, "client": client, "author": author, "day": text, "since": from_text,
        "rows": query.text("rows"), "from": start + most,
    }  # fmt: skip
    further = address("/received", **criteria) if len(found) > most else ""
    columns = (
        Column("begin", "begins (UTC)"),
        Column("kind", "kind"),
        Column("organization", "organization", wide=True),
        Column("domain", "domain"),
        Column("good", "passed", numeric=True),
        Column("bad", "failed", numeric=True),
        Column("sender", "mail from"),
        Column("received", "received (UTC)"),
    )
    note = "The figures of TLS reports are sessions. A report without dmarc=pass may be anyone's."
    empty = f"{wrong} is not a day; write 2026-11-25." if wrong else "No report."
    return DataTable("reports", "Reports, newest first", columns, rows, note=note, empty=empty, further=further)


def _row(each: ReportSummary) -> tuple[Cell, ...]:
    return (
        Moment(each.begin * 1000),
        each.kind,
        Link(each.organization or "no name", f"/received/{each.id.hex()}"),
        each.domain,
        each.good,
        each.bad,
        sender(each.sender, each.sender_dmarc),
        Moment(each.received * 1000),
    )


def sender(domain: str, dmarc: str) -> Cell:
    """Whose mail brought a report, and whether it is known that it comes from there."""
    if not domain:
        return "a file"
    return Several((domain, Word(f"dmarc={dmarc or 'unknown'}", word(dmarc).tone)))


def _unreadable(found: Sequence[UnreadableReport]) -> DataTable:
    rows: list[tuple[Cell, ...]] = [
        (Moment(each.received * 1000), sender(each.sender, each.sender_dmarc), each.octets, each.reason)
        for each in found[:ROWS]
    ]
    columns = (
        Column("received", "received (UTC)"),
        Column("sender", "mail from"),
        Column("octets", "octets", numeric=True),
        Column("reason", "why", wide=True),
    )
    note = f"The newest {ROWS} of {len(found):,}." if len(found) > ROWS else ""
    return DataTable("unreadable", "What came in and could not be read", columns, rows, note=note, empty="Nothing.")
