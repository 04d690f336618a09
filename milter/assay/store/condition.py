# SPDX-License-Identifier: GPL-3.0-or-later
"""How much a database holds, and since when."""

from __future__ import annotations

from msgspec import Struct
from sqlalchemy import func, select, text

from assay.store.database import Database
from assay.store.schema import counts, messages

MOST_COUNTED = 1_000_000  # messages, our choice: more of them would take seconds

_OCTETS_OF_SQLITE = "SELECT page_count * page_size FROM pragma_page_count, pragma_page_size"
_OCTETS_OF_POSTGRESQL = "SELECT pg_database_size(current_database())"


class Condition(Struct, frozen=True):
    """What a database holds.

    :ivar messages: how many are kept one by one; `MOST_COUNTED` + 1 if there are more than that.
    :ivar oldest: when the oldest of them came, in Unix milliseconds, and `newest` the newest; 0 without any.
    :ivar first_day: the first day that has counts, in days since 1970, and `last_day` the last; 0 without any.
    :ivar octets: of the whole database.
    """

    messages: int
    oldest: int
    newest: int
    first_day: int
    last_day: int
    octets: int


def condition(database: Database) -> Condition:
    """Look at a database.

    :raises UnavailableError: it cannot be used now.
    """
    some = select(messages.c.time).limit(MOST_COUNTED + 1).subquery()
    queries = (
        select(func.count()).select_from(some),
        # One aggregate a query: an index then has the answer at its end, and no table is read.
        select(func.min(messages.c.time)),
        select(func.max(messages.c.time)),
        select(func.min(counts.c.day)),
        select(func.max(counts.c.day)),
        text(_OCTETS_OF_SQLITE if database.is_sqlite else _OCTETS_OF_POSTGRESQL),
    )
    with database.reading() as connection:
        return Condition(*(int(connection.execute(query).scalar() or 0) for query in queries))
