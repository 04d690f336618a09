# SPDX-License-Identifier: GPL-3.0-or-later
"""What pages show about reports, from the database."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from assay.protocol.report.received import ReceivedAggregate, ReportSender
from assay.reports.incoming import read
from assay.store import outbox, received, received_counts, reporting
from assay.store.database import Database
from assay.store.outbox import DAY_SECONDS, OutgoingReport, ReportState
from assay.store.overview import DaySum
from assay.store.reporting import NotSentSum, SeenBeside
from assay.store.rows import DmarcRow, PublishedRow
from assay.store.tallies import published_id
from assay.store.writer import Writer
from reports.incoming import shapes
from store_rows import row

DAY = shapes.BEGIN // DAY_SECONDS
DAYS = range(DAY, DAY + 1)
EMPTY = range(DAY + 1, DAY + 9)
SENDER = ReportSender("reporter.example", "pass")
OURS = "example.org"


def aggregate(identifier: str = "1") -> ReceivedAggregate:
    (arrival,) = read(shapes.GOOGLE.replace("<report_id>1", f"<report_id>{identifier}").encode())
    assert isinstance(arrival.report, ReceivedAggregate)
    return arrival.report


@pytest.fixture
def both(database: Database) -> Database:
    """Two reports of others, and mail to us."""
    with database.writing() as connection:
        for identifier in ("1", "2"):
            received.keep(connection, SENDER, aggregate(identifier), now=shapes.END)
    policy = PublishedRow(OURS, "v=DMARC1; p=reject", "treewalk")
    other = PublishedRow("other.example", "v=DMARC1; p=reject", "treewalk")
    failed, passed = DmarcRow(policy, "reject", "reject", False, False), DmarcRow(policy, "reject", "pass", True, False)
    time = shapes.BEGIN * 1000
    Writer(database).write(
        [
            row(1, time=time, client="2001:db8::25", author_domain="mail.example.org", dmarc=failed),
            row(2, time=time, client="192.0.2.1", author_domain=OURS, dmarc=passed),
            row(3, time=time + 1, client="192.0.2.1", author_domain=OURS, dmarc=passed),
            row(
                4, time=time, client="192.0.2.2", author_domain="other.example", dmarc=replace(passed, published=other)
            ),
        ]
    )
    return database


@pytest.mark.parametrize("domains", [(), (OURS,)], ids=["all", "ours"])
@pytest.mark.parametrize("most", [1, 100])
def test_others_beside_us_by_client(both: Database, domains: tuple[str, ...], most: int) -> None:
    with both.reading() as connection:
        assert reporting.beside(connection, EMPTY, domains, by_source=True) == []
        found = reporting.beside(connection, DAYS, domains, by_source=True, most=most)
    expected = [
        SeenBeside(OURS, "192.0.2.10", passing=24),
        SeenBeside("mail.example.org", "2001:db8::25", failing=6, own_failing=1),
        SeenBeside(OURS, "192.0.2.1", own_passing=2),
    ]
    # With one of each side: the first that others saw, and the first that we saw.
    assert found == (expected if most > 1 else [expected[0], expected[2]])


@pytest.mark.parametrize("most", [1, 100])
def test_others_beside_us_by_domain(both: Database, most: int) -> None:
    """Also who is not among the first on one side has figures there."""
    with both.reading() as connection:
        found = reporting.beside(connection, DAYS, (OURS,), by_source=False, most=most)
    assert found[0] == SeenBeside(OURS, "", passing=24, own_passing=2)
    assert found[1:] == [SeenBeside("mail.example.org", "", failing=6, own_failing=1)][: most - 1]


def test_who_is_first_on_one_side_only_has_figures_on_both(database: Database) -> None:
    report = aggregate()
    rows = tuple(replace(each, author_domain=OURS) for each in report.rows)
    with database.writing() as connection:
        received.keep(connection, SENDER, replace(report, rows=rows), now=shapes.END)
    failed = DmarcRow(PublishedRow(OURS, "v=DMARC1; p=reject", "treewalk"), "reject", "reject", False, False)
    base = {"time": shapes.BEGIN * 1000, "author_domain": OURS, "client": rows[1].source, "dmarc": failed}
    Writer(database).write([row(1, **base), row(2, **base), row(3, **{**base, "client": rows[0].source})])
    with database.reading() as connection:
        found = reporting.beside(connection, DAYS, (OURS,), by_source=True, most=1)
    assert found == [
        SeenBeside(OURS, rows[0].source, passing=12, own_failing=1),
        SeenBeside(OURS, rows[1].source, failing=3, own_failing=2),
    ]


def test_domains_and_records_are_bounded(both: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without domains of ours, strangers choose both, and a database takes so many values in a question and no more."""
    report = replace(aggregate("9"), domain="other.example")
    rows = tuple(replace(each, author_domain="other.example", count=1) for each in report.rows[:1])
    with both.writing() as connection:
        received.keep(connection, SENDER, replace(report, rows=rows), now=shapes.END)

    def of_others() -> list[SeenBeside]:
        with both.reading() as connection:
            found = reporting.beside(connection, DAYS, (), by_source=False)
        return [each for each in found if each.domain == "other.example"]

    assert of_others() == [SeenBeside("other.example", "", passing=1, own_passing=1)]
    monkeypatch.setattr(reporting, "MAX_RECORDS", 0)
    assert of_others() == [SeenBeside("other.example", "", passing=1)]
    monkeypatch.setattr(reporting, "MAX_DOMAINS", 1)
    assert of_others() == [], "the domain of which fewer messages were reported"


