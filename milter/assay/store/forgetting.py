# SPDX-License-Identifier: GPL-3.0-or-later
"""Find and remove all that the database has about a person or a domain.

A message goes whole, with what it says about others. What is only counted of it stays: a count of a client or of an
outcome identifies no person.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence

import msgspec
from msgspec import Struct
from sqlalchemy import Column, ColumnElement, Connection, Table, delete, exists, func, literal, or_, select, true

from assay.store import received_counts, schema
from assay.store.database import Database
from assay.store.outbox import ReportState
from assay.store.writer import folded

STEP_ROWS = 500  # messages of one transaction, our choice: as many as a batch writes


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

    :ivar named: whom each row must also name in a column with JSON: what SQL alone cannot say.
    :ivar take_back: takes back what was added up of rows, by their ids, while they are there.
    """

    kind: str
    table: Table
    condition: ColumnElement[bool]
    owned: tuple[Column[object], ...] = ()
    named: _Named | None = None
    take_back: Callable[[Connection, Sequence[bytes]], None] | None = None


class _Named(Struct, frozen=True):
    """An address in a column with JSON."""

    column: Column[str]
    address: re.Pattern[str]

    def is_in(self, text: str) -> bool:
        return any(self.address.search(each) for each in _texts(msgspec.json.decode(text)))


def count(database: Database, whom: Whom) -> tuple[Forgotten, ...]:
    """What there is.

    :raises UnavailableError: the database cannot be used now.
    """
    with database.reading() as connection:
        return tuple(Forgotten(place.kind, _count(connection, place)) for place in _places(whom))


def forget(database: Database, whom: Whom) -> tuple[Forgotten, ...]:
    """Remove it, messages in steps, so that a writer does not wait long. In SQLite, its octets are overwritten.

    :returns: what was removed.
    :raises UnavailableError: the database cannot be used now; a part may have been removed.
    """
    found = tuple(Forgotten(place.kind, _remove(database, place)) for place in _places(whom))
    database.empty_log()
    return found


def _count(connection: Connection, place: _Place) -> int:
    if place.named is None:
        return connection.execute(select(func.count()).select_from(place.table).where(place.condition)).scalar_one()
    texts = connection.execute(select(place.named.column).where(place.condition)).scalars()
    return sum(map(place.named.is_in, texts))


def _remove(database: Database, place: _Place) -> int:
    removed = 0
    keys = tuple(place.table.primary_key.columns)
    last: bytes | str = b""
    while True:
        with database.writing() as connection:
            if not place.owned:
                return removed + connection.execute(delete(place.table).where(place.condition)).rowcount
            key = keys[0]
            text = literal("") if place.named is None else place.named.column
            chosen = select(key, text).where(place.condition).order_by(key).limit(STEP_ROWS)
            if last:
                chosen = chosen.where(key > last)
            rows = connection.execute(chosen).all()
            found = [key for key, text in rows if place.named is None or place.named.is_in(text)]
            if rows:
                last = rows[-1][0]
            if found:
                if place.take_back is not None:
                    place.take_back(connection, found)
                for column in place.owned:
                    connection.execute(delete(column.table).where(column.in_(found)))
                connection.execute(delete(place.table).where(key.in_(found)))
        removed += len(found)
        if len(rows) < STEP_ROWS:
            return removed


def _places(whom: Whom) -> tuple[_Place, ...]:
    return _of_address(folded(whom.address)) if whom.address else _of_domain(whom.domain)


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
    if not domain:  # a login name may be any word, which a report may contain for other reasons
        return of_messages, _WAITING_HEADERS
    return (
        of_messages,
        _received(
            "failure reports that came in and contain the address",
            (reports.kind == "failure") & func.lower(reports.report).contains(_ascii(domain), autoescape=True),
            _Named(reports.report, _pattern(address)),
        ),
        # Their content is octets, in any encoding: what cannot be read cannot be searched, so all of a sender's go.
        _Place(
            f"reports that came in and could not be read, all that {domain} sent",
            schema.unreadable_reports,
            unreadable.sender == domain,
        ),
        _WAITING_HEADERS,
        _destinations(func.lower(schema.deliveries.c.address).in_((address, f"mailto:{address}"))),
    )


def _pattern(address: str) -> re.Pattern[str]:
    """Finds an address in a text, but not in a longer one: ann@x.example is not in jo-ann@x.example.

    Of the other characters that a local part may have (RFC 5322, 3.2.3), most surround addresses more often than they
    are in one: `=` in a property, `'` as a quote.
    """
    return re.compile(rf"(?<![\w.+-])(?<!\w'){re.escape(address)}(?![\w-]|\.\w)", re.IGNORECASE)


def _ascii(domain: str) -> str:
    """Its end that every database and JSON write alike."""
    return re.search(r"[a-z0-9.-]*\Z", domain)[0]  # type: ignore[index]  # it matches every text


def _texts(value: object) -> Iterator[str]:
    """All texts in a value of JSON."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        inside: Iterable[object] = [*value, *value.values()] if isinstance(value, dict) else value
        for each in inside:
            yield from _texts(each)


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
