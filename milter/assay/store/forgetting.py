# SPDX-License-Identifier: GPL-3.0-or-later
"""Find and remove all that the database has about a person or a domain.

A message goes whole, with what it says about others. What is only counted of it stays: a count of a client or of an
outcome identifies no person.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from typing import Any

import msgspec
from msgspec import Struct
from sqlalchemy import Column, ColumnElement, Connection, Table, delete, exists, func, or_, select, true

from assay.store import emptying, received_counts, schema
from assay.store.database import Database
from assay.store.outbox import ReportState
from assay.store.writer import folded
from assay.store.written_address import ascii_end, pattern, texts_in, texts_of

STEP_ROWS = 500  # messages of one transaction, our choice: as many as a batch writes
STEP_CONTENTS = 20  # unreadable reports of one that are searched, our choice: 2 MB


class Whom(Struct, frozen=True):
    """Whom to forget: an address or login name, or a domain (an A-label) with all below it. The other one is empty."""

    address: str = ""
    domain: str = ""

    def __post_init__(self) -> None:
        """:raises ValueError: neither or both. An empty text would be found in nearly every row."""
        if bool(folded(self.address)) == bool(self.domain):
            raise ValueError("an address or a domain, one of them")
        if "@" in self.address and not all(folded(self.address).rpartition("@")[::2]):
            raise ValueError("an address needs a local part and a domain")


class Forgotten(Struct, frozen=True):
    """How many rows of a kind there are, or were. `kind` is a word for people."""

    kind: str
    count: int


class _Place(Struct, frozen=True):
    """Rows of a table, and those of other tables that are theirs: columns with the id of a row.

    :ivar named: whom each row must also name: what SQL alone cannot say.
    :ivar take_back: takes back what was added up of rows, by their ids, while they are there.
    :ivar most: how many rows are looked at in one transaction; 0 for `STEP_ROWS`.
    """

    kind: str
    table: Table
    condition: ColumnElement[bool]
    owned: tuple[Column[object], ...] = ()
    named: _Named | None = None
    take_back: Callable[[Connection, Sequence[bytes]], None] | None = None
    most: int = 0


class _Named(Struct, frozen=True):
    """An address in columns, whose values `texts` takes apart."""

    columns: tuple[Column[Any], ...]
    texts: Callable[..., Iterable[str]]
    address: re.Pattern[str]

    def is_in(self, values: Sequence[Any]) -> bool:
        return any(self.address.search(text) for text in self.texts(*values))


def count(database: Database, whom: Whom) -> tuple[Forgotten, ...]:
    """What there is.

    :raises UnavailableError: the database cannot be used now.
    """
    address = _mail_address(whom)
    with database.reading() as connection:
        found = tuple(Forgotten(place.kind, _count(connection, place)) for place in _places(whom))
        return (*found, Forgotten(_EMPTIED, emptying.count(connection, address))) if address else found


def forget(database: Database, whom: Whom) -> tuple[Forgotten, ...]:
    """Remove it, messages in steps, so that a writer does not wait long. In SQLite, its octets are overwritten.

    Aggregate and TLS reports stay, without the address.

    :returns: what was removed.
    :raises UnavailableError: the database cannot be used now; a part may have been removed.
    """
    address = _mail_address(whom)
    found = tuple(Forgotten(place.kind, _remove(database, place)) for place in _places(whom))
    if address:
        found = (*found, Forgotten(_EMPTIED, emptying.empty(database, address)))
    database.empty_log()
    return found


def _count(connection: Connection, place: _Place) -> int:
    if place.named is None:
        return connection.execute(select(func.count()).select_from(place.table).where(place.condition)).scalar_one()
    rows = connection.execute(
        select(*place.named.columns).where(place.condition).execution_options(yield_per=place.most or STEP_ROWS)
    )
    return sum(map(place.named.is_in, rows))


def _remove(database: Database, place: _Place) -> int:
    removed = 0
    most = place.most or STEP_ROWS
    keys = tuple(place.table.primary_key.columns)
    last: bytes | str = b""
    while True:
        with database.writing() as connection:
            if not place.owned and place.named is None:
                return removed + connection.execute(delete(place.table).where(place.condition)).rowcount
            key = keys[0]
            searched = () if place.named is None else place.named.columns
            chosen = select(key, *searched).where(place.condition).order_by(key).limit(most)
            if last:
                chosen = chosen.where(key > last)
            rows = connection.execute(chosen).all()
            found = [key for key, *values in rows if place.named is None or place.named.is_in(values)]
            if rows:
                last = rows[-1][0]
            if found:
                if place.take_back is not None:
                    place.take_back(connection, found)
                for column in place.owned:
                    connection.execute(delete(column.table).where(column.in_(found)))
                connection.execute(delete(place.table).where(key.in_(found)))
        removed += len(found)
        if len(rows) < most:
            return removed


def _places(whom: Whom) -> tuple[_Place, ...]:
    return _of_address(folded(whom.address)) if whom.address else _of_domain(whom.domain)


def _mail_address(whom: Whom) -> str:
    """The address; empty for a login name, which may be any word, and which a report may contain for other reasons."""
    return folded(whom.address) if "@" in whom.address else ""


_EMPTIED = "the address in aggregate and TLS reports that came in, which stay"

#: A header has names and addresses in any field and encoding, so all go. The reports about them are given up.
_WAITING_HEADERS = _Place("headers that wait for failure reports, all of them", schema.incidents, true())


def _messages(condition: ColumnElement[bool]) -> _Place:
    owned = (schema.findings.c.message, schema.addresses.c.message, schema.answers.c.message)
    return _Place("messages", schema.messages, condition, owned)


def _destinations(condition: ColumnElement[bool]) -> _Place:
    """Those that a report still has to go to are needed until then; the DNS says in public that they want it."""
    ended = schema.deliveries.c.state.not_in((ReportState.WAITING, ReportState.HANDED_OVER))
    return _Place("destinations that no report waits for", schema.deliveries, condition & ended)


def _received(kind: str, condition: ColumnElement[bool], named: _Named | None = None) -> _Place:
    of_rows = (schema.received_rows.c.report,)
    return _Place(kind, schema.received_reports, condition, of_rows, named, received_counts.take_back)


def _of_address(address: str) -> tuple[_Place, ...]:
    messages, reports, unreadable = schema.messages.c, schema.received_reports.c, schema.unreadable_reports.c
    has_it = exists().where(schema.addresses.c.message == messages.id, schema.addresses.c.folded == address)
    of_messages = _messages(or_(has_it, func.lower(messages.rewritten) == address))
    domain = address.rpartition("@")[2] if "@" in address else ""
    if not domain:
        return of_messages, _WAITING_HEADERS
    written = pattern(address)
    return (
        of_messages,
        _received(
            "failure reports that came in and contain the address",
            (reports.kind == "failure") & func.lower(reports.report).contains(ascii_end(address), autoescape=True),
            _Named((reports.report,), lambda report: texts_of(msgspec.json.decode(report)), written),
        ),
        # Their content may be broken or cut off, so that it cannot be searched: all of a sender's go.
        _Place(
            f"reports that came in and could not be read, all that {domain} sent",
            schema.unreadable_reports,
            unreadable.sender == domain,
        ),
        _Place(
            "other reports that came in and could not be read, with the address",
            schema.unreadable_reports,
            unreadable.sender != domain,
            named=_Named(
                (unreadable.reason, unreadable.content),
                lambda reason, content: chain((reason,), texts_in(bytes(content))),
                written,
            ),
            most=STEP_CONTENTS,
        ),
        _WAITING_HEADERS,
        _destinations(func.lower(schema.deliveries.c.address).in_((address, f"mailto:{address}"))),
    )


def _of_domain(domain: str) -> tuple[_Place, ...]:
    def is_it(*columns: Column[object]) -> ColumnElement[bool]:
        return or_(
            *(
                condition
                for column in columns
                for condition in (column == domain, column.endswith(f".{domain}", autoescape=True))
            )
        )

    def is_at(address: Column[str]) -> ColumnElement[bool]:
        return or_(*(func.lower(address).endswith(mark + domain, autoescape=True) for mark in ("@", ".")))

    messages, groups = schema.messages.c, schema.report_groups.c
    recipients = or_(
        *(
            messages.recipient_domains.contains(mark + domain + '"', autoescape=True)
            for mark in ('"', ".")  # JSON
        )
    )
    of_findings = exists().where(schema.findings.c.message == messages.id, is_it(schema.findings.c.domain))
    return (
        _messages(
            or_(
                is_it(
                    messages.sender_domain,
                    messages.author_domain,
                    messages.organizational_domain,
                    messages.client_name,
                    messages.helo,
                    messages.rewritten,
                ),
                recipients,
                of_findings,
            )
        ),
        _Place(
            "counts",
            schema.counts,
            schema.counts.c.kind.in_(("domain", "failing")) & is_it(schema.counts.c.subject),
        ),
        _Place(
            "groups of messages for reports", schema.report_groups, is_it(groups.author_domain, groups.sender_domain)
        ),
        _Place("DMARC records", schema.published, is_it(schema.published.c.domain)),
        _Place("reports that were sent", schema.reports, is_it(schema.reports.c.domain), (schema.deliveries.c.report,)),
        _WAITING_HEADERS,
        _received("reports that came in", is_it(schema.received_reports.c.domain)),
        _Place(
            "reports that came in and could not be read",
            schema.unreadable_reports,
            is_it(schema.unreadable_reports.c.sender),
        ),
        _destinations(or_(is_it(schema.deliveries.c.organization), is_at(schema.deliveries.c.address))),
    )
