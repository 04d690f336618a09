# SPDX-License-Identifier: GPL-3.0-or-later
"""Reports that came in, in the database: written once, found again, shown beside what we saw, and forgotten."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace
from sqlalchemy import func, select

from assay.protocol.report.received import Received, ReportSender
from assay.reports.incoming import read
from assay.store import received, schema
from assay.store.database import Database
from assay.store.received import DAY_SECONDS, ReportOutcome
from assay.store.retention import Retention, prune
from reports.incoming import shapes

NOW = shapes.END + 3600.5
DAY = shapes.BEGIN // DAY_SECONDS
SENDER = ReportSender("reporter.example", "pass")


def parsed(octets: bytes) -> Any:
    (arrival,) = read(octets)
    return arrival.report


ALL = [*(shapes.AGGREGATES.values()), shapes.tls(), shapes.failure_mail()]


def count(database: Database, table: Any) -> int:
    with database.reading() as connection:
        return int(connection.execute(select(func.count()).select_from(table)).scalar_one())


def keep(database: Database, report: Received, now: float = NOW, sender: ReportSender = SENDER) -> ReportOutcome:
    with database.writing() as connection:
        return received.keep(connection, sender, report, now=now)


@pytest.mark.parametrize("octets", ALL, ids=lambda octets: octets[:9])
def test_a_report_is_kept_whole_and_once(database: Database, octets: bytes) -> None:
    report = parsed(octets)
    assert keep(database, report) is ReportOutcome.NEW
    rows = count(database, schema.received_rows)
    assert keep(database, report, NOW + 9) is ReportOutcome.KNOWN
    assert count(database, schema.received_reports) == 1
    assert count(database, schema.received_rows) == rows
    with database.reading() as connection:
        (summary,) = received.summaries(connection, DAY, DAY)
        assert received.report(connection, summary.id) == report
        assert received.report(connection, bytes(16)) is None
    assert (summary.sender, summary.sender_dmarc) == ("reporter.example", "pass")
    assert (summary.received, summary.begin, summary.end) == (int(NOW), report.begin, report.end)


REAL, OTHER = ReportSender("reporter.example", "pass"), ReportSender("other.example", "pass")
FILE, UNPROVEN = ReportSender(), ReportSender("reporter.example", "none")
FORGED, OTHER_UNPROVEN = ReportSender("reporter.example", "fail"), ReportSender("other.example", "fail")
NEW, KNOWN, REPLACES = ReportOutcome.NEW, ReportOutcome.KNOWN, ReportOutcome.REPLACES


@pytest.mark.parametrize("octets", ALL, ids=lambda octets: octets[:9])
@pytest.mark.parametrize(
    ("senders", "outcomes", "kept"),
    [
        # Who passed replaces who did not, in its own name only, and is not replaced.
        ((FORGED, REAL, FORGED, REAL), (NEW, REPLACES, KNOWN, KNOWN), {REAL}),
        ((FILE, REAL, FILE), (NEW, REPLACES, KNOWN), {REAL}),
        ((REAL, FORGED, FILE), (NEW, KNOWN, KNOWN), {REAL}),
        ((OTHER, REAL, OTHER, REAL), (NEW, NEW, KNOWN, KNOWN), {OTHER, REAL}),
        ((UNPROVEN, OTHER, UNPROVEN), (NEW, NEW, KNOWN), {UNPROVEN, OTHER}),
        ((OTHER, UNPROVEN, REAL), (NEW, NEW, REPLACES), {OTHER, REAL}),
        # Of several that nobody has proven, the first stays.
        ((UNPROVEN, FORGED, OTHER_UNPROVEN, FILE), (NEW, KNOWN, KNOWN, KNOWN), {UNPROVEN}),
        ((FILE, FILE, FORGED), (NEW, KNOWN, KNOWN), {FILE}),
        # DMARC cannot pass for a mail without an author.
        ((ReportSender("", "pass"), REAL), (NEW, REPLACES), {REAL}),
    ],
)
def test_a_copy_of_a_stranger_does_not_stand_in_for_the_report(
    database: Database,
    octets: bytes,
    senders: tuple[ReportSender, ...],
    outcomes: tuple[ReportOutcome, ...],
    kept: set[ReportSender],
) -> None:
    """Each copy is told by its contact."""
    report = parsed(octets)
    for number, (sender, outcome) in enumerate(zip(senders, outcomes, strict=True)):
        assert keep(database, replace(report, contact=f"{number}@x.example"), NOW, sender) is outcome
    with database.reading() as connection:
        summaries = received.summaries(connection, DAY, DAY)
        assert {ReportSender(each.sender, each.sender_dmarc) for each in summaries} == kept
        assert len(summaries) == len(kept)
        for each in summaries:
            came_first = next(
                number
                for number, sender in enumerate(senders)
                if sender == ReportSender(each.sender, each.sender_dmarc)
            )
            found = received.report(connection, each.id)
            assert found == replace(report, contact=f"{came_first}@x.example")
    assert count(database, schema.received_rows) == len(kept) * len(getattr(report, "rows", ()))


@pytest.mark.parametrize("octets", ALL, ids=lambda octets: octets[:9])
@pytest.mark.parametrize("sender", [SENDER, ReportSender()], ids=["mail", "file"])
@pytest.mark.parametrize("report_id", ["", "1"])
def test_another_report_with_the_same_report_id_is_no_copy(
    database: Database, octets: bytes, sender: ReportSender, report_id: str
) -> None:
    """Some reporters count their reports, so two have the same report ID about the same domain and day."""
    report = replace(parsed(octets), report_id=report_id)
    others = [
        replace(report, organization="Another Organization"),
        replace(report, domain="another.example"),
        replace(report, begin=report.begin - 1),
    ]
    assert keep(database, report) is NEW
    assert [keep(database, each, NOW, sender) for each in others] == [NEW] * len(others)
    assert keep(database, report, NOW, sender) is KNOWN
    assert count(database, schema.received_reports) == 1 + len(others)


def test_what_is_summed_up(database: Database) -> None:
    sums = {}
    for octets in ALL:
        keep(database, parsed(octets))
    with database.reading() as connection:
        for summary in received.summaries(connection, DAY, DAY, {"example.org"}):
            sums[summary.kind, summary.organization] = (summary.good, summary.bad)
        assert received.summaries(connection, DAY, DAY, {"other.example"}) == []
        assert received.summaries(connection, DAY + 1, DAY + 9) == []
        assert len(received.summaries(connection, DAY, DAY, kind="tls")) == 1
    assert sums["aggregate", "google.com"] == (12, 3)
    assert sums["tls", "Google Inc."] == (5326, 303)
    assert sums["failure", "reporter.example"] == (0, 2)


def test_reports_are_listed_by_what_is_in_them(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    report = parsed(shapes.GOOGLE.encode())
    first, second = report.rows
    for number in range(6):
        rows = (first,) if number % 2 else (first, second)
        begin = report.begin + DAY_SECONDS * (number // 3)
        about = "other.example" if number == 5 else report.domain
        keep(database, replace(report, report_id=f"n{number}", begin=begin, domain=about, rows=rows), NOW + number)
    keep(database, parsed(shapes.tls()))

    def listed(**criteria: Any) -> str:
        with database.reading() as connection:
            found = received.summaries(connection, DAY, DAY + 9, **criteria)
        return "".join(each.report_id[1] for each in found if each.report_id.startswith("n"))

    rare, common = {"client": second.source}, {"client": first.source}
    assert listed() == listed(**common) == listed(author=first.author_domain) == "543210"
    assert listed(**rare) == listed(author=second.author_domain) == "420"
    assert listed(**rare, author=second.author_domain) == "420"
    assert listed(**rare, author=first.author_domain) == ""
    assert listed(**common, kind="tls") == listed(author=first.author_domain, kind="tls") == ""
    for domains, found in ((("example.org",), "43210"), (("other.example",), "5")):
        for criteria in ({}, common, {"author": first.author_domain}, {**common, "author": first.author_domain}):
            assert listed(domains=domains, **criteria) == found
    assert listed(kind="aggregate", start=1, most=2) == "43"
    monkeypatch.setattr(received, "MAX_REPORTS", 4)
    assert listed(kind="aggregate", start=2, most=9) == "32"
    assert listed(start=5, most=9) == ""
    assert listed(**common, most=3) == "543"


def test_what_cannot_be_used_is_kept_aside(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(received, "MAX_UNREADABLE", 3)
    monkeypatch.setattr(received, "MAX_CONTENT_OCTETS", 10)
    with database.writing() as connection:
        for number in range(5):
            for _ in range(2):
                content = b"x" * 11 if number == 4 else b"mail %d" % number
                received.keep_unreadable(connection, SENDER, "why", content, now=NOW + number)
    with database.reading() as connection:
        found = received.unreadable(connection)
        assert [entry.received - int(NOW) for entry in found] == [4, 3, 2]
        assert (found[0].octets, found[0].reason, found[0].sender) == (11, "why", "reporter.example")
        assert [received.unreadable_content(connection, entry.id) for entry in found] == [b"", b"mail 3", b"mail 2"]


def test_old_reports_are_forgotten_with_their_rows(database: Database) -> None:
    keep(database, parsed(shapes.GOOGLE.encode()), now=NOW)
    keep(database, parsed(shapes.YAHOO.encode()), now=NOW + DAY_SECONDS)
    with database.writing() as connection:
        received.keep_unreadable(connection, SENDER, "why", b"x", now=NOW)
    kept = Retention(messages_days=30, counts_days=400, received_days=10)
    prune(database, kept, NOW + 10 * DAY_SECONDS)
    assert (count(database, schema.received_reports), count(database, schema.unreadable_reports)) == (2, 1)
    prune(database, kept, NOW + 11 * DAY_SECONDS)
    assert count(database, schema.received_reports) == 1
    assert count(database, schema.received_rows) == 1
    assert count(database, schema.unreadable_reports) == 0
