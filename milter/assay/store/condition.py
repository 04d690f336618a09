# SPDX-License-Identifier: GPL-3.0-or-later
"""How much a database holds, and since when."""

from __future__ import annotations

from msgspec import Struct
from sqlalchemy import func, select

from assay.store.database import Database
from assay.store.schema import counts, messages


class Condition(Struct, frozen=True):
    """What a database holds.

    :ivar messages: how many are kept one by one.
    :ivar oldest: when the oldest of them came, in Unix milliseconds, and `newest` the newest; 0 without any.
    :ivar days: how many days have counts.
    """

    messages: int
    oldest: int
    newest: int
    days: int


def condition(database: Database) -> Condition:
    """Look at a database. It takes seconds if there are millions of messages.

    :raises UnavailableError: it cannot be used now.
    """
    with database.reading() as connection:
        number, oldest, newest = connection.execute(
            select(func.count(), func.min(messages.c.time), func.max(messages.c.time)).select_from(messages)
        ).one()
        days = connection.execute(select(func.count(func.distinct(counts.c.day)))).scalar()
    return Condition(number, oldest or 0, newest or 0, days or 0)
