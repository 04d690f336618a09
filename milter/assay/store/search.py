# SPDX-License-Identifier: GPL-3.0-or-later
"""Find single messages, newest first, a page at a time.

A page begins where the one before it ended (its last time and id), so a later page costs no more than the first. What
has no index of its own is looked for among `MAX_LOOKED_AT` messages at a time, and the answer says where to go on.
"""

from __future__ import annotations

import binascii
from collections.abc import Iterator
from typing import Any

import msgspec
from msgspec import Struct
from sqlalchemy import ColumnElement, Select, and_, exists, not_, or_, select, tuple_, union

from assay.store.database import Database
from assay.store.overview import MAX_SUBJECTS
from assay.store.rows import AnswerRow, FindingRow
from assay.store.schema import addresses, answers, findings, messages, published
from assay.store.writer import folded

MAX_LOOKED_AT = 20_000  # messages without an index for what is asked, our choice: some 50 ms
_SORTED = 2_000  # messages of one address, which has no index by time
MAX_ROWS = 500  # of one page
NOT_TAKEN = "deferred"  # in place of a disposition, of messages that have none
ANY = "*"  # in place of an author domain, of messages that have one
UNDECIDED = "none"  # in place of a key or rule, of messages that none decided on

_MESSAGE = (
    messages.c.id, messages.c.time, messages.c.host, messages.c.queue, messages.c.stage, messages.c.direction,
    messages.c.client, messages.c.sender_domain, messages.c.author_domain, messages.c.action, messages.c.decided_by,
    messages.c.dmarc_result, messages.c.sender, messages.c.author, messages.c.subject,
)  # fmt: skip


class Criteria(Struct, frozen=True):
    """What a message must have; empty texts say nothing.

    :ivar since: Unix milliseconds; `until` likewise, and not itself among them. 0: no bound.
    :ivar domain: of the author or of the sender, as an A-label.
    :ivar address: a whole address of a sender, author, recipient or user who logged in.
    :ivar disposition: or `NOT_TAKEN`, of messages that have none.
    :ivar finding: a finding's key, with `result` its result.
    :ivar watched: a key or rule in dry run, which would have done something; `would` is the action.
    :ivar author_domains: one of these.
    :ivar reported: it is in a record of an aggregate report: pass, or fail, or any.
    :ivar published: one of these DMARC records applied: ids of `published`; `group` is that of the record of a report.
    """

    since: int = 0
    until: int = 0
    queue: str = ""
    message_id: str = ""
    sender_domain: str = ""
    author_domain: str = ""
    domain: str = ""
    client: str = ""
    address: str = ""
    host: str = ""
    direction: str = ""
    action: str = ""
    by: str = ""
    dmarc: str = ""
    disposition: str = ""
    finding: str = ""
    result: str = ""
    watched: str = ""
    would: str = ""
    author_domains: tuple[str, ...] = ()
    reported: str = ""
    published: tuple[int, ...] = ()
    group: int | None = None


class Cursor(Struct, frozen=True):
    """Where a page of messages ends: the time and the id of its last."""

    time: int
    id: bytes

    @classmethod
    def parse(cls, text: str) -> Cursor | None:
        """Read what `str` wrote; None for anything else."""
        time, _, identity = text.partition("-")
        try:
            return cls(int(time), binascii.unhexlify(identity)) if time.isdecimal() and len(time) < 19 else None
        except ValueError:
            return None

    def __str__(self) -> str:
        return f"{self.time}-{self.id.hex()}"


class MessageSummary(Struct, frozen=True):
    """One message of a list. The members are those of `MessageRow`."""

    id: bytes
    time: int
    host: str
    queue: str
    stage: str
    direction: str
    client: str
    sender_domain: str
    author_domain: str
    action: str
    by: str
    dmarc: str
    sender: str
    author: str
    subject: str


class FoundMessages(Struct, frozen=True):
    """A page of messages.

    :ivar further: where to go on; None if there is nothing further.
    :ivar looked_at: how many messages were looked at, if that is why the page ended.
    """

    messages: tuple[MessageSummary, ...]
    further: Cursor | None = None
    looked_at: int = 0


