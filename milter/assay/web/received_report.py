# SPDX-License-Identifier: GPL-3.0-or-later
"""One report that came in, with links to the messages that we know of."""

from __future__ import annotations

from collections.abc import Iterator

from assay.protocol.report.received import AggregateRow, ReceivedAggregate, ReceivedFailure, ReceivedTls
from assay.store import reporting, search
from assay.store.received import DAY_SECONDS
from assay.store.reporting import FoundReport
from assay.web.parts import Cell, Column, DataTable, Link, Moment, Pairs, Part, Remark, Several, Tone, WebPage
from assay.web.periods import of_day, word
from assay.web.received import sender
from assay.web.site import NotFoundError, Site, WebQuery, address

RECORDS = 100  # at a time


def page(site: Site, query: WebQuery) -> WebPage:
    """One report, by its id."""
    start = query.number("from", 0, 0, 10**6)
    identity = search.identity_of(query.item)
    found = None
    if identity is not None:
        with site.store.database.reading() as connection:
            found = reporting.received_report(connection, identity, start=start, most=RECORDS + 1)
    if found is None:
        raise NotFoundError("there is no such report")
    parts: list[Part] = [*_doubt(found), _told(found)]
    match found.report:
        case ReceivedAggregate() as report:
            further = address(f"{query.path}/{query.item}", **{"from": start + RECORDS})
            parts += _aggregate(found, report, further if len(found.rows) > RECORDS else "")
        case ReceivedFailure() as report:
            parts.append(_failure(report))
        case ReceivedTls() as report:
            parts += _tls(report)
    return WebPage(
        f"Report of {found.summary.organization or '(unnamed)'}",
        tuple(parts),
        f"About {found.summary.domain}.",
    )


def _doubt(found: FoundReport) -> Iterator[Part]:
    if found.summary.sender_dmarc != "pass":
        text = "It is not known who sent this report: its mail did not pass our DMARC check. Anyone can write one."
        yield Remark(text, tone=Tone.DOUBT)


def _told(found: FoundReport) -> Pairs:
    summary, report = found.summary, found.report
    rows: list[tuple[str, Cell]] = [
        ("kind", summary.kind),
        ("organization", summary.organization),
        ("contact", report.contact),
        ("report id", summary.report_id),
        ("mail from", sender(summary.sender, summary.sender_dmarc)),
        ("domain", summary.domain),
        ("begins (UTC)", Moment(summary.begin * 1000)),
        ("ends (UTC)", Moment(summary.end * 1000)),
        ("received (UTC)", Moment(summary.received * 1000)),
        ("passed", summary.good),
        ("failed", summary.bad),
    ]
    return Pairs("report", "Report", tuple(row for row in rows if row[1] != ""))


def _aggregate(found: FoundReport, report: ReceivedAggregate, further: str) -> Iterator[Part]:
    policy = [(name, str(getattr(report.policy, name))) for name in report.policy.__struct_fields__]
    rows: list[tuple[str, Cell]] = [(name, value) for name, value in policy if value]
    rows += [("program", report.generator)] if report.generator else []
    rows += [("its errors", Several(report.errors, apart=True))] if report.errors else []
    if report.left_out:
        rows.append(("records left out", f"{report.left_out:,}, the first because: {report.complaint}"))
    yield Pairs("policy", "The policy that it found, and what it says of itself", tuple(rows))
    columns = (
        Column("client", "client"),
        Column("messages", "messages", numeric=True),
        Column("author", "author domain"),
        Column("sender", "sender domain"),
        Column("disposition", "disposition"),
        Column("aligned", "aligned"),
        Column("dkim", "DKIM", wide=True),
        Column("spf", "SPF", wide=True),
        Column("reasons", "reasons", wide=True),
    )
    table_rows = [_record(each, found.summary.begin, found.summary.end) for each in found.rows[:RECORDS]]
    note = "The client leads to messages from it to us in the same time."
    yield DataTable("records", "Records", columns, table_rows, note=note, further=further)


def _record(row: AggregateRow, begin: int, end: int) -> tuple[Cell, ...]:
    aligned = [name for name, holds in (("DKIM", row.dkim_aligned), ("SPF", row.spf_aligned)) if holds]
    return (
        _messages(row.source, begin, end, client=row.source),
        row.count,
        row.author_domain,
        row.sender_domain,
        word(row.disposition),
        ", ".join(aligned),
        Several(
            tuple(_result(f"{each.selector}._domainkey.{each.domain}", each.result) for each in row.dkim), apart=True
        ),
        Several(tuple(_result(f"{each.scope} {each.domain}", each.result) for each in row.spf), apart=True),
        Several(tuple(f"{each.type}: {each.comment}" for each in row.reasons), apart=True),
    )


def _result(about: str, result: str) -> Several:
    return Several((about, word(result)))


def _messages(shown: str, begin: int, end: int, **criteria: str) -> Cell:
    """A value that leads to our own messages of a period; plain if no calendar has the period."""
    try:
        span = {"since": str(of_day(begin // DAY_SECONDS)), "until": str(of_day(end // DAY_SECONDS))}
    except OverflowError:
        return shown
    return Link(shown, address("/messages", **span, **criteria))


def _failure(report: ReceivedFailure) -> Pairs:
    message_id: Cell = report.message_id
    if report.message_id:
        message_id = Link(report.message_id, address("/messages", q=report.message_id))
    rows: list[tuple[str, Cell]] = [
        ("client", _messages(report.source, report.begin, report.end, client=report.source) if report.source else ""),
        ("Message-ID", message_id),
        ("what failed", ", ".join(report.failures)),
        ("aligned", ", ".join(report.aligned)),
        ("results", report.results),
        ("what became of it", report.delivery),
        ("author domain", report.author_domain),
        ("sender domain", report.sender_domain),
        ("signature", f"{report.dkim_selector}._domainkey.{report.dkim_domain}" if report.dkim_domain else ""),
        ("messages", report.incidents),
    ]
    return Pairs("message", "The message that failed there", tuple(row for row in rows if row[1] != ""))


def _tls(report: ReceivedTls) -> Iterator[Part]:
    columns = (
        Column("domain", "domain"),
        Column("policy", "policy"),
        Column("successful", "successful", numeric=True),
        Column("failed", "failed", numeric=True),
    )
    rows: list[tuple[Cell, ...]] = [(each.domain, each.type, each.successful, each.failed) for each in report.policies]
    yield DataTable("policies", "Sessions by policy", columns, rows)
    failures: list[tuple[Cell, ...]] = [
        (each.result, each.count, policy.domain, each.mx, each.sender, each.receiver, each.reason)
        for policy in report.policies
        for each in policy.failures
    ]
    of_failures = (
        Column("result", "what failed"),
        Column("sessions", "sessions", numeric=True),
        Column("domain", "domain"),
        Column("mx", "MX"),
        Column("sender", "sending address"),
        Column("receiver", "receiving address"),
        Column("reason", "why", wide=True),
    )
    yield DataTable("failures", "Sessions that failed", of_failures, failures[: RECORDS * 10], empty="None.")
