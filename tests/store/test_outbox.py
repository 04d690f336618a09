# SPDX-License-Identifier: GPL-3.0-or-later
"""What the database says about the reports that go out."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import msgspec
import pytest
from sqlalchemy import event

from assay.model.name import InvalidNameError
from assay.store import outbox, report_days, report_deliveries, suppressions
from assay.store.bounced import note_bounce
from assay.store.database import Database, open_database
from assay.store.outbox import DAY_SECONDS, ReportKind, ReportState
from assay.store.report_deliveries import ReportDelivery
from assay.store.suppressions import Suppression
from assay.store.writer import Writer
from report_world import failed, seen
from store_rows import DAY

NOW = (DAY + 1) * DAY_SECONDS


def test_mail_of_no_client_is_in_no_report(database: Database) -> None:
    """RFC 9990, 3.1.1.8: a record has an address."""
    Writer(database).write([seen(1), seen(2, client=""), seen(3, "local.example", client="")])
    with database.reading() as connection:
        (candidate,) = outbox.candidates(connection, DAY)
        assert (candidate.domain, candidate.messages) == ("example.com", 1)
        of = (candidate.published,)
        report = outbox.OutgoingReport("r", DAY, "example.com", of, ReportState.WAITING, "", 0, 0, 0, 1, 0)
        assert [group.client for group in outbox.groups(connection, report)] == ["192.0.2.1"]


def test_what_is_known_of_a_record(database: Database) -> None:
    rows = [seen(number) for number in range(3)]
    Writer(database).write([*rows, failed(5), failed(6), seen(7, report_mail=True)])
    with database.reading() as connection:
        (candidate,) = outbox.candidates(connection, DAY)
    assert (candidate.messages, candidate.passing, candidate.report_mail) == (6, 4, 1)


def delivery(number: int, state: ReportState, changed: int = NOW) -> ReportDelivery:
    return ReportDelivery(f"report{number}", "d@example.com", "example.com", state, "", 0, 0, changed, str(number))


def test_what_waits_or_came_back_counts_as_sent(database: Database) -> None:
    states = (ReportState.SENT, ReportState.HANDED_OVER, ReportState.WAITING, ReportState.BOUNCED)
    reports = [
        outbox.OutgoingReport(
            f"report{number}", DAY, "example.com", (1,), ReportState.WAITING, "", NOW, NOW, NOW, 1, 0, kind
        )
        for number, kind in [
            *((number, ReportKind.AGGREGATE) for number in (*range(len(ReportState)), 100)),
            (200, ReportKind.FAILURE),
        ]
    ]
    with database.writing() as connection:
        outbox.plan(connection, DAY, reports, now=NOW, dry_run=False)
        report_deliveries.replace_deliveries(
            connection, "", (), [delivery(number, state) for number, state in enumerate(ReportState)]
        )
        report_deliveries.replace_deliveries(connection, "", (), [delivery(100, ReportState.SENT, NOW - 1)])
        report_deliveries.replace_deliveries(connection, "", (), [delivery(200, ReportState.SENT)])
    with database.reading() as connection:
        assert report_deliveries.taken_by_organization(connection, NOW) == {"example.com": len(states)}
        assert report_deliveries.taken_by_organization(connection, NOW, ReportKind.FAILURE) == {"example.com": 1}
        sent = report_deliveries.taken_by_organization(connection, NOW, states=(ReportState.SENT,))
        assert sent == {"example.com": 1}
        assert report_deliveries.taken_by_organization(connection, NOW + 1) == {}


def test_a_suppression_ends(database: Database) -> None:
    with database.writing() as connection:
        suppressions.suppress(connection, Suppression("d@example.com", NOW, "it refused a report", NOW - 9))
        suppressions.suppress(connection, Suppression("example.net", 0, "by the operator", NOW - 9))
    with database.reading() as connection:
        assert suppressions.suppressed(connection, ["d@example.com", "example.com"], NOW - 1) is not None
        assert suppressions.suppressed(connection, ["d@example.com", "example.com"], NOW) is None
        assert suppressions.suppressed(connection, ["d@example.net", "example.net"], NOW) is not None


@pytest.mark.parametrize(
    ("until", "holds"), [(0, 0), (NOW + 31 * DAY_SECONDS, NOW + 31 * DAY_SECONDS), (NOW + 1, None), (NOW - 1, None)]
)
def test_a_report_that_comes_back_ends_no_suppression_early(database: Database, until: int, holds: int | None) -> None:
    """What the operator has forbidden for longer stays so."""
    expected = NOW + 30 * DAY_SECONDS if holds is None else holds
    with database.writing() as connection:
        suppressions.suppress(connection, Suppression("d@example.com", until, "by the operator", 1))
        report_deliveries.replace_deliveries(connection, "", (), [delivery(1, ReportState.SENT)])
        stopped = note_bounce(connection, "1", 30, now=NOW)
        (found,) = suppressions.all_suppressions(connection)
    assert stopped is not None
    assert (stopped.address, stopped.until) == ("d@example.com", expected)
    assert (found.until, found.why) == (expected, "a report came back" if holds is None else "by the operator")


@pytest.mark.parametrize(
    ("state", "other", "expected"),
    [
        (ReportState.SENT, ReportState.REFUSED, ReportState.BOUNCED),
        (ReportState.SENT, ReportState.SENT, ReportState.SENT),
        (ReportState.WAITING, ReportState.WAITING, ReportState.WAITING),
    ],
)
def test_a_report_that_came_back_from_all_who_took_it_is_not_one_that_was_sent(
    database: Database, state: ReportState, other: ReportState, expected: ReportState
) -> None:
    report = outbox.OutgoingReport("report1", DAY, "example.com", (1,), state, "as before", NOW, NOW, NOW, 1, 0)
    also = msgspec.structs.replace(delivery(1, other), address="e@example.com", token="2")
    with database.writing() as connection:
        outbox.plan(connection, DAY, [report], now=NOW, dry_run=False)
        report_deliveries.replace_deliveries(connection, "", (), [delivery(1, ReportState.SENT), also])
        note_bounce(connection, "1", 30, now=NOW)
        (found,) = outbox.find_reports(connection)
    why = "d@example.com: it came back" if expected is ReportState.BOUNCED else "as before"
    assert (found.state, found.why) == (expected, why)


@pytest.mark.parametrize(
    ("text", "subject"),
    [
        ("D@Example.COM", "d@example.com"),
        ('"D, E"@example.com', '"d, e"@example.com'),
        ("B\xfccher.example.", "xn--bcher-kva.example"),
    ],
)
def test_the_subject_of_a_suppression(text: str, subject: str) -> None:
    assert suppressions.subject_of(text) == subject == suppressions.subject_of(subject)


@pytest.mark.parametrize(
    "text",
    [
        "mailto:d@example.com",
        "mailto:d@example.com!10m",
        "d@example.com!10m",
        "d@example.com, e@example.com",
        "Ann <d@example.com>",
        "https://example.com/",
        "*.example.com",
        '"d\0"@example.com',
        '"d\n"@example.com',
        "@example.com",
        "",
    ],
)
def test_what_is_neither_an_address_nor_a_domain_is_not_suppressed(text: str) -> None:
    with pytest.raises(InvalidNameError):
        suppressions.subject_of(text)


@pytest.mark.parametrize(
    ("subject", "asked", "holds"),
    [
        ("example.com", "example.com", True),
        ("example.com", "a.b.example.com", True),
        ("example.com", "D@A.Example.com", True),
        ("d@example.com", "D@example.com", True),
        ("d@example.com", "example.com", False),
        ("d@example.com", "d@a.example.com", False),
        ("a.example.com", "example.com", False),
        ("example.com", "other-example.com", False),
        ("example.com", '"example.com"@example.net', False),
    ],
)
def test_a_suppressed_domain_stands_for_all_below_it(database: Database, subject: str, asked: str, holds: bool) -> None:
    with database.writing() as connection:
        suppressions.suppress(connection, Suppression(subject, 0, "", NOW))
        assert (suppressions.suppressed(connection, ["example.org", asked], NOW) is not None) is holds


def test_why_something_is_suppressed_is_cut(database: Database) -> None:
    with database.writing() as connection:
        suppressions.suppress(connection, Suppression("example.com", 0, "x" * 10_000, NOW))
        (found,) = suppressions.all_suppressions(connection)
    assert found.why == "x" * outbox.MAX_TEXT


def test_whether_all_mail_of_a_domain_failed(database: Database) -> None:
    Writer(database).write([failed(1, "forged.example"), failed(2, "mixed.example"), seen(3, "mixed.example")])
    with database.reading() as connection:
        assert outbox.only_failed(connection, "forged.example", range(DAY - 1, DAY + 1))
        assert not outbox.only_failed(connection, "forged.example", range(DAY + 1, DAY + 2))
        assert not outbox.only_failed(connection, "mixed.example", range(DAY, DAY + 1))
        assert not outbox.only_failed(connection, "unknown.example", range(DAY, DAY + 1))


def test_the_oldest_reports_come_first(database: Database) -> None:
    with database.writing() as connection:
        reports = [
            outbox.OutgoingReport(name, DAY, "example.com", (1,), ReportState.WAITING, "", due, NOW, NOW, 1, 0)
            for name, due in (("a", NOW + 2), ("b", NOW), ("c", NOW + 1), ("d", NOW + 3))
        ]
        outbox.plan(connection, DAY, reports, now=NOW, dry_run=False)
        outbox.change_report(connection, "c", NOW, state=ReportState.SENT, why="250")
        outbox.plan(connection, DAY, reports, now=NOW, dry_run=True)
    with database.reading() as connection:
        assert [report.id for report in outbox.due_reports(connection, NOW + 2, 9)] == ["b", "a"]
        assert [report.id for report in outbox.due_reports(connection, NOW + 2, 1)] == ["b"]
        assert {day: each.dry_run for day, each in report_days.known_days(connection).items()} == {DAY: False}


def test_the_mail_of_a_destination_is_found_by_its_key(tmp_path: Path) -> None:
    """There are as many counts of 30 days as there are domains, and each report asks."""
    with contextlib.closing(open_database(str(tmp_path / "store.sqlite"))) as database:
        statements: list[tuple[str, Any]] = []
        event.listen(database.engine, "before_cursor_execute", lambda *given: statements.append((given[2], given[3])))
        with database.reading() as connection:
            outbox.only_failed(connection, "forged.example", range(DAY - 30, DAY + 1))
            (asked,) = [given for given in statements if "counts" in given[0]]
            plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {asked[0]}", asked[1]).all()
    (step,) = plan
    assert "day=? AND kind=? AND subject=?" in step.detail
