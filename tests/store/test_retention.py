# SPDX-License-Identifier: GPL-3.0-or-later
"""What is too old goes, and nothing else."""

from __future__ import annotations

import itertools

import pytest
from sqlalchemy import Table, Text, func, insert, select, text

from assay.store import retention, schema, suppressions
from assay.store.database import Database
from assay.store.retention import GROUP_DAYS, SEEN_DAYS, Retention, prune
from assay.store.rows import AnswerRow, DmarcRow, MessageRow, PublishedRow
from assay.store.suppressions import Suppression
from assay.store.tallies import DAY_MILLISECONDS
from assay.store.writer import Writer
from report_world import with_failure
from store_rows import DAY, NOON, row

TODAY = NOON / 1000
KEPT = Retention(messages_days=30, counts_days=400, received_days=100)
TABLES = ("messages", "findings", "addresses", "answers", "counts", "report_groups", "published", "seen")


def aged(number: int, days: int) -> MessageRow:
    """A row of some days ago, with a DMARC record of its own."""
    time = NOON - days * DAY_MILLISECONDS + number
    record = PublishedRow("example.com", f"v=DMARC1; p=none; n={days}", "treewalk")
    dmarc = DmarcRow(record, "none", "none", False, False)
    return row(
        number,
        id=time.to_bytes(6, "big") + row(number).id[6:],
        time=time,
        sender="ann@example.com",
        dmarc=dmarc,
        answers=(AnswerRow("example.com", "TXT", "nodata"),),
    )


def written(database: Database, rows: list[MessageRow], days: int) -> None:
    Writer(database, clock=lambda: TODAY - days * 86_400).write(rows)


def left(database: Database) -> dict[str, int]:
    with database.reading() as connection:
        tables: list[Table] = [schema.metadata.tables[name] for name in TABLES]
        return {
            table.name: connection.execute(select(func.count()).select_from(table)).scalar_one() for table in tables
        }


@pytest.mark.parametrize(
    ("days", "gone"),
    [
        (0, set()),
        (SEEN_DAYS, set()),
        (SEEN_DAYS + 1, {"seen"}),
        (GROUP_DAYS, {"seen"}),
        (GROUP_DAYS + 1, {"seen", "report_groups"}),
        (30, {"seen", "report_groups"}),
        (31, {"seen", "report_groups", "messages", "findings", "addresses", "answers"}),
        (32, {"seen", "report_groups", "messages", "findings", "addresses", "answers", "published"}),
        (400, {"seen", "report_groups", "messages", "findings", "addresses", "answers", "published"}),
        (401, set(TABLES)),
    ],
)
def test_each_table_has_its_age(database: Database, days: int, gone: set[str]) -> None:
    written(database, [aged(1, days)], days)
    prune(database, KEPT, TODAY)
    assert {table for table, count in left(database).items() if not count} == gone


def test_the_young_stay_where_the_old_go(database: Database) -> None:
    for days in (0, 500):
        written(database, [aged(number + days, days) for number in range(10)], days)
    young = left(database)
    assert young["messages"] == 20
    assert prune(database, KEPT, TODAY) > 0
    assert left(database) == {name: count // 2 for name, count in young.items()}
    assert prune(database, KEPT, TODAY) == 0


def test_a_row_that_waited_long_is_known_as_long_as_others(database: Database) -> None:
    """Else one that was written after an outage of weeks could be counted twice."""
    late = [aged(1, 20)]
    written(database, late, 0)
    prune(database, KEPT, TODAY)
    assert Writer(database).write(late) == 0


def test_steps_are_small(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "STEP_ROWS", 7)
    written(database, [aged(number, 40) for number in range(30)], 40)
    clock = itertools.count(0.0, 1.0)
    prune(database, KEPT, TODAY, seconds=3.0, clock=lambda: next(clock))
    assert left(database)["messages"] == 30 - 2 * 7  # then the time is over
    assert left(database)["findings"] == 4 * left(database)["messages"]
    prune(database, KEPT, TODAY)
    assert left(database)["messages"] == 0


def test_reports_that_went_out_go_with_the_counts(database: Database) -> None:
    tables = (schema.report_days, schema.reports, schema.deliveries)
    with database.writing() as connection:
        for day in (DAY - 401, DAY - 400):
            for table in tables:
                values: dict[str, object] = {
                    column.name: "" if isinstance(column.type, Text) else 0 for column in table.columns
                }
                values |= {"day": day, "dry_run": False, "id": f"r{day}", "report": f"r{day}"}
                connection.execute(
                    insert(table).values({name: values[name] for name in values if name in table.columns})
                )
    prune(database, KEPT, TODAY)
    with database.reading() as connection:
        for table, kept in zip(tables, (DAY - 400, f"r{DAY - 400}", f"r{DAY - 400}"), strict=True):
            assert connection.execute(select(next(iter(table.columns)))).all() == [(kept,)], table.name


def test_headers_for_failure_reports_go_after_a_day(database: Database) -> None:
    failing = with_failure(1)
    now = failing.time / 1000
    Writer(database, clock=lambda: now).write([failing])
    for seconds, left_over in ((86_399, 1), (86_401, 0)):
        prune(database, KEPT, now + seconds)
        with database.reading() as connection:
            assert connection.execute(select(func.count()).select_from(schema.incidents)).scalar() == left_over


def test_a_suppression_goes_a_week_after_its_end(database: Database) -> None:
    now, week = int(TODAY), 7 * 86_400
    ends = {
        "forever.example": 0,
        "in-force.example": now + 1,
        "over.example": now - week + 1,
        "old.example": now - week,
    }
    with database.writing() as connection:
        for subject, until in ends.items():
            suppressions.suppress(connection, Suppression(subject, until, "", 1))
    prune(database, KEPT, TODAY)
    with database.reading() as connection:
        found = {each.subject for each in suppressions.all_suppressions(connection)}
    assert found == {"forever.example", "in-force.example", "over.example"}


def test_one_host_prunes_for_all(database: Database) -> None:
    if database.is_sqlite:
        pytest.skip("a file belongs to one host")
    written(database, [aged(1, 40)], 40)
    with database.writing() as other:
        other.execute(text(f"SELECT pg_advisory_xact_lock({retention._PRUNING_LOCK})"))
        assert prune(database, KEPT, TODAY) == 0
    assert prune(database, KEPT, TODAY) > 0