class StoredMessage(Struct, frozen=True):
    """All that is kept of one message.

    :ivar values: the columns of the table `messages`, and `record`, the DMARC record that applied.
    :ivar addresses: pairs of role and address.
    """

    id: bytes
    values: dict[str, str | int | bool]
    findings: tuple[FindingRow, ...]
    addresses: tuple[tuple[str, str], ...]
    watched: tuple[tuple[str, str], ...] = ()
    waits: tuple[tuple[str, int], ...] = ()
    reasons: tuple[tuple[str, str], ...] = ()
    recipient_domains: tuple[str, ...] = ()
    answers: tuple[AnswerRow, ...] = ()
    further_answers: int = 0


def find(database: Database, criteria: Criteria, *, after: Cursor | None = None, most: int = 50) -> FoundMessages:
    """A page of messages.

    :param after: where the page before it ended.
    :param most: at most `MAX_ROWS`.
    :raises UnavailableError: the database cannot be used now.
    """
    most = min(most, MAX_ROWS)
    with database.reading() as connection:
        found = connection.execute(statement(criteria, after, most + 1)).all()
        rows = tuple(MessageSummary(bytes(identity), *values) for identity, *values in found[:most])
        if len(found) > most:
            return FoundMessages(rows, Cursor(rows[-1].time, rows[-1].id))
        if not _rest(criteria):
            return FoundMessages(rows)
        window = _window(criteria, after, MAX_LOOKED_AT).order_by(messages.c.time.desc(), messages.c.id.desc())
        looked_at = _SORTED if criteria.address else MAX_LOOKED_AT
        last = connection.execute(window.offset(looked_at - 1).limit(1)).first()
    if last is None:
        return FoundMessages(rows)
    return FoundMessages(rows, Cursor(last.time, bytes(last.id)), looked_at)


def statement(criteria: Criteria, after: Cursor | None, most: int) -> Select[Any]:
    """The statement of `find`."""
    newest = (messages.c.time.desc(), messages.c.id.desc())
    rest = _rest(criteria)
    if not rest:
        return _window(criteria, after, most, *_MESSAGE).order_by(*newest).limit(most)
    window = _window(criteria, after, MAX_LOOKED_AT).order_by(*newest).limit(MAX_LOOKED_AT).subquery()
    return select(*_MESSAGE).where(messages.c.id.in_(select(window.c.id)), and_(*rest)).order_by(*newest).limit(most)


def message(database: Database, identity: bytes) -> StoredMessage | None:
    """All that is kept of a message; None if it is not there (any more).

    :raises UnavailableError: the database cannot be used now.
    """
    with database.reading() as connection:
        row = connection.execute(select(messages).where(messages.c.id == identity)).mappings().first()
        if row is None:
            return None
        values = {name: value for name, value in row.items() if name != "id"}
        record = connection.execute(select(published.c.record).where(published.c.id == values.pop("published")))
        values["record"] = record.scalar() or ""
        of_findings = select(findings).where(findings.c.message == identity).order_by(findings.c.number)
        found = tuple(FindingRow(*tuple(each)[2:]) for each in connection.execute(of_findings))
        of_addresses = (
            select(addresses.c.role, addresses.c.address)
            .where(addresses.c.message == identity)
            .order_by(addresses.c.role, addresses.c.number)
        )
        asked = connection.execute(select(answers).where(answers.c.message == identity)).first()
        people = tuple((role, address) for role, address in connection.execute(of_addresses))
    lists = {name: _tuples(values.pop(name)) for name in ("watched", "waits", "reasons", "recipient_domains")}
    if asked is not None:
        lists |= {"answers": answers_of(asked.answers), "further_answers": asked.further_answers}
    return StoredMessage(identity, values, found, people, **lists)


def answers_of(text: str) -> tuple[AnswerRow, ...]:
    """The answers in a row of the table `answers`."""
    return msgspec.json.decode(text, type=tuple[AnswerRow, ...]) if text else ()


def identity_of(text: str) -> bytes | None:
    """The id that a text of hexadecimal digits names; None if it names none."""
    try:
        return binascii.unhexlify(text) if len(text) == 32 else None
    except ValueError:
        return None


def _first_id(milliseconds: int) -> bytes:
    return milliseconds.to_bytes(6, "big").ljust(16, b"\0")


def _tuples(text: str) -> Any:
    rows = msgspec.json.decode(text) if text else ()
    return tuple(tuple(row) if isinstance(row, list) else row for row in rows)


