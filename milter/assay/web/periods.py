# SPDX-License-Identifier: GPL-3.0-or-later
"""Days, and what most pages do with them: choose a period, link to its messages, mark words."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta

from assay.model.name import Domain, InvalidNameError
from assay.web.parts import Bars, Cell, Column, DataTable, Link, Series, Tone, Word
from assay.web.site import Site, address

DAY_MILLISECONDS = 86_400_000
DAYS = 30
#: The heading of what is not counted by name (`assay.store.folding`).
RARE = "rare ones, together"

#: Words of results, actions and dispositions that a postmaster looks for.
_TONES = {
    **dict.fromkeys(("pass", "accept", "sent"), Tone.GOOD),
    **dict.fromkeys(("fail", "reject", "discard", "permerror", "refused", "given up", "bounced"), Tone.BAD),
    **dict.fromkeys(("softfail", "quarantine", "tag", "tempfail", "temperror", "policy", "not sent"), Tone.DOUBT),
}
#: From the bottom of a plot to its top, so that what is rare is seen: all else comes after.
_ORDER = (
    "reject", "fail", "failed", "discard", "tempfail", "temperror", "quarantine", "tag", "waiting", "none", "accept",
    "pass", "sent",
)  # fmt: skip


def word(text: str) -> Word:
    """A word with its tone."""
    return Word(text or "none", _TONES.get(text, Tone.PLAIN))


def today(site: Site) -> int:
    """Days since 1970 in UTC, as the store has them."""
    return int(site.now()) // 86_400


def last_days(site: Site, count: int = DAYS) -> range:
    """The last days, today included."""
    now = today(site)
    return range(now - count + 1, now + 1)


def of_day(day: int) -> date:
    """The date of a day."""
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(days=day)).date()


def day_of(text: str) -> int | None:
    """The day of a date such as 2026-11-26; None if it is none."""
    try:
        return (date.fromisoformat(text) - date(1970, 1, 1)).days
    except ValueError:
        return None


def domain_of(text: str) -> str:
    """As the store has it: U-labels become A-labels."""
    try:
        return Domain.parse(text).name if text else ""
    except InvalidNameError:
        return text.lower()


def link(count: int, days: Sequence[int], **criteria: str) -> Link | int:
    """A number that leads to its messages; a plain zero."""
    if not count:
        return count
    span = {"since": str(of_day(days[0])), "until": str(of_day(days[-1]))}
    return Link(count, address("/messages", **span, **criteria))


def stacked(name: str, caption: str, days: Sequence[int], figures: Mapping[tuple[int, str], int], key: str) -> Bars:
    """A plot of days by word, with its table.

    :param figures: by day and word.
    :param key: the criterion that the words are of.
    """
    return bars(name, caption, days, figures, lambda count, day, text: link(count, (day,), **{key: text}))


def bars(
    name: str,
    caption: str,
    days: Sequence[int],
    figures: Mapping[tuple[int, str], int],
    cell: Callable[[int, int, str], Cell],
) -> Bars:
    """The same with other links.

    :param cell: of the table, by figure, day and word.
    """
    words = sorted({text for _, text in figures}, key=_rank)[:6]
    series = tuple(Series(text or "none", tuple(figures.get((day, text), 0) for day in days)) for text in words)
    rows: list[tuple[Cell, ...]] = []
    for day in reversed(days):
        cells = [cell(figures.get((day, text), 0), day, text) for text in words]
        rows.append((str(of_day(day)), *cells))
    columns = (Column("day", "day (UTC)"), *(Column(text or "none", text or "none", numeric=True) for text in words))
    table = DataTable(name, caption, columns, rows)
    return Bars(name, caption, tuple(f"{of_day(day):%d %b}" for day in days), series, table)


def _rank(text: str) -> tuple[int, str]:
    return (_ORDER.index(text) if text in _ORDER else len(_ORDER), text)
