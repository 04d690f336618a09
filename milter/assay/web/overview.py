# SPDX-License-Identifier: GPL-3.0-or-later
"""Today and the last 30 days: by action, result, domain and host."""

from __future__ import annotations

from assay.store import overview
from assay.web.parts import Cell, Column, DataTable, Link, Part, WebPage
from assay.web.periods import RARE, last_days, link, of_day, stacked, today, word
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
    counted = sum(each.count for each in by_day if each.day == now[0])
    dmarc = {(each.day, each.word): each.count for each in overview.daily(database, "domain", days)}
    parts: tuple[Part, ...] = (
        stacked("actions", "Messages by action, last 30 days", days, figures, "action"),
        _decisions(site, now[0], days),
        stacked("dmarc", "Inbound mail by DMARC result, last 30 days", days, dmarc, "dmarc"),
        _results(site, "results-today", "Results today", range(now[0], now[0] + 1)),
        _results(site, "results", "Results, last 30 days", days),
        _domains(site, days),
        _hosts(site, now[0], days),
    )
    return WebPage("Overview", parts, f"{counted:,} messages today ({of_day(now[0])}, UTC).")


def _decisions(site: Site, now: int, days: range) -> DataTable:
    month = overview.sums(site.store.database, "action", days)
    day = {(each.subject, each.word): each.count for each in overview.sums(site.store.database, "action", (now,))}
    rows: list[tuple[Cell, ...]] = [
        (
            each.subject or "no key or rule",
            word(each.word),
            link(day.get((each.subject, each.word), 0), (now,), by=each.subject, action=each.word),
            link(each.count, days, by=each.subject, action=each.word),
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


def _domains(site: Site, days: range) -> DataTable:
    rows: list[tuple[Cell, ...]] = []
    for each in overview.top(site.store.database, "domain", days, most=_TOP):
        counts = (link(each.counts.get(result, 0), days, author=each.name, dmarc=result) for result in _DMARC)
        whole = Link(each.name, address("/messages", author=each.name))
        rows.append((whole, link(each.total, days, author=each.name), *counts))
    others = overview.unnamed(site.store.database, "domain", days)
    if others.total:
        rows.append((RARE, others.total, *(others.counts.get(result, 0) for result in _DMARC)))
    columns = (
        Column("domain", "author domain"),
        Column("messages", "messages", numeric=True),
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
