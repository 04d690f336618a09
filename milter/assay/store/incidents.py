# SPDX-License-Identifier: GPL-3.0-or-later
"""What failure reports are made of: messages that failed in the same way are one report, which counts them.

The aim is not to count each failure, but to report different failure conditions (RFC 9991, 7.1). So the first message
of a kind starts a report, which is sent some minutes later and holds its header; those that follow until then only
raise its count. What it is made of is removed when the report has come to its end, and after a day at the latest.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from hashlib import blake2b

import msgspec
from msgspec import Struct
from sqlalchemy import Connection, delete, func, select, update

from assay.store.outbox import DAY_SECONDS, OutgoingReport, ReportKind, ReportState, insert_report
from assay.store.rows import IncidentRow, MessageRow, PublishedRow
from assay.store.schema import incidents, reports

COLLECT_SECONDS = 600  # from the first message to the report, our choice: a burst of forgeries is one report
KEPT_SECONDS = DAY_SECONDS  # our choice
MAX_WAITING = 1000  # reports that wait, our choice: some 20 MB with their headers
MAX_WAITING_OF_A_DOMAIN = 50  # likewise about one policy domain


class Incident(Struct, frozen=True, array_like=True):
    """The first message of a report, and what all of them have in common.

    :ivar arrival: Unix time in seconds.
    :ivar spf_text: the SPF record at ``row.spf_domain``; None before it was looked up.
    """

    author_domain: str
    client: str
    queue: str
    arrival: int
    dkim_aligned: bool
    spf_aligned: bool
    row: IncidentRow
    spf_text: str | None = None


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Incident)


def add(connection: Connection, rows: Sequence[MessageRow], identities: Mapping[PublishedRow, int], now: int) -> None:
    """Start reports about messages, or count these in reports that wait.

    :param rows: with what a failure report needs.
    :param identities: the id of each DMARC record.
    :param now: Unix time in seconds.
    """
    found: dict[str, list[MessageRow]] = {}
    for row in rows:
        if row.time // 1000 >= now - KEPT_SECONDS:  # others were in a spool for long, and nobody waits for them
            found.setdefault(_report_id(row), []).append(row)
    waiting: Counter[str] | None = None  # counted once: a flood of failures has hundreds of kinds in a batch
    for identifier, several in sorted(found.items()):  # sorted: hosts lock rows in the same order
        if _count(connection, identifier, len(several)):
            continue
        if waiting is None:
            waiting = _waiting(connection)
        first = min(several, key=lambda row: row.time)
        assert first.dmarc is not None  # noqa: S101  # see _report_id
        domain = first.dmarc.published.domain
        if waiting.total() < MAX_WAITING and waiting[domain] < MAX_WAITING_OF_A_DOMAIN:
            waiting[domain] += 1
            _start(connection, identifier, first, len(several), identities, now)


def _report_id(row: MessageRow) -> str:
    """The same for messages that failed in the same way at about the same time."""
    assert row.dmarc is not None  # noqa: S101  # as with all that have an incident
    assert row.incident is not None  # noqa: S101  # as the caller has seen
    alike = (
        row.time // (COLLECT_SECONDS * 1000),
        row.dmarc.published,
        row.dmarc.dkim_aligned,
        row.dmarc.spf_aligned,
        row.author_domain,
        row.client,
        row.incident.failure,
        row.incident.delivery,
        row.incident.signature,
        row.incident.spf_domain,
    )
    return blake2b(msgspec.json.encode(alike), digest_size=16).hexdigest()


def _count(connection: Connection, identifier: str, messages: int) -> bool:
    """Count messages in a report, unless it is being sent already. Returns whether there is such a report."""
    changed = connection.execute(
        update(reports)
        .where(reports.c.id == identifier, reports.c.state == ReportState.WAITING, reports.c.octets == 0)
        .values(messages=reports.c.messages + messages)
    )
    return bool(changed.rowcount) or bool(
        connection.execute(select(reports.c.id).where(reports.c.id == identifier)).first()
    )


def _start(
    connection: Connection,
    identifier: str,
    first: MessageRow,
    messages: int,
    identities: Mapping[PublishedRow, int],
    now: int,
) -> None:
    assert first.dmarc is not None  # noqa: S101  # see _report_id
    assert first.incident is not None  # noqa: S101
    arrival = first.time // 1000
    planned = OutgoingReport(
        identifier,
        arrival // DAY_SECONDS,
        first.dmarc.published.domain,
        (identities[first.dmarc.published],),
        ReportState.WAITING,
        "",
        arrival + COLLECT_SECONDS,
        arrival,
        now,
        messages,
        0,
        ReportKind.FAILURE,
    )
    if not insert_report(connection, planned):  # another host was faster
        _count(connection, identifier, messages)
        return
    dmarc = first.dmarc
    incident = Incident(
        first.author_domain, first.client, first.queue, arrival, dmarc.dkim_aligned, dmarc.spf_aligned, first.incident
    )
    connection.execute(incidents.insert().values(report=identifier, time=first.time, content=_encoder.encode(incident)))


def _waiting(connection: Connection) -> Counter[str]:
    """How many failure reports wait about each policy domain."""
    query = select(reports.c.domain, func.count()).where(
        reports.c.state == ReportState.WAITING, reports.c.kind == ReportKind.FAILURE
    )
    return Counter({domain: int(count) for domain, count in connection.execute(query.group_by(reports.c.domain))})


def incident_of(connection: Connection, identifier: str) -> Incident | None:
    """What a report is made of, None if it is gone."""
    content = connection.execute(select(incidents.c.content).where(incidents.c.report == identifier)).scalar()
    return None if content is None else _decoder.decode(content)


def change(connection: Connection, identifier: str, incident: Incident) -> None:
    """Write what a report is made of."""
    connection.execute(
        update(incidents).where(incidents.c.report == identifier).values(content=_encoder.encode(incident))
    )


def remove(connection: Connection, identifier: str) -> None:
    """Remove what a report was made of."""
    connection.execute(delete(incidents).where(incidents.c.report == identifier))
