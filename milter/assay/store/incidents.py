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
from assay.store.rows import DmarcRow, IncidentRow, MessageRow, PublishedRow
from assay.store.schema import incidents, reports

COLLECT_SECONDS = 600  # from the first message to the report, our choice: a burst of forgeries is one report
KEPT_SECONDS = DAY_SECONDS  # our choice
MAX_WAITING = 1000  # reports that wait, our choice: some 20 MB with their headers
MAX_WAITING_OF_A_DOMAIN = 50  # likewise about one policy domain


class Incident(Struct, frozen=True, array_like=True):
    """The first message of a report, and what all of them have in common.

    :ivar arrival: Unix time in seconds.
    :ivar spf_text: the SPF record at ``row.spf_domain``; None before it was looked up.
    :ivar host: the authserv-id of the host that took it.
    """

    author_domain: str
    client: str
    queue: str
    arrival: int
    dkim_aligned: bool
    spf_aligned: bool
    row: IncidentRow
    spf_text: str | None = None
    host: str = ""


class _Failing(Struct, frozen=True):
    """A message that a report is about, with the parts of its row that it then has."""

    row: MessageRow
    dmarc: DmarcRow
    incident: IncidentRow


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Incident)


def add(connection: Connection, rows: Sequence[MessageRow], identities: Mapping[PublishedRow, int], now: int) -> None:
    """Start reports about messages, or count these in reports that wait.

    :param rows: those without what a failure report needs are passed over.
    :param identities: the id of each DMARC record.
    :param now: Unix time in seconds.
    """
    found: dict[str, list[_Failing]] = {}
    for row in rows:
        if row.dmarc is None or row.incident is None or row.time // 1000 < now - KEPT_SECONDS:
            continue  # the last was in a spool for long, and nobody waits for it
        failing = _Failing(row, row.dmarc, row.incident)
        found.setdefault(_report_id(failing), []).append(failing)
    waiting: Counter[str] | None = None  # counted once: a flood of failures has hundreds of kinds in a batch
    for identifier, several in sorted(found.items()):  # sorted: hosts lock rows in the same order
        if _count(connection, identifier, len(several)):
            continue
        if waiting is None:
            waiting = _waiting(connection)
        first = min(several, key=lambda failing: failing.row.time)
        domain = first.dmarc.published.domain
        if waiting.total() < MAX_WAITING and waiting[domain] < MAX_WAITING_OF_A_DOMAIN:
            waiting[domain] += 1
            _start(connection, identifier, first, len(several), identities, now)


def _report_id(failing: _Failing) -> str:
    """The same for messages that failed in the same way at about the same time."""
    row, dmarc, incident = failing.row, failing.dmarc, failing.incident
    alike = (
        row.time // (COLLECT_SECONDS * 1000),
        dmarc.published,
        dmarc.dkim_aligned,
        dmarc.spf_aligned,
        row.author_domain,
        row.client,
        incident.failure,
        incident.delivery,
        incident.signature,
        incident.spf_domain,
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
    first: _Failing,
    messages: int,
    identities: Mapping[PublishedRow, int],
    now: int,
) -> None:
    row, dmarc = first.row, first.dmarc
    arrival = row.time // 1000
    planned = OutgoingReport(
        identifier,
        arrival // DAY_SECONDS,
        dmarc.published.domain,
        (identities[dmarc.published],),
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
    incident = Incident(
        row.author_domain,
        row.client,
        row.queue,
        arrival,
        dmarc.dkim_aligned,
        dmarc.spf_aligned,
        first.incident,
        host=row.host,
    )
    connection.execute(incidents.insert().values(report=identifier, time=row.time, content=_encoder.encode(incident)))


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