@pytest.mark.parametrize("by_source", [False, True])
def test_rare_names_are_counted_together_and_come_last(
    database: Database, monkeypatch: pytest.MonkeyPatch, by_source: bool
) -> None:
    for name, value in (("MAX_NAMES", 3), ("KEPT_NAMES", 1), ("KEPT_AUTHORS", 1)):
        monkeypatch.setattr(received_counts, name, value)
    report = aggregate()
    rows = [
        replace(report.rows[0], source=f"192.0.2.{count}", count=count, author_domain=domain)
        for count, domain in ((1, "a.example.org"), (2, OURS), (5, OURS), (3, "b.example.org"))
    ]
    with database.writing() as connection:
        received.keep(connection, SENDER, replace(report, rows=tuple(rows)), now=shapes.END)
    with database.reading() as connection:
        found = reporting.beside(connection, DAYS, (OURS,), by_source=by_source, most=1)
    if by_source:
        assert found == [SeenBeside(OURS, "192.0.2.5", passing=5), SeenBeside("", "", passing=6)]
    else:
        assert found == [SeenBeside(OURS, "", passing=7), SeenBeside("", "", passing=4)]


def test_what_reports_say_about_each_day(both: Database) -> None:
    with both.reading() as connection:
        assert reporting.received_daily(connection, DAYS, "aggregate") == [
            DaySum(DAY, "pass", 24),
            DaySum(DAY, "fail", 6),
        ]
        assert reporting.received_daily(connection, DAYS, "tls") == []
        assert reporting.received_daily(connection, EMPTY, "aggregate") == []


def test_a_report_is_read_in_parts(both: Database) -> None:
    report = aggregate()
    with both.reading() as connection:
        first = reporting.received_report(connection, report.id_from(SENDER), most=1)
        second = reporting.received_report(connection, report.id_from(SENDER), start=1, most=5)
        assert reporting.received_report(connection, bytes(16)) is None
    assert first is not None
    assert second is not None
    assert (*first.rows, *second.rows) == report.rows
    assert first.report == replace(report, rows=())
    assert (first.summary.sender, first.summary.good, first.summary.bad) == ("reporter.example", 12, 3)


def test_the_author_domain_of_a_report(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = PublishedRow(OURS, "v=DMARC1; p=reject", "treewalk")
    failed = DmarcRow(policy, "reject", "reject", False, False)
    base = {"time": shapes.BEGIN * 1000, "dmarc": failed}
    report = OutgoingReport("r", DAY, OURS, (published_id(policy),), ReportState.SENT, "", 0, 0, 0, 5, 0)

    def found() -> str:
        with database.reading() as connection:
            return reporting.author_domain(connection, report)

    assert found() == ""
    Writer(database).write([row(number, **base, author_domain=OURS, client=f"192.0.2.{number}") for number in (1, 2)])
    assert found() == OURS
    monkeypatch.setattr(reporting, "MAX_GROUPS", 1)
    assert found() == ""
    monkeypatch.undo()
    Writer(database).write([row(3, **base | {"time": shapes.END * 1000 + 1000}, author_domain="a.example.org")])
    assert found() == OURS, "that is of the next day"
    Writer(database).write([row(4, **base, author_domain="a.example.org")])
    assert found() == ""


def test_why_reports_were_not_sent(database: Database) -> None:
    whys = [
        (ReportState.NOT_SENT, "no rua"),
        (ReportState.NOT_SENT, "no rua"),
        (ReportState.SENT, ""),
        ("refused", "550"),
    ]
    planned = [
        OutgoingReport(f"r{number}", DAY, OURS, (), ReportState(state), why, 0, 0, 0, 5, 0)
        for number, (state, why) in enumerate(whys)
    ]
    with database.writing() as connection:
        outbox.plan(connection, DAY, planned, now=0, dry_run=False)
    with database.reading() as connection:
        assert reporting.reasons(connection, DAYS, (ReportState.NOT_SENT, ReportState.REFUSED)) == [
            NotSentSum("not sent", "no rua", 2, 10),
            NotSentSum("refused", "550", 1, 5),
        ]
        assert reporting.reasons(connection, EMPTY, (ReportState.NOT_SENT,)) == []
        assert sorted(reporting.sent_daily(connection, DAYS), key=lambda each: each.word) == [
            DaySum(DAY, "not sent", 2),
            DaySum(DAY, "refused", 1),
            DaySum(DAY, "sent", 1),
        ]
        assert len(outbox.find_reports(connection, states=("not sent", "sent"))) == 3
        assert [each.id for each in outbox.find_reports(connection, most=2, start=1)] == ["r1", "r2"]
