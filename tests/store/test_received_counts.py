# SPDX-License-Identifier: GPL-3.0-or-later
"""The sums of the reports that came in are those of the reports that are there, whatever came and went."""

from __future__ import annotations

import random
import threading
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import pytest
from msgspec.structs import replace
from sqlalchemy import func, insert, select

from assay.protocol.report.received import (
    AggregateRow,
    AppliedPolicy,
    Received,
    ReceivedAggregate,
    ReceivedFailure,
    ReceivedTls,
    ReportSender,
    TlsPolicy,
)
from assay.store import received, received_counts, retention, schema
from assay.store.database import Database, connect, open_database
from assay.store.forgetting import Whom, forget
from assay.store.migrations import upgrade
from assay.store.received import DAY_SECONDS
from assay.store.received_counts import Figures, Name, folded
from assay.store.retention import Retention, prune
from postgresql import PASSWORD

DAY = 20_000
SENDER = ReportSender("reporter.example", "pass")
KEPT = Retention(messages_days=30, counts_days=400, received_days=10)
ADDRESS = "ann@gone.example"


def aggregate(
    number: int, names: Sequence[tuple[str, str, int, bool]], *, day: int = DAY, domain: str = "example.org"
) -> ReceivedAggregate:
    """A report with a row for each author domain, client, count and whether DMARC passed."""
    rows = tuple(
        AggregateRow(source, count, "none", passed and count % 2 == 0, passed, author)
        for author, source, count, passed in names
    )
    begin = day * DAY_SECONDS + number
    return ReceivedAggregate("reporter", "", f"{number}", domain, begin, begin + 3600, AppliedPolicy(p="none"), rows)


def failure(number: int) -> ReceivedFailure:
    begin = DAY * DAY_SECONDS
    texts = ("192.0.2.1", ("dmarc",), ("none",), "reject", f"for {ADDRESS}", "a.example", "s", "", "", f"<{number}>")
    return ReceivedFailure("reporter", "", f"<{number}>", "example.org", begin, begin, *texts)


def tls(number: int) -> ReceivedTls:
    begin = DAY * DAY_SECONDS
    return ReceivedTls(
        "reporter", "", f"{number}", "example.org", begin, begin + 9, (TlsPolicy("example.org", "sts", 7, 2),)
    )


def keep(database: Database, *reports: Received, now: float = (DAY + 1) * DAY_SECONDS) -> None:
    with database.writing() as connection:
        for report in reports:
            received.keep(connection, SENDER, report, now=now)


