# SPDX-License-Identifier: GPL-3.0-or-later
"""Today and the last 30 days: by action, result, domain and host."""

from __future__ import annotations

from assay.store import overview
from assay.store.search import ANY, UNDECIDED
from assay.web.parts import Cell, Column, DataTable, Link, Part, Several, WebPage
from assay.web.periods import INBOUND, RARE, last_days, link, of_day, stacked, today, word
from assay.web.site import Site, WebQuery, address

_TOP = 15
_RESULTS = ("pass", "fail", "softfail", "neutral", "none", "temperror", "permerror", "policy")
_DMARC = ("pass", "fail", "none", "temperror", "permerror")


def page(site: Site, _: WebQuery) -> WebPage:
    """The start."""
    database, days = site.store.database, last_days(site)
    now = (today(site),)
    by_day = overview.daily(database, "action", days)
    figures = {(each.day, each.word): each.count for each in by_day}
    counted = link(sum(each.count for each in by_day if each.day == now[0]), now)
    dmarc = {(each.day, each.word): each.count for each in overview.daily(database, "domain", days)}
    parts: tuple[Part, ...] = (
        stacked("actions", "Messages by action, last 30 days", days, figures, "action"),
        _decisions(site, now[0], days),
        stacked(
            "dmarc",
            "Inbound mail with an author by DMARC result, last 30 days",
            days,
            dmarc,
            "dmarc",
            **INBOUND,
            author=ANY,
        ),
        _results(site, "results-today", "Results today", range(now[0], now[0] + 1)),
        _results(site, "results", "Results, last 30 days", days),
        _domains(site, now[0], days),
        _hosts(site, now[0], days),
    )
    return WebPage("Overview", parts, Several((counted, f"messages today ({of_day(now[0])}, UTC).")))


def _decisions(site: Site, now: int, days: range) -> DataTable:
    month = overview.sums(site.store.database, "action", days)
    day = {(each.subject, each.word): each.count for each in overview.sums(site.store.database, "action", (now,))}
    rows: list[tuple[Cell, ...]] = [
        (
            each.subject or "no key or rule",
            word(each.word),
            link(day.get((each.subject, each.word), 0), (now,), by=each.subject or UNDECIDED, action=each.word),
            link(each.count, days, by=each.subject or UNDECIDED, action=each.word),
        )
        for each in month
    ]
    columns = (
        Column("by", "decided by"),
        Column("action", "action"),
        Column("today", "today", numeric=True),
        Column("days", "30 days", numeric=True),
    )
    return DataTable("decisions", "What decided", columns, rows, empty="No messages yet.")


def _results(site: Site, name: str, caption: str, days: range) -> DataTable:
    figures: dict[str, dict[str, int]] = {}
    for each in overview.sums(site.store.database, "result", days):
        figures.setdefault(each.subject, {})[each.word] = each.count
    rows: list[tuple[Cell, ...]] = [
        (key, *(link(counts.get(result, 0), days, finding=key, result=result) for result in _RESULTS))
        for key, counts in sorted(figures.items())
    ]
    columns = (Column("method", "method"), *(Column(result, result, numeric=True) for result in _RESULTS))
    note = "A message counts once for each different result of a method."
    return DataTable(name, caption, columns, rows, note=note, empty="No results.")


def _domains(site: Site, now: int, days: range) -> DataTable:
    database = site.store.database
    rows: list[tuple[Cell, ...]] = []
    found = overview.top(database, "domain", days, most=_TOP)
    day = overview.totals(database, "domain", [*(each.name for each in found), ""], (now,))
    for each in found:
        of = {"author": each.name, **INBOUND}
        counts = (link(each.counts.get(result, 0), days, **of, dmarc=result) for result in _DMARC)
        whole = Link(each.name, address("/messages", author=each.name))
        rows.append((whole, link(day.get(each.name, 0), (now,), **of), link(each.total, days, **of), *counts))
    others = overview.unnamed(database, "domain", days)
    if others.total:
        rows.append((RARE, day.get("", 0), others.total, *(others.counts.get(result, 0) for result in _DMARC)))
    columns = (
        Column("domain", "author domain"),
        Column("today", "today", numeric=True),
        Column("messages", "30 days", numeric=True),
        *(Column(result, result, numeric=True) for result in _DMARC),
    )
    return DataTable("domains", "Author domains with most inbound mail, last 30 days, by DMARC", columns, rows)


def _hosts(site: Site, now: int, days: range) -> DataTable:
    day = {(each.subject, each.word): each.count for each in overview.sums(site.store.database, "host", (now,))}
    rows: list[tuple[Cell, ...]] = [
        (
            each.subject,
            each.word,
            link(day.get((each.subject, each.word), 0), (now,), host=each.subject, direction=each.word),
            link(each.count, days, host=each.subject, direction=each.word),
        )
        for each in overview.sums(site.store.database, "host", days)
    ]
    columns = (
        Column("host", "host"),
        Column("direction", "direction"),
        Column("today", "today", numeric=True),
        Column("days", "30 days", numeric=True),
    )
    return DataTable("hosts", "Hosts of ours", columns, rows)
