# SPDX-License-Identifier: GPL-3.0-or-later
"""Who sends in the names of our domains and fails, and which sources fail towards us."""

from __future__ import annotations

from collections.abc import Sequence

from assay.store import overview
from assay.store.overview import Ranked
from assay.store.search import NOT_TAKEN
from assay.web.parts import Cell, Column, DataTable, Link, Part, Remark, Tone, WebPage
from assay.web.periods import INBOUND, RARE, last_days, link
from assay.web.site import Site, WebQuery, address

ROWS = 50
_DISPOSITIONS = ("reject", "quarantine", "none", "")
_DMARC = ("fail", "pass", "none", "temperror", "permerror")


def page(site: Site, query: WebQuery) -> WebPage:
    """Senders."""
    database, days = site.store.database, last_days(site)
    start = query.number("from", 0, 0, 10**6)
    wanted = query.text("domain")
    domains: Sequence[str] = (wanted,) if wanted in site.domains else site.domains
    failing = overview.failing_domains(database, site.domains, days)
    names = [
        (Link(each.name, address("/senders", domain=each.name)), *_figures(each, days, "author")) for each in failing
    ]
    clients = overview.failing(database, domains, days, most=ROWS + 1, start=start)
    author = {"author": domains[0]} if len(domains) == 1 else {"ours": "yes"}
    sources: list[tuple[Cell, ...]] = [
        (_source(each.name), *_figures(each, days, "client", **author)) for each in clients[:ROWS]
    ]
    rare = overview.unnamed(database, "failing", days, domains)
    if domains and rare.total and len(clients) <= ROWS:
        sources.append((RARE, rare.total, *(rare.counts.get(word, 0) for word in _DISPOSITIONS)))
    whose = f" of {domains[0]}" if len(domains) == 1 else "s of our domains"
    further = address("/senders", domain=wanted, **{"from": start + ROWS}) if len(clients) > ROWS else ""
    figures = (
        Column("messages", "failed", numeric=True),
        *(Column(name or NOT_TAKEN, name or "not taken", numeric=True) for name in _DISPOSITIONS),
    )
    of_names = DataTable(
        "names",
        "Mail in the names of our domains that failed DMARC",
        (Column("domain", "author domain"), *figures),
        names,
        note="By what was done with it.",
        empty="None, or no domain is configured as ours (web.domains).",
    )
    of_clients = DataTable(
        "clients",
        f"Clients that sent it in the name{whose}",
        (Column("client", "client"), *figures),
        sources,
        note="One of your own here needs SPF or DKIM. See Domains.",
        empty="None.",
        further=further,
    )
    intro = "The last 30 days. Where mail of yours fails, and who forges it."
    return WebPage("Senders", (*_left_out(len(site.domains)), of_names, of_clients, _sources(site, days)), intro)


def _left_out(count: int) -> tuple[Part, ...]:
    if count <= overview.MAX_SUBJECTS:
        return ()
    text = f"Only the first {overview.MAX_SUBJECTS} of {count:,} domains (web.domains) are looked at here."
    return (Remark(text, tone=Tone.DOUBT),)


def _figures(each: Ranked, days: range, key: str, **criteria: str) -> list[Cell]:
    figures: list[Cell] = [link(each.total, days, dmarc="fail", **{key: each.name}, **criteria, **INBOUND)]
    for word in _DISPOSITIONS:
        asked = {"dmarc": "fail", "disposition": word or NOT_TAKEN}
        figures.append(link(each.counts.get(word, 0), days, **asked, **{key: each.name}, **criteria, **INBOUND))
    return figures


def _source(client: str) -> Link:
    return Link(client, address("/messages", client=client))


def _sources(site: Site, days: range) -> DataTable:
    rows: list[tuple[Cell, ...]] = [
        (
            _source(each.name),
            *(link(each.counts.get(word, 0), days, client=each.name, dmarc=word, **INBOUND) for word in _DMARC),
        )
        for each in overview.top(site.store.database, "source", days, word="fail")
    ]
    rare = overview.unnamed(site.store.database, "source", days)
    if rare.total:
        rows.append((RARE, *(rare.counts.get(word, 0) for word in _DMARC)))
    columns = (Column("client", "client"), *(Column(word, word, numeric=True) for word in _DMARC))
    return DataTable("sources", "Sources with most mail that fails DMARC", columns, rows, empty="None.")