def _window(criteria: Criteria, after: Cursor | None, most: int, *columns: Any) -> Select[Any]:
    """The messages that the indexes lead to.

    :param most: how many of them are needed.
    """
    conditions: list[ColumnElement[bool]] = []
    if criteria.since:
        conditions.append(messages.c.time >= criteria.since)
    if criteria.until:
        conditions.append(messages.c.time < criteria.until)
    for name in ("queue", "message_id", "sender_domain", "author_domain", "client"):
        if (value := getattr(criteria, name)) and (name, value) != ("author_domain", ANY):
            conditions.append(messages.c[name] == value)
    if criteria.address:
        # One address may have several roles in a message.
        whose = select(addresses.c.message).distinct().where(addresses.c.folded == folded(criteria.address))
        # Ids begin with the time, so they bound it here, before the newest are taken.
        if criteria.since:
            whose = whose.where(addresses.c.message >= _first_id(criteria.since))
        if criteria.until:
            whose = whose.where(addresses.c.message < _first_id(criteria.until))
        if after is not None:
            whose = whose.where(addresses.c.message < after.id)
        conditions.append(messages.c.id.in_(whose.order_by(addresses.c.message.desc()).limit(_SORTED)))
    if after is not None:
        conditions.append(messages.c.time <= after.time)
        conditions.append(tuple_(messages.c.time, messages.c.id) < tuple_(after.time, after.id))
    if criteria.domain:  # each of the two has an index; with OR, all of the domain's messages would be sorted
        both = [
            select(messages.c.id)
            .where(messages.c[name] == criteria.domain, *conditions)
            .order_by(messages.c.time.desc(), messages.c.id.desc())
            .limit(MAX_LOOKED_AT if _rest(criteria) else most)
            .subquery()
            for name in ("author_domain", "sender_domain")
        ]
        conditions = [messages.c.id.in_(union(*(select(each.c.id) for each in both)))]
    chosen = columns or (messages.c.id, messages.c.time)
    return select(*chosen).where(*conditions)


def _rest(criteria: Criteria) -> list[ColumnElement[bool]]:
    """What no index leads to."""
    conditions: list[ColumnElement[bool]] = [
        messages.c[column] == value
        for column, value in (
            ("host", criteria.host),
            ("direction", criteria.direction),
            ("action", criteria.action),
            ("decided_by", "" if criteria.by == UNDECIDED else criteria.by),
            ("disposition", "" if criteria.disposition == NOT_TAKEN else criteria.disposition),
            ("dmarc_result", "" if criteria.dmarc == "none" else criteria.dmarc),
        )
        if value
    ]
    if criteria.dmarc == "none":  # as in the counts: also mail without a finding of it
        conditions.append(messages.c.dmarc_result.in_(("", "none")))
    if criteria.by == UNDECIDED:
        conditions.append(messages.c.decided_by == "")
    if criteria.author_domain == ANY:
        conditions.append(messages.c.author_domain != "")
    if criteria.author_domains:
        conditions.append(messages.c.author_domain.in_(criteria.author_domains[:MAX_SUBJECTS]))
    if criteria.disposition == NOT_TAKEN:
        conditions.append(messages.c.disposition == "")
    if criteria.finding or criteria.result:
        of = [findings.c.message == messages.c.id]
        if criteria.finding:
            of.append(findings.c.key == criteria.finding)
        if criteria.result:
            of.append(findings.c.result == criteria.result)
        conditions.append(exists().where(*of))
    if criteria.watched or criteria.would:
        # Of pairs of action and key in JSON: a whole one, or its end, or its beginning.
        would, watched = (msgspec.json.encode(text).decode() for text in (criteria.would, criteria.watched))
        beginning = f"[{would}," if criteria.would else ","
        pair = f"{beginning}{watched}]" if criteria.watched else beginning
        conditions.append(messages.c.watched.contains(pair, autoescape=True))
    return [*conditions, *_of_reports(criteria)]


def _of_reports(criteria: Criteria) -> Iterator[ColumnElement[bool]]:
    """What aggregate reports are made of."""
    aligned = or_(messages.c.dkim_aligned, messages.c.spf_aligned)
    if criteria.reported or criteria.published:
        # RFC 9990, 3.1.1.8: a record has an address.
        yield and_(messages.c.published.is_not(None), messages.c.disposition != "", messages.c.client != "")
    if criteria.reported == "pass":
        yield aligned
    if criteria.reported == "fail":
        yield not_(aligned)
    if criteria.published:
        yield messages.c.published.in_(criteria.published)
    if criteria.group is not None:
        yield messages.c.report_group == criteria.group