def of_records(database: Database) -> tuple[dict[tuple[int, str], Figures], dict[tuple[int, str], dict[Name, Figures]]]:
    """What the reports say: by day and kind; and by day and domain, of each name."""
    days: dict[tuple[int, str], Figures] = defaultdict(lambda: (0, 0))
    names: dict[tuple[int, str], dict[Name, Figures]] = defaultdict(lambda: defaultdict(lambda: (0, 0)))
    with database.reading() as connection:
        reports = schema.received_reports.c
        for kind, begin, good, bad in connection.execute(
            select(reports.kind, reports.begin, reports.good, reports.bad)
        ):
            key = (begin // 1000 // DAY_SECONDS, kind)
            days[key] = (days[key][0] + good, days[key][1] + bad)
        for row in connection.execute(select(schema.received_rows)):
            figures = (row.count, 0) if row.dkim_aligned or row.spf_aligned else (0, row.count)
            of = names[row.day, row.domain]
            before = of[row.author_domain, row.source]
            of[row.author_domain, row.source] = (before[0] + figures[0], before[1] + figures[1])
    return {key: figures for key, figures in days.items() if any(figures)}, {key: dict(of) for key, of in names.items()}


def summed(database: Database) -> tuple[dict[tuple[int, str], Figures], dict[tuple[int, str], dict[Name, Figures]]]:
    """The same of the sums."""
    names: dict[tuple[int, str], dict[Name, Figures]] = defaultdict(dict)
    with database.reading() as connection:
        days = {(day, kind): (good, bad) for day, kind, good, bad in connection.execute(select(schema.received_days))}
        for day, domain, author, source, passed, failed in connection.execute(select(schema.received_counts)):
            names[day, domain][author, source] = (passed, failed)
    return days, dict(names)


def total(figures: dict[Name, Figures]) -> Figures:
    return sum(passed for passed, _ in figures.values()), sum(failed for _, failed in figures.values())


def check(database: Database) -> None:
    """The sums of days and domains are exact, no name has more than the reports say, and there are not too many."""
    (days, names), (day_sums, name_sums) = of_records(database), summed(database)
    assert day_sums == days
    assert {key: total(of) for key, of in name_sums.items()} == {key: total(of) for key, of in names.items()}
    for key, of in name_sums.items():
        assert len(of) <= received_counts.MAX_NAMES
        for name, figures in of.items():
            assert min(figures) >= 0
            assert any(figures)
            if all(name):
                assert all(mine <= theirs for mine, theirs in zip(figures, names[key][name], strict=True))


@pytest.fixture
def several(database: Database) -> Database:
    """Reports of each kind, about several days and domains."""
    twice = [("example.org", "192.0.2.1", 4, True), ("example.org", "192.0.2.1", 3, False)]
    keep(
        database,
        aggregate(1, [*twice, ("a.example.org", "192.0.2.2", 5, False)]),
        aggregate(2, twice),
        aggregate(3, twice, day=DAY - 1),
        aggregate(4, twice, domain="gone.example"),
        failure(5),
        failure(6),
        tls(7),
    )
    return database


def test_sums_are_those_of_the_records(several: Database) -> None:
    days, names = summed(several)
    assert (days, names) == of_records(several)
    assert days[DAY, "aggregate"] == (4 * 3, 3 * 3 + 5)
    assert days[DAY, "tls"] == (7, 2)
    assert days[DAY, "failure"] == (0, 2)
    assert names[DAY, "example.org"] == {
        ("example.org", "192.0.2.1"): (8, 6),
        ("a.example.org", "192.0.2.2"): (0, 5),
    }


def test_a_report_that_comes_again_is_not_added_again(several: Database) -> None:
    before = summed(several)
    keep(several, aggregate(2, [("example.org", "192.0.2.1", 4, True)]), failure(5), tls(7))
    assert summed(several) == before == of_records(several)


def test_what_a_report_was_added_to_is_taken_back_when_it_is_replaced(several: Database) -> None:
    """And what replaces it is added."""
    forged = [("example.org", "192.0.2.1", 100, False), ("b.example", "192.0.2.9", 1000, False)]
    before = summed(several)
    for report in (aggregate(8, forged), tls(8)):
        with several.writing() as connection:
            received.keep(connection, ReportSender("reporter.example", "fail"), report, now=DAY * DAY_SECONDS)
    assert summed(several) != before
    keep(several, aggregate(8, [("example.org", "192.0.2.1", 2, True)]), tls(8))
    days, names = summed(several)
    assert (days, names) == of_records(several)
    assert days[DAY, "aggregate"] == (before[0][DAY, "aggregate"][0] + 2, before[0][DAY, "aggregate"][1])
    assert ("b.example", "192.0.2.9") not in names[DAY, "example.org"]


def test_what_a_report_was_added_to_is_taken_back_when_it_is_too_old(
    several: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "STEP_REPORTS", 2)
    later = (DAY + 4) * DAY_SECONDS
    keep(several, aggregate(9, [("example.org", "192.0.2.1", 1, True)]), now=later)
    prune(several, KEPT, (DAY + 12) * DAY_SECONDS)
    assert summed(several) == of_records(several)
    assert summed(several)[1] == {(DAY, "example.org"): {("example.org", "192.0.2.1"): (1, 0)}}
    prune(several, KEPT, later + 12 * DAY_SECONDS)
    assert summed(several) == ({}, {})


@pytest.mark.parametrize("whom", [Whom(domain="gone.example"), Whom(address=ADDRESS)], ids=["domain", "address"])
def test_what_a_report_was_added_to_is_taken_back_when_it_is_forgotten(several: Database, whom: Whom) -> None:
    assert sum(each.count for each in forget(several, whom)) > 0
    days, names = summed(several)
    assert (days, names) == of_records(several)
    assert ((DAY, "gone.example") in names) is bool(whom.address)
    assert ((DAY, "failure") in days) is bool(whom.domain)


def test_what_another_host_has_taken_back_is_not_taken_back_again(several: Database) -> None:
    before = summed(several)
    gone = aggregate(99, [("example.org", "192.0.2.1", 4, True)])
    with several.writing() as connection:
        received_counts.take_back(connection, [gone.id_from(SENDER), aggregate(3, [], day=DAY - 1).id_from(SENDER)])
    days, names = summed(several)
    assert (days | before[0], names | before[1]) == before
    assert set(before[0]) - set(days) == {(DAY - 1, "aggregate")}


def test_the_names_with_most_messages_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("MAX_NAMES", 5), ("KEPT_NAMES", 3), ("KEPT_AUTHORS", 2)):
        monkeypatch.setattr(received_counts, name, value)
    few: dict[Name, Figures] = {("a", f"{number}"): (1, 0) for number in range(5)}
    assert folded(few) == few
    # b has more than c by many clients; the client of c has most.
    many: dict[Name, Figures] = {("c", "9"): (0, 3), ("", "8"): (9, 9), ("a", "1"): (5, 1), ("a", ""): (1, 0)}
    many |= {("b", f"{number}"): (0, 1) for number in range(4)}
    assert folded(many) == {("", ""): (9, 12), ("a", "1"): (5, 1), ("a", ""): (1, 0), ("b", ""): (0, 4)}


