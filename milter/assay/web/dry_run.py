# SPDX-License-Identifier: GPL-3.0-or-later
"""What keys and rules in dry run would have done."""

from __future__ import annotations

from assay.store import overview
from assay.web.parts import Cell, Column, DataTable, Remark, Tone, WebPage
from assay.web.periods import last_days, link, stacked, today, word
from assay.web.site import Site, WebQuery


def page(site: Site, _: WebQuery) -> WebPage:
    """The dry run."""
    days, now = last_days(site), today(site)
    database = site.store.database
    day = {(each.subject, each.word): each.count for each in overview.sums(database, "watched", (now,))}
    rows: list[tuple[Cell, ...]] = [
        (
            each.subject,
            word(each.word),
            link(day.get((each.subject, each.word), 0), (now,), watched=each.subject, would=each.word),
            link(each.count, days, watched=each.subject, would=each.word),
        )
        for each in overview.sums(database, "watched", days)
    ]
    columns = (
        Column("by", "key or rule"),
        Column("action", "would have done"),
        Column("today", "today", numeric=True),
        Column("days", "30 days", numeric=True),
    )
    table = DataTable("watched", "By key and rule", columns, rows, empty="Nothing was in dry run, or nothing matched.")
    by_day = {(each.day, each.word): each.count for each in overview.daily_by_subject(database, "watched", days)}
    plot = (stacked("days", "By day, key and rule", days, by_day, "watched"),) if by_day else ()
    whole = site.configuration.milter.dry_run
    parts = (
        (Remark("Everything is in dry run (milter.dry_run): nothing is refused.", tone=Tone.DOUBT),) if whole else ()
    )
    return WebPage("Dry run", (*parts, table, *plot), "What would have been done, had it not been a dry run.")
