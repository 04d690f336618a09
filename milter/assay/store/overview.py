# SPDX-License-Identifier: GPL-3.0-or-later
"""Sums of the counts a day, for overviews. Nothing here reads single messages.

Kinds that strangers can make many names of have the sum of the rare ones under the empty name (`assay.store.folding`),
which `unnamed` returns. Each statement names its days one by one, so that the database goes to each by the primary key
and passes over the counts of other kinds.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct
from sqlalchemy import Column, ColumnElement, case, desc, func, select

from assay.store.database import Database
from assay.store.schema import counts

MAX_DAYS = 400  # of one sum, our choice: a statement names each
MAX_SUBJECTS = 500  # that one sum is restricted to


class Sum(Struct, frozen=True):
    """How many verdicts had a word. `subject` and `source` are as in the table `counts`."""

    subject: str
    source: str
    word: str
    count: int


class DaySum(Struct, frozen=True):
    """How many verdicts of a day had a word."""

    day: int
    word: str
    count: int


class Ranked(Struct, frozen=True):
    """A subject or a source with its figures.

    :ivar counts: by word.
    """

    name: str
    counts: dict[str, int]

    @property
    def total(self) -> int:
        """Of all words."""
        return sum(self.counts.values())


def sums(database: Database, kind: str, days: Sequence[int], *, most: int = 1000) -> tuple[Sum, ...]:
    """The sums over some days by subject and word, the largest first.

    :raises UnavailableError: the database cannot be used now.
    """
    count = func.sum(counts.c.count)
    query = (
        select(counts.c.subject, counts.c.word, count)
        .where(_of(kind, days))
        .group_by(counts.c.subject, counts.c.word)
        .order_by(desc(count), counts.c.subject, counts.c.word)
        .limit(most)
    )
    with database.reading() as connection:
        return tuple(Sum(subject, "", word, int(number)) for subject, word, number in connection.execute(query))


def daily(database: Database, kind: str, days: Sequence[int]) -> tuple[DaySum, ...]:
    """The sums of each day by word, over all subjects.

    :raises UnavailableError: the database cannot be used now.
    """
    return _daily(database, kind, days, counts.c.word)


def daily_by_subject(database: Database, kind: str, days: Sequence[int]) -> tuple[DaySum, ...]:
    """The sums of each day by subject, which is the word, over all words.

    :raises UnavailableError: the database cannot be used now.
    """
    return _daily(database, kind, days, counts.c.subject)


def _daily(database: Database, kind: str, days: Sequence[int], by: Column[str]) -> tuple[DaySum, ...]:
    query = (
        select(counts.c.day, by, func.sum(counts.c.count))
        .where(_of(kind, days))
        .group_by(counts.c.day, by)
        .order_by(counts.c.day, by)
    )
    with database.reading() as connection:
        return tuple(DaySum(day, word, int(number)) for day, word, number in connection.execute(query))


def totals(database: Database, kind: str, subjects: Sequence[str], days: Sequence[int]) -> dict[str, int]:
    """The sums of some subjects over all words; those without any are left out.

    :param subjects: at most `MAX_SUBJECTS`.
    :raises UnavailableError: the database cannot be used now.
    """
    query = (
        select(counts.c.subject, func.sum(counts.c.count))
        .where(_of(kind, days), counts.c.subject.in_(tuple(subjects)[:MAX_SUBJECTS]))
        .group_by(counts.c.subject)
    )
    with database.reading() as connection:
        return {subject: int(number) for subject, number in connection.execute(query)}


def top(
    database: Database, kind: str, days: Sequence[int], *, word: str = "", most: int = 20, start: int = 0
) -> tuple[Ranked, ...]:
    """The subjects with the largest sums, each with its figures by word.

    :param word: rank by this word only, and leave out who has none of it; empty: by all.
    :param start: how many to pass over.
    :raises UnavailableError: the database cannot be used now.
    """
    ranked = func.sum(case((counts.c.word == word, counts.c.count), else_=0)) if word else func.sum(counts.c.count)
    leaders = (
        select(counts.c.subject, ranked.label("ranked"))
        .where(_of(kind, days), counts.c.subject != "")
        .group_by(counts.c.subject)
        .having(ranked > 0)
        .order_by(desc(ranked), counts.c.subject)
        .limit(most)
        .offset(start)
    )
    with database.reading() as connection:
        names = [name for name, _ in connection.execute(leaders)]
        figures = (
            select(counts.c.subject, counts.c.word, func.sum(counts.c.count))
            .where(_of(kind, days), counts.c.subject.in_(names))
            .group_by(counts.c.subject, counts.c.word)
        )
        found: dict[str, dict[str, int]] = {name: {} for name in names}
        for name, of, number in connection.execute(figures) if names else ():
            found[name][of] = int(number)
    return tuple(Ranked(name, figures) for name, figures in found.items())


def failing(
    database: Database, subjects: Sequence[str], days: Sequence[int], *, most: int = 100, start: int = 0
) -> tuple[Ranked, ...]:
    """The clients that failed DMARC with these author domains, each with its figures by disposition.

    :param subjects: at most `MAX_SUBJECTS`.
    :param start: how many to pass over.
    :raises UnavailableError: the database cannot be used now.
    """
    if not subjects:
        return ()
    where = _of("failing", days) & counts.c.subject.in_(tuple(subjects)[:MAX_SUBJECTS])
    count = func.sum(counts.c.count)
    leaders = (
        select(counts.c.source, count)
        .where(where, counts.c.source != "")
        .group_by(counts.c.source)
        .order_by(desc(count), counts.c.source)
        .limit(most)
        .offset(start)
    )
    with database.reading() as connection:
        names = [name for name, _ in connection.execute(leaders)]
        figures = (
            select(counts.c.source, counts.c.word, count)
            .where(where, counts.c.source.in_(names))
            .group_by(counts.c.source, counts.c.word)
        )
        found: dict[str, dict[str, int]] = {name: {} for name in names}
        for name, word, number in connection.execute(figures) if names else ():
            found[name][word] = int(number)
    return tuple(Ranked(name, figures) for name, figures in found.items())


def failing_domains(database: Database, subjects: Sequence[str], days: Sequence[int]) -> tuple[Ranked, ...]:
    """These author domains, as far as mail with them failed DMARC, each with its figures by disposition.

    :param subjects: at most `MAX_SUBJECTS`.
    :raises UnavailableError: the database cannot be used now.
    """
    if not subjects:
        return ()
    query = (
        select(counts.c.subject, counts.c.word, func.sum(counts.c.count))
        .where(_of("failing", days), counts.c.subject.in_(tuple(subjects)[:MAX_SUBJECTS]))
        .group_by(counts.c.subject, counts.c.word)
    )
    found: dict[str, dict[str, int]] = {}
    with database.reading() as connection:
        for name, word, number in connection.execute(query):
            found.setdefault(name, {})[word] = int(number)
    return tuple(sorted((Ranked(name, figures) for name, figures in found.items()), key=lambda each: -each.total))


def unnamed(database: Database, kind: str, days: Sequence[int], subjects: Sequence[str] = ()) -> Ranked:
    """What `top` and `failing` leave out because it is not counted by name, by word.

    :param subjects: those of `failing`; empty for `top`.
    :raises UnavailableError: the database cannot be used now.
    """
    query = (
        select(counts.c.word, func.sum(counts.c.count))
        .where(_of(kind, days), counts.c.subject.in_(tuple(subjects)[:MAX_SUBJECTS] or ("",)), counts.c.source == "")
        .group_by(counts.c.word)
    )
    with database.reading() as connection:
        return Ranked("", {word: int(number) for word, number in connection.execute(query)})


def _of(kind: str, days: Sequence[int]) -> ColumnElement[bool]:
    return counts.c.day.in_(tuple(days)[:MAX_DAYS]) & (counts.c.kind == kind)
