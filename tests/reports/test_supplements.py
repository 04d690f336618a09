# SPDX-License-Identifier: GPL-3.0-or-later
"""Messages that are written after the reports about their day were planned: each is in exactly one report."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from assay.reports.planning import supplements_to_plan
from assay.store import outbox, report_days
from assay.store.outbox import DAY_SECONDS
from assay.store.report_days import LATE_DAYS
from nameserver import NameServer
from postgresql import Postgresql
from receiving import Receiver
from report_world import LATER, NEXT_DAY, ROWS, Reporting, failed, seen
from reporting import counted, mailed
from store_rows import DAY


@pytest.fixture
def section() -> Mapping[str, Any]:
    return {"spread_hours": 0.0}


def reports(world: Reporting) -> list[Mapping[str, Any]]:
    return [mailed(octets)[1] for _, _, octets in world.receiver.taken]


def test_what_comes_late_is_in_a_supplement(world: Reporting) -> None:
    rows = [seen(number, client=f"192.0.2.{number % 5}") for number in range(40)]
    world.see(*rows[:20])
    world.turn(NEXT_DAY)
    world.see(*rows[10:35])  # some of them again
    world.turn(LATER)
    assert len(world.receiver.taken) == 1
    world.turn(NEXT_DAY + DAY_SECONDS)
    world.see(*rows)
    for days in (2, 3):
        world.turn(NEXT_DAY + days * DAY_SECONDS)
    found = reports(world)
    assert [counted([report]).total() for report in found] == [20, 15, 5]
    assert counted(found) == Counter(row.client for row in rows)
    assert len({report["report_metadata"]["report_id"] for report in found}) == 3
    assert len({report["report_metadata"]["begin_date"] for report in found}) == 1
    listed = sorted(world.all_reports(), key=lambda each: each.supplement)
    assert [(each.supplement, each.messages, each.state) for each in listed] == [
        (0, 20, "sent"),
        (1, 15, "sent"),
        (2, 5, "sent"),
    ]


def test_a_report_does_not_change_when_it_is_made_again(world: Reporting, tmp_path: Path) -> None:
    """Another host has no file of it."""
    world.see(*(seen(number, rua="mailto:a@example.com,mailto:b@example.com") for number in range(5)))
    world.receiver.replies["b@example.com"] = "450 later"
    world.turn(NEXT_DAY)
    world.see(*(seen(number, rua="mailto:a@example.com,mailto:b@example.com") for number in range(5, 9)))
    for file in (tmp_path / "store" / "reports").iterdir():
        file.unlink()
    world.receiver.replies.clear()
    world.turn(LATER)
    first, second = reports(world)
    assert first == second


def test_a_sender_that_ended_before_it_had_planned(world: Reporting) -> None:
    world.see(seen(1))
    with world.database.writing() as connection:
        report_days.close(connection, DAY, now=NEXT_DAY, dry_run=False)
    world.see(seen(2))
    with world.database.writing() as connection:
        report_days.close(connection, DAY, now=NEXT_DAY, dry_run=False)
    world.see(seen(3))
    world.turn(NEXT_DAY)
    assert [counted([report]).total() for report in reports(world)] == [1, 1]
    world.turn(NEXT_DAY + DAY_SECONDS)
    assert [counted([report]).total() for report in reports(world)] == [1, 1, 1]


def test_a_host_whose_clock_is_slow_sees_that_the_day_is_closed(world: Reporting) -> None:
    with world.database.writing() as connection:
        report_days.close(connection, DAY, now=NEXT_DAY, dry_run=False)
        midnight = (DAY + 1) * DAY_SECONDS
        assert report_days.supplements(connection, {DAY}, midnight - 1800) == {DAY: 1}


def test_all_mail_of_the_day_decides_whether_there_is_one(world: Reporting) -> None:
    world.see(seen(1), *(failed(number, "few.example") for number in range(100, 108)))
    world.turn(NEXT_DAY)
    assert world.reports()["few.example"].state == "not sent"
    world.see(failed(2), *(failed(number, "few.example") for number in range(108, 112)))
    world.turn(NEXT_DAY + DAY_SECONDS)
    late = {each.domain: each for each in world.all_reports() if each.supplement}
    # Of the first domain little came late and all of it failed; but it got a report about that day.
    assert (late["example.com"].state, late["example.com"].messages) == ("sent", 1)
    assert late["few.example"].messages == 4
    assert "min_messages" not in late["few.example"].why


def test_the_day_of_a_dry_run_stays_one(world: Reporting) -> None:
    with world.database.writing() as connection:
        connection.exec_driver_sql("DELETE FROM report_days")
    world.see(seen(1))
    world.turn(NEXT_DAY)
    world.see(seen(2), seen(3))
    world.turn(NEXT_DAY + DAY_SECONDS)
    assert world.receiver.taken == []
    assert [each.state for each in world.all_reports()] == ["dry run", "dry run"]


def test_what_comes_a_week_later_is_in_none() -> None:
    today = NEXT_DAY // DAY_SECONDS
    assert supplements_to_plan([today - LATE_DAYS - 1, today - LATE_DAYS, today - 1, today], NEXT_DAY) == [
        today - LATE_DAYS,
        today - 1,
    ]


def test_no_message_is_written_into_a_report_that_is_being_closed(tmp_path: Path, postgresql: Postgresql) -> None:
    """The process that closes a report waits for those that are writing, and these then see it."""
    with NameServer(ROWS) as nameserver, Receiver() as receiver:
        world = Reporting(tmp_path, nameserver, receiver, database=postgresql.create())
    closing = threading.Event()
    closed = threading.Event()

    def close() -> None:
        with world.database.writing() as connection:
            closing.set()
            report_days.close(connection, DAY, now=NEXT_DAY, dry_run=False)
        closed.set()

    thread = threading.Thread(target=close)
    with world.database.writing() as connection:
        assert report_days.supplements(connection, {DAY}, NEXT_DAY) == {}
        thread.start()
        assert closing.wait(10)
        assert not closed.wait(0.5)
    thread.join(10)
    assert closed.is_set()
    with world.database.writing() as connection:
        assert report_days.supplements(connection, {DAY, DAY + 1}, NEXT_DAY) == {DAY: 1}
    with world.database.reading() as connection:
        assert outbox.candidates(connection, DAY) == []
        assert report_days.known_days(connection)[DAY].late
    world.database.close()
