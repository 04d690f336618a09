# SPDX-License-Identifier: GPL-3.0-or-later
"""Days, and what most pages do with them: choose a period, link to its messages, mark words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta

from assay.model.name import Domain, InvalidNameError
from assay.web.parts import MAX_SERIES, Bars, Cell, Column, DataTable, Link, Series, Tone, Word
from assay.web.site import Site, address

DAY_MILLISECONDS = 86_400_000
DAYS = 30
#: Most counts are of such mail alone.
INBOUND = {"direction": "inbound"}
#: The heading of what is not counted by name (`assay.store.folding`).
RARE = "rare ones, together"
_OTHERS = "all others"  # of a plot

#: Words of results, actions and dispositions that a postmaster looks for.
_TONES = {
    **dict.fromkeys(("pass", "accept", "sent"), Tone.GOOD),
    **dict.fromkeys(("fail", "failed", "reject", "discard", "permerror", "refused", "given up", "bounced"), Tone.BAD),
    **dict.fromkeys(("softfail", "quarantine", "tag", "tempfail", "temperror", "policy", "not sent"), Tone.DOUBT),
}
#: The colours of the style sheet that suit each: red and purple, amber, green, grey and blue.
_STYLES = {Tone.BAD: (0, 2), Tone.DOUBT: (1,), Tone.GOOD: (5,), Tone.PLAIN: (3, 4)}
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


def stacked(
    name: str, caption: str, days: Sequence[int], figures: Mapping[tuple[int, str], int], key: str, **criteria: str
) -> Bars:
    """A plot of days by word, with its table.

    :param figures: by day and word.
    :param key: the criterion that the words are of.
    :param criteria: what all of it is about.
    """
    return bars(name, caption, days, figures, lambda count, of, text: link(count, of, **{key: text}, **criteria))


def bars(
    name: str,
    caption: str,
    days: Sequence[int],
    figures: Mapping[tuple[int, str], int],
    cell: Callable[[int, Sequence[int], str], Cell],
) -> Bars:
    """The same with other links.

    :param figures: by day and word. Of more than `MAX_SERIES` words, the rarest are one series, without links.
    :param cell: by figure, days and word.
    """
    figures = _largest(figures)
    words = sorted({text for _, text in figures}, key=_rank)
    of_words = {text: tuple(figures.get((day, text), 0) for day in days) for text in words}
    styles = _styles(words)
    series = tuple(
        Series(text or "none", each, _cell(cell, sum(each), days, text), styles[text])
        for text, each in of_words.items()
    )
    rows: list[tuple[Cell, ...]] = []
    for day in reversed(days):
        cells = [_cell(cell, figures.get((day, text), 0), (day,), text) for text in words]
        rows.append((str(of_day(day)), *cells))
    columns = (Column("day", "day (UTC)"), *(Column(text or "none", text or "none", numeric=True) for text in words))
    table = DataTable(name, caption, columns, rows)
    return Bars(name, caption, tuple(f"{of_day(day):%d %b}" for day in days), series, table)


def _cell(cell: Callable[[int, Sequence[int], str], Cell], count: int, days: Sequence[int], text: str) -> Cell:
    return count if text == _OTHERS else cell(count, days, text)


def _largest(figures: Mapping[tuple[int, str], int]) -> Mapping[tuple[int, str], int]:
    """Figures by day and word, of at most `MAX_SERIES` words, of which the last may be all others together."""
    sums: Counter[str] = Counter()
    for (_, text), count in figures.items():
        sums[text] += count
    if len(sums) <= MAX_SERIES:
        return figures
    few = {text for text, _ in sums.most_common(MAX_SERIES - 1)}
    found: Counter[tuple[int, str]] = Counter()
    for (day, text), count in figures.items():
        found[day, text if text in few else _OTHERS] += count
    return found


def _styles(words: Sequence[str]) -> dict[str, int]:
    """A style for each of at most `MAX_SERIES` words: a colour of its tone, if that is free."""
    free = list(range(MAX_SERIES))
    styles: dict[str, int] = {}
    for any_colour in (False, True):
        for text in words:
            choices = free if any_colour else _STYLES[_TONES.get(text, Tone.PLAIN)]
            style = next((each for each in choices if each in free), None)
            if text not in styles and style is not None:
                styles[text] = style
                free.remove(style)
    return styles


def _rank(text: str) -> tuple[int, str]:
    return (_ORDER.index(text) if text in _ORDER else len(_ORDER), text)