@pytest.mark.parametrize("seed", range(6))
def test_sums_stay_exact_when_rare_names_are_counted_together(
    database: Database, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """Reports come and go in any order."""
    for name, value in (("MAX_NAMES", 9), ("KEPT_NAMES", 4), ("KEPT_AUTHORS", 2)):
        monkeypatch.setattr(received_counts, name, value)
    chosen = random.Random(seed)  # noqa: S311  # not for secrets
    there: list[ReceivedAggregate] = []
    was_folded = False
    for number in range(40):
        if there and chosen.random() < 0.4:
            gone = chosen.sample(there, min(len(there), chosen.randint(1, 3)))
            with database.writing() as connection:
                identities = [report.id_from(SENDER) for report in gone]
                received_counts.take_back(connection, identities)
                for column in (schema.received_rows.c.report, schema.received_reports.c.id):
                    connection.execute(column.table.delete().where(column.in_(identities)))
            there = [report for report in there if report not in gone]
        else:
            names = [
                (
                    chosen.choice(("", "a.example", "b.example", "c.example", "d.example")),
                    f"192.0.2.{chosen.randint(1, 20)}",
                    chosen.randint(1, 9),
                    chosen.random() < 0.5,
                )
                for _ in range(chosen.randint(1, 25))
            ]
            there.append(aggregate(number, names, domain=chosen.choice(("example.org", "example.net"))))
            keep(database, there[-1])
        check(database)
        was_folded |= summed(database)[1] != of_records(database)[1]
    assert was_folded
    with database.writing() as connection:
        received_counts.take_back(connection, [report.id_from(SENDER) for report in there])
    assert summed(database) == ({}, {})


def test_a_report_with_very_many_names_is_bounded(database: Database) -> None:
    names = [(f"a{number}.example", f"192.0.2.{number % 250}", 1, False) for number in range(3000)]
    keep(database, aggregate(1, [*names, ("example.org", "192.0.2.1", 2, True)]))
    check(database)
    found = summed(database)[1][DAY, "example.org"]
    assert found["example.org", "192.0.2.1"] == (2, 0)
    assert len(found) == received_counts.KEPT_AUTHORS + 1


def test_reports_of_an_older_assay_are_added_up(where: str, tmp_path: Path) -> None:
    """As if they had come now."""
    many, others = (
        [
            (f"a{number % authors}.example" if number % 9 else "", f"192.0.2.{number}", 1000 + number, True)
            for number in range(700)
        ]
        for authors in (80, 30)
    )
    now = open_database(str(tmp_path / "now.sqlite"))
    keep(now, aggregate(1, many), aggregate(2, others, domain="example.net"), failure(3), tls(4), tls(5))
    keep(now, aggregate(6, many[:3], day=DAY - 3), aggregate(7, many[1:4], day=DAY - 3))
    older = connect(where, PASSWORD)
    with older.writing() as connection:
        upgrade(connection, "0009")
        with now.reading() as reading:
            for table in (schema.received_reports, schema.received_rows):
                connection.execute(insert(table), [row._asdict() for row in reading.execute(select(table))])
    assert older.migrate() == "0009"
    assert summed(older) == summed(now)
    check(older)
    for domain in ("example.org", "example.net"):
        assert len(summed(older)[1][DAY, domain]) < len(many)
    with older.writing() as connection:
        received_counts.take_back(connection, list(connection.execute(select(schema.received_reports.c.id)).scalars()))
    assert summed(older) == ({}, {})
    older.close()
    now.close()


def test_hosts_that_keep_and_remove_reports_at_once(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reports of two mails come in another order to each; none waits for the other in a circle."""
    monkeypatch.setattr(retention, "STEP_REPORTS", 1)
    database = connect(where, PASSWORD)
    database.migrate()
    reports = [aggregate(number, [("example.org", f"192.0.2.{number}", 1, True)]) for number in range(30)]
    keep(database, *(replace(report, organization="old") for report in reports), now=DAY * DAY_SECONDS)
    begun = threading.Barrier(3)
    failed: list[BaseException] = []

    def host(of_host: Sequence[Received]) -> None:
        own = open_database(where, PASSWORD)
        begun.wait()
        try:
            for start in range(0, len(of_host), 3):
                keep(own, *of_host[start : start + 3], now=(DAY + 9) * DAY_SECONDS)
        except BaseException as error:
            failed.append(error)
        own.close()

    hosts = [threading.Thread(target=host, args=(each,)) for each in (reports, reports[::-1])]
    for thread in hosts:
        thread.start()
    begun.wait()
    prune(database, KEPT, (DAY + 11) * DAY_SECONDS)
    for thread in hosts:
        thread.join()
    assert not failed
    with database.reading() as connection:
        assert connection.execute(select(func.count()).select_from(schema.received_reports)).scalar() == len(reports)
    assert summed(database) == of_records(database)
    database.close()
