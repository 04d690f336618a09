# SPDX-License-Identifier: GPL-3.0-or-later
"""Addresses that get no reports, and domains: no report goes to them or is about them, for a time or for ever.

A domain stands for all below it too, as in the file ``reports.suppress``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from msgspec import Struct
from sqlalchemy import Connection, and_, delete, or_, select

from assay.model.name import Domain, InvalidNameError, parse_mailbox
from assay.store.outbox import MAX_TEXT
from assay.store.schema import suppressions
from assay.store.statements import insert_into

MAX_DAYS = 36_500  # of a suppression that ends


class Suppression(Struct, frozen=True):
    """A row of `suppressions`."""

    subject: str
    until: int
    why: str
    added: int


def subject_of(text: str) -> str:
    """The subject of a suppression: an address in lower case, or a domain as an A-label.

    :raises InvalidNameError: it is neither, such as a URI, several addresses, or one with a name.
    """
    if "@" not in text:
        return Domain.parse_host(text).name
    if not text.isprintable():
        raise InvalidNameError("a character that does not print")
    mailbox = parse_mailbox(text)
    Domain.parse_host(mailbox.domain.name)
    subject = str(mailbox).lower()
    if subject.startswith('"') and not text.startswith('"'):
        raise InvalidNameError("a local part with a character that needs quotes")
    return subject


def suppress(connection: Connection, added: Suppression) -> None:
    """Add a suppression, or replace that of the same subject: the operator has the last word."""
    values = _values(added)
    statement = insert_into(connection, suppressions)
    connection.execute(statement.on_conflict_do_update(index_elements=["subject"], set_={**values}), values)


def cool_down(connection: Connection, added: Suppression) -> Suppression:
    """Add a suppression that has an end, unless its subject is suppressed for longer. Returns the one that holds."""
    values, table = _values(added), suppressions.c
    statement = insert_into(connection, suppressions)
    is_shorter = and_(table.until != 0, table.until < added.until)
    connection.execute(
        statement.on_conflict_do_update(index_elements=["subject"], set_={**values}, where=is_shorter), values
    )
    row = connection.execute(select(suppressions).where(table.subject == added.subject)).mappings().one()
    return Suppression(**row)


def _values(suppression: Suppression) -> dict[str, Any]:
    values = {name: getattr(suppression, name) for name in suppression.__struct_fields__}
    return {**values, "why": suppression.why[:MAX_TEXT]}


def unsuppress(connection: Connection, subject: str) -> bool:
    """Remove a suppression. Returns whether there was one."""
    return bool(connection.execute(delete(suppressions).where(suppressions.c.subject == subject)).rowcount)


def suppressed(connection: Connection, subjects: Iterable[str], now: int) -> Suppression | None:
    """The suppression in force of any of some addresses and domains, or of a domain that they are in or below."""
    wanted = {name for subject in subjects for name in _at_or_above(subject)}
    row = (
        connection.execute(
            select(suppressions)
            .where(suppressions.c.subject.in_(wanted), or_(suppressions.c.until == 0, suppressions.c.until > now))
            .order_by(suppressions.c.subject)
        )
        .mappings()
        .first()
    )
    return None if row is None else Suppression(**row)


def all_suppressions(connection: Connection, most: int | None = None) -> list[Suppression]:
    """All of them, or the first ones: also those that are over."""
    query = select(suppressions).order_by(suppressions.c.subject).limit(most)
    return [Suppression(**row) for row in connection.execute(query).mappings()]


def _at_or_above(subject: str) -> Iterator[str]:
    folded = subject.lower()
    if "@" in folded:
        yield folded
    domain = folded.rpartition("@")[2]
    while domain:
        yield domain
        domain = domain.partition(".")[2]
