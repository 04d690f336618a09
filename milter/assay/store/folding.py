# SPDX-License-Identifier: GPL-3.0-or-later
"""Bound the counts that strangers can make many of: those of author domains and clients.

A day keeps the names with most messages, and always our own domains. All others are summed up under the empty name, so
that sums stay exact. What came of a single one is still found among the messages.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from sqlalchemy import Connection, and_, delete, func, select, tuple_

from assay.store.database import Database
from assay.store.rows import MessageRow
from assay.store.schema import counts
from assay.store.statements import statements_of
from assay.store.tallies import DAY_MILLISECONDS

# All our choice. A page reads 30 days.
MAX_NAMES = 500  # of one kind and day, besides our own domains
MAX_CLIENTS = 200  # of one day that failed with one of our own domains
MAX_OPEN = 5_000  # names of a kind on a day that is going on, or that late rows still come for
LOOK_ROWS = 5_000  # rows from one look at these days to the next
DAYS = 30  # that are looked at once an hour
STEP_NAMES = 500  # of one transaction

_KINDS = ("domain", "source", "failing")  # of the table `counts`

#: A subject and a source.
_Name = tuple[str, str]


class Folding:
    """Folds the counts of a database. Only one thread may use it at a time."""

    def __init__(self, database: Database, ours: Iterable[str]) -> None:
        """
        :param ours: our own domains, as A-labels.
        """
        self._database = database
        self._statements = statements_of(database)
        self._ours = frozenset(ours)
        self._rows = 0
        self._days: set[int] = set()

    def after(self, rows: Sequence[MessageRow]) -> None:
        """Look at the days that rows were counted on, if these are enough since the last time.

        :raises UnavailableError: the database cannot be used now; the next call or `fold` does it.
        """
        self._rows += len(rows)
        self._days.update(row.time // DAY_MILLISECONDS for row in rows)
        if self._rows >= LOOK_ROWS:
            for day in sorted(self._days):
                self._fold(day, MAX_OPEN)
            self._rows = 0
            self._days.clear()

    def fold(self, now: float) -> None:
        """Fold each day that is over.

        :param now: Unix time in seconds.
        :raises UnavailableError: the database cannot be used now; what was folded before stays folded.
        """
        today = int(now * 1000) // DAY_MILLISECONDS
        for day in range(today - DAYS, today):
            self._fold(day, MAX_NAMES)

    def _fold(self, day: int, most: int) -> None:
        """Fold the kinds of a day that have more names than a bound."""
        for kind in _KINDS:
            with self._database.reading() as connection:
                names = _names(connection, day, kind)
            if len(names) <= most:
                continue
            folded: dict[str, list[_Name]] = {}
            for name in sorted(self._left_out(names)):
                folded.setdefault(name[0] if name[0] in self._ours else "", []).append(name)
            for subject, several in folded.items():
                for start in range(0, len(several), STEP_NAMES):
                    with self._database.writing() as connection:
                        self._add_up(connection, day, kind, subject, several[start : start + STEP_NAMES])

    def _left_out(self, names: Sequence[_Name]) -> Iterator[_Name]:
        """Those that are not kept.

        :param names: the most frequent first.
        """
        kept = 0
        clients: Counter[str] = Counter()  # by domain of ours
        for subject, source in names:
            if not subject:
                continue  # that is the sum of the others
            if subject not in self._ours:
                kept += 1
                if kept > MAX_NAMES:
                    yield subject, source
            elif source:
                clients[subject] += 1
                if clients[subject] > MAX_CLIENTS:
                    yield subject, source

    def _add_up(self, connection: Connection, day: int, kind: str, subject: str, names: Sequence[_Name]) -> None:
        """Move the counts of names to a subject without a source: a domain of ours, or the empty name."""
        where = and_(counts.c.day == day, counts.c.kind == kind, tuple_(counts.c.subject, counts.c.source).in_(names))
        if not self._database.is_sqlite:  # lock in the order of writers, so that none waits for another in a circle
            words = sorted(connection.execute(select(counts.c.word).where(where).distinct()).scalars())
            self._statements.add_counts(connection, [(day, kind, subject, "", word, 0) for word in words])
            # Writers sort by code point, and the database may have another collation.
            order = [column.collate("C") for column in (counts.c.subject, counts.c.source, counts.c.word)]
            connection.execute(select(counts.c.count).where(where).order_by(*order).with_for_update()).all()
        sums: Counter[str] = Counter()
        # What is removed is what is added up, whatever another host has counted meanwhile.
        removed = delete(counts).where(where).returning(counts.c.word, counts.c.count)
        for word, count in connection.execute(removed):
            sums[word] += count
        self._statements.add_counts(
            connection, [(day, kind, subject, "", word, count) for word, count in sorted(sums.items())]
        )


def _names(connection: Connection, day: int, kind: str) -> Sequence[_Name]:
    """The subjects and sources of a day, the most frequent first."""
    query = (
        select(counts.c.subject, counts.c.source)
        .where(counts.c.day == day, counts.c.kind == kind)
        .group_by(counts.c.subject, counts.c.source)
        .order_by(func.sum(counts.c.count).desc(), counts.c.subject, counts.c.source)
    )
    return [(subject, source) for subject, source in connection.execute(query)]
