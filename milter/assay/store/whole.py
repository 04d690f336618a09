# SPDX-License-Identifier: GPL-3.0-or-later
"""Rows as they were written: from the tables back to `MessageRow`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
from sqlalchemy import Connection, select

from assay.store.database import Database
from assay.store.rows import DmarcRow, FindingRow, MessageRow, PublishedRow
from assay.store.schema import addresses, answers, findings, messages, published
from assay.store.search import MAX_ROWS, Criteria, answers_of, find


def exported(database: Database, criteria: Criteria) -> Iterator[MessageRow]:
    """All messages that the criteria choose, newest first, in pages of transactions of their own.

    :raises UnavailableError: the database cannot be used now.
    """
    after = None
    while True:
        page = find(database, criteria, after=after, most=MAX_ROWS)
        with database.reading() as connection:
            yield from rows(connection, [summary.id for summary in page.messages])
        if (after := page.further) is None:
            return


def rows(connection: Connection, identities: Sequence[bytes]) -> list[MessageRow]:
    """The rows with these ids, in this order. Those that are gone are left out."""
    if not identities:
        return []
    of_findings: dict[bytes, list[FindingRow]] = defaultdict(list)
    for identity, _, *values in connection.execute(
        select(findings).where(findings.c.message.in_(identities)).order_by(findings.c.message, findings.c.number)
    ):
        of_findings[bytes(identity)].append(FindingRow(*values))
    recipients: dict[bytes, list[str]] = defaultdict(list)
    for identity, address in connection.execute(
        select(addresses.c.message, addresses.c.address)
        .where(addresses.c.message.in_(identities), addresses.c.role == "recipient")
        .order_by(addresses.c.message, addresses.c.number)
    ):
        recipients[bytes(identity)].append(address)
    asked = {
        bytes(identity): (answers_of(text), further)
        for identity, text, further in connection.execute(select(answers).where(answers.c.message.in_(identities)))
    }
    records = [column.label(f"published_{column.name}") for column in (published.c.domain, published.c.record)]
    query = select(messages, *records, published.c.method.label("published_method")).outerjoin_from(
        messages, published, messages.c.published == published.c.id
    )
    found = {}
    for row in connection.execute(query.where(messages.c.id.in_(identities))).mappings():
        identity = bytes(row["id"])
        of_dns, left_out = asked.get(identity, ((), 0))
        columns = {**row, "answers": of_dns, "further_answers": left_out}
        found[identity] = _row(columns, tuple(of_findings[identity]), tuple(recipients[identity]))
    return [found[identity] for identity in identities if identity in found]


def _row(values: dict[str, Any], of_findings: tuple[FindingRow, ...], recipients: tuple[str, ...]) -> MessageRow:
    dmarc = None
    if values["published"] is not None:
        record = [values[f"published_{name}"] or "" for name in ("domain", "record", "method")]
        dmarc = DmarcRow(
            PublishedRow(*record),
            values["policy"],
            values["disposition"],
            values["dkim_aligned"],
            values["spf_aligned"],
            _pairs(values["reasons"]),
        )
    values |= {
        "id": bytes(values["id"]),
        "by": values["decided_by"],
        "findings": of_findings,
        "recipients": recipients,
        "dmarc": dmarc,
        "watched": _pairs(values["watched"]),
        "waits": _pairs(values["waits"]),
        "recipient_domains": tuple(_listed(values["recipient_domains"])),
        "incident": None,
    }
    return MessageRow(**{name: values[name] for name in MessageRow.__struct_fields__})


def _listed(text: str) -> list[Any]:
    found: list[Any] = msgspec.json.decode(text) if text else []
    return found


def _pairs(text: str) -> tuple[Any, ...]:
    return tuple(map(tuple, _listed(text)))
