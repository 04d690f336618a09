# SPDX-License-Identifier: GPL-3.0-or-later
"""The reports that went out, and those that did not and why."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice

from assay.model.wording import counted
from assay.store import incidents, outbox, report_deliveries, reporting
from assay.store.database import Database
from assay.store.incidents import Incident
from assay.store.outbox import DAY_SECONDS, Group, OutgoingReport, ReportForm, ReportKind, ReportState
from assay.store.reporting import NotSentSum
from assay.web import periods, suppressing
from assay.web.export import time_text
from assay.web.parts import (
    Cell,
    Choice,
    Code,
    Column,
    DataTable,
    Link,
    Moment,
    Pairs,
    Part,
    Remark,
    SearchForm,
    Several,
    Tone,
    WebPage,
)
from assay.web.periods import day_of, domain_of, last_days, of_day, word
from assay.web.site import NotFoundError, Site, WebQuery, address, rows_of

ROWS = 50
RECORDS = 100  # of one report
_NO_WHY = "no reason was noted"
_FAILED = "failed"  # for the states that the plot has together
_OF_FAILED = (ReportState.REFUSED, ReportState.GIVEN_UP, ReportState.BOUNCED)
_STATES = ("", *map(str, outbox.REPORT_STATES))
_KINDS = ("", *map(str, ReportKind))
_NOT_SENT = (ReportState.NOT_SENT, *_OF_FAILED)
_COLUMNS = (
    Column("day", "day (UTC)"),
    Column("domain", "domain"),
    Column("kind", "kind"),
    Column("report", "report"),
    Column("messages", "messages", numeric=True),
    Column("state", "state"),
    Column("why", "why", wide=True),
)


def page(site: Site, query: WebQuery) -> WebPage:
    """Reports that went out."""
    database, days = site.store.database, last_days(site)
    with database.reading() as connection:
        counted = reporting.sent_daily(connection, days)
        why = reporting.reasons(connection, days, _NOT_SENT)
    figures: dict[tuple[int, str], int] = {}
    for each in counted:
        state = _FAILED if each.word in _OF_FAILED else each.word
        figures[each.day, state] = figures.get((each.day, state), 0) + each.count
    parts: list[Part] = [*_off(site)]
    if figures:
        parts.append(periods.bars("days", "Reports by the day they are about, last 30 days", days, figures, _cell))
    parts += [_reasons(why, days), _form(query), _reports(database, query)]
    parts += suppressing.parts(site, changeable=suppressing.may_change(site))
    return WebPage(
        "Reports sent", tuple(parts), "DMARC reports to the owners of domains: what was sent, what not, why."
    )


def _cell(count: int, days: Sequence[int], state: str) -> Cell:
    when = {"day" if len(days) == 1 else "since": str(of_day(days[0]))}
    return Link(count, address("/reports", **when, state=state)) if count else count


def _off(site: Site) -> Iterator[Part]:
    section = site.configuration.reports
    if not section.enabled:
        yield Remark("No reports are made: reports.organization is not set.", tone=Tone.DOUBT)
    elif section.dry_run:
        yield Remark("Reports are only written to files (reports.dry_run).", tone=Tone.DOUBT)


def _reasons(found: list[NotSentSum], days: Sequence[int]) -> DataTable:
    since = str(of_day(days[0]))
    rows: list[tuple[Cell, ...]] = [
        (
            word(each.state),
            Link(each.count, address("/reports", since=since, state=each.state, why=each.why or _NO_WHY)),
            each.messages,
            each.why or _NO_WHY,
        )
        for each in found
    ]
    columns = (
        Column("state", "state"),
        Column("reports", "reports", numeric=True),
        Column("messages", "messages in them", numeric=True),
        Column("why", "why", wide=True),
    )
    note = "The most frequent reasons of the last 30 days."
    return DataTable("reasons", "Not sent, and why", columns, rows, note=note, empty="None.")


def _form(query: WebQuery) -> SearchForm:
    return SearchForm(
        "/reports",
        "Search reports",
        (
            Choice("domain", "Domain", query.text("domain"), "example.com"),
            Choice("day", "Day (UTC)", query.text("day"), "2026-11-25"),
            Choice("since", "Since (UTC)", query.text("since"), "2026-11-01"),
            Choice("state", "State", query.text("state"), options=(*_STATES, _FAILED)),
            Choice("kind", "Kind", query.text("kind"), options=_KINDS),
            Choice("why", "Why", query.text("why"), "550 5.7.1 no reports here"),
        ),
        "Search",
    )


def _reports(database: Database, query: WebQuery) -> DataTable:
    start, most = query.number("from", 0, 0, 10**6), rows_of(query, ROWS)
    domain, day, since, state, kind, why = map(query.text, ("domain", "day", "since", "state", "kind", "why"))
    asked = {text: day_of(text) for text in (day, since)}
    wrong = next((text for text, number in asked.items() if text and number is None), "")
    known = {"": (), _FAILED: _OF_FAILED}.get(state, (state,))
    found: list[OutgoingReport] = []
    if not wrong:
        with database.reading() as connection:
            found = outbox.find_reports(
                connection,
                domain=domain_of(domain),
                day=asked[day],
                since=asked[since],
                states=known,
                kind=kind,
                why={"": None, _NO_WHY: ""}.get(why, why),
                most=most + 1,
                start=start,
            )
    rows = [_row(each) for each in found[:most]]
    criteria: dict[str, str | int] = {
        "domain": domain, "day": day, "since": since, "state": state, "kind": kind, "why": why,
        "rows": query.text("rows"), "from": start + most,
    }  # fmt: skip
    further = address("/reports", **criteria) if len(found) > most else ""
    empty = f"{wrong} is not a day; write 2026-11-25." if wrong else "No report."
    return DataTable("reports", "Newest first", _COLUMNS, rows, empty=empty, further=further)


def _row(report: OutgoingReport) -> tuple[Cell, ...]:
    why = report.why
    if report.state is ReportState.WAITING:
        why = f"due {_time(report.due)}" + (f"; {why}" if why else "")
    return (
        str(of_day(report.day)),
        Link(report.domain, address("/reports", domain=report.domain)),
        _kind(report),
        Link(report.id, f"/reports/{report.id}"),
        _messages(report),
        word(report.state),
        why,
    )


def _kind(report: OutgoingReport) -> str:
    words: list[str] = [report.kind]
    if report.supplement:
        words.append(f"supplement {report.supplement}")
    if report.form is ReportForm.PART:
        words.append(f"part {report.part} of {report.parts}")
    if report.form is ReportForm.ERROR:
        words.append(report.form)
    return ", ".join(words)


def one_report(site: Site, query: WebQuery) -> WebPage:
    """One report: what became of it, where it goes, and what it says."""
    start = query.number("from", 0, 0, 10**6)
    with site.store.database.reading() as connection:
        found = outbox.report(connection, query.item)
        if found is None:
            raise NotFoundError(
                f"there is no such report; they are kept for {counted(site.configuration.store.counts_days, 'day')}"
            )
        deliveries = report_deliveries.deliveries_of(connection, found.id)
        _, record, _ = outbox.record_of(connection, found.published[0]) if found.published else ("", "", "")
        has_records = found.kind is ReportKind.AGGREGATE and found.form is not ReportForm.ERROR
        groups = list(islice(outbox.groups(connection, found), start, start + RECORDS + 1)) if has_records else []
        parts = outbox.parts_of(connection, found.id)
        incident = incidents.incident_of(connection, found.id) if found.kind is ReportKind.FAILURE else None
    changeable = suppressing.may_change(site)
    rows: list[tuple[Cell, ...]] = []
    for each in deliveries:
        cells = (each.address, word(each.state), each.why, each.tries, Moment(each.changed * 1000))
        rows.append((*cells, suppressing.button(each.address)) if changeable else cells)
    columns = (
        Column("address", "address"),
        Column("state", "state"),
        Column("why", "why", wide=True),
        Column("tries", "tries", numeric=True),
        Column("changed", "last change (UTC)"),
        *((Column("", "change"),) if changeable else ()),
    )
    empty = "None yet: addresses are looked up when the report is sent."
    further = address(query.path + "/" + found.id, **{"from": start + RECORDS}) if len(groups) > RECORDS else ""
    return WebPage(
        f"Report {found.id}",
        (
            _told(found, record),
            *(() if incident is None else (_of_message(incident),)),
            DataTable("deliveries", "Where it goes", columns, rows, empty=empty),
            *((DataTable("parts", "What is sent in its place", _COLUMNS, list(map(_row, parts))),) if parts else ()),
            _records(found, groups[:RECORDS], further),
        ),
        f"About {found.domain} on {of_day(found.day)} (UTC).",
    )


def _told(report: OutgoingReport, record: str) -> Pairs:
    rows: list[tuple[str, Cell]] = [
        ("kind", Link(_kind(report), address("/reports", kind=report.kind))),
        ("in place of", Link(report.part_of, f"/reports/{report.part_of}") if report.part_of else ""),
        ("state", word(report.state)),
        ("why", report.why),
        ("domain", Link(report.domain, address("/reports", domain=report.domain))),
        ("day (UTC)", str(of_day(report.day))),
        ("messages", _messages(report)),
        ("record", Code(record)),
        ("due (UTC)", Moment(report.due * 1000)),
        ("planned (UTC)", Moment(report.planned * 1000)),
        ("last change (UTC)", Moment(report.changed * 1000)),
        ("octets" if report.kind is ReportKind.FAILURE else "octets, compressed", report.octets or None),
    ]
    return Pairs("report", "What became of it", tuple(row for row in rows if row[1] not in ("", None, Code(""))))


def _of_message(incident: Incident) -> Pairs:
    row = incident.row
    day = str(of_day(incident.arrival // DAY_SECONDS))
    aligned = [name for name, holds in (("DKIM", incident.dkim_aligned), ("SPF", incident.spf_aligned)) if holds]
    signature = "" if row.signature is None else f"{row.signature[1]}._domainkey.{row.signature[0]}"
    rows: tuple[tuple[str, Cell], ...] = (
        ("time (UTC)", Moment(incident.arrival * 1000)),
        ("queue id", Link(incident.queue, address("/messages", q=incident.queue)) if incident.queue else ""),
        ("client", Link(incident.client, address("/messages", since=day, until=day, client=incident.client))),
        ("author domain", incident.author_domain),
        ("what failed", row.failure),
        ("aligned", ", ".join(aligned)),
        ("signature", signature),
        ("SPF record of", row.spf_domain),
        ("what became of it", row.delivery),
    )
    return Pairs("message", "The first message that it is about", tuple(each for each in rows if each[1]))


def _records(report: OutgoingReport, groups: list[Group], further: str) -> DataTable:
    columns = (
        Column("client", "client"),
        Column("messages", "messages", numeric=True),
        Column("author", "author domain"),
        Column("disposition", "disposition"),
        Column("dkim", "DKIM", wide=True),
        Column("spf", "SPF"),
        Column("aligned", "aligned"),
        Column("reasons", "reasons", wide=True),
    )
    note = "Its records, each with the messages behind it."
    empty = "The store no longer has it."
    if report.kind is ReportKind.FAILURE:
        note = ""
        empty = "It is about messages that failed in the same way. What it says of them is removed once it is sent."
    elif report.form is ReportForm.ERROR:
        note = ""
        empty = "It says that there is a report, and how large it is."
    rows = [_record(each, report) for each in groups]
    return DataTable("records", "What it says", columns, rows, note=note, empty=empty, further=further)


def _messages(report: OutgoingReport) -> Cell:
    """How many messages a report is about. It is known which, if it is the aggregate report about a day."""
    if (
        report.kind is not ReportKind.AGGREGATE
        or report.form is not ReportForm.WHOLE
        or report.supplement
        or not report.published
        or not report.messages
    ):
        return report.messages
    return Link(report.messages, address("/messages", report=report.id))


def _record(group: Group, report: OutgoingReport) -> tuple[Cell, ...]:
    signatures = tuple(
        Several((f"{selector}._domainkey.{domain}", word(result))) for domain, selector, result, *_ in group.dkim
    )
    aligned = [name for name, holds in (("DKIM", group.dkim_aligned), ("SPF", group.spf_aligned)) if holds]
    return (
        group.client,
        Link(group.count, address("/messages", report=report.id, client=group.client, group=group.key[1])),
        group.author_domain,
        word(group.disposition),
        Several(signatures, apart=True),
        None if group.spf is None else Several((group.spf[0], word(group.spf[1]))),
        ", ".join(aligned),
        Several(tuple(f"{kind}: {text}" if text else kind for kind, text in group.reasons), apart=True),
    )


def _time(seconds: int) -> str:
    """A time as text, to the minute."""
    return time_text(seconds * 1000)[:16].replace("T", " ") + " UTC"
