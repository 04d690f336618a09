# SPDX-License-Identifier: GPL-3.0-or-later
"""Rows into a database: all of a batch or nothing, and each once."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from sqlalchemy import Table, event, func, select

from assay.store import schema
from assay.store.database import Database, open_database
from assay.store.feeding import UnwritableError
from assay.store.rows import DmarcRow, FindingRow, PublishedRow
from assay.store.statements import statements_of
from assay.store.tallies import Tallies
from assay.store.writer import Writer
from store_rows import DAY, row


def content(database: Database, table: Table) -> list[dict[str, Any]]:
    with database.reading() as connection:
        found = connection.execute(select(table).order_by(*table.primary_key.columns))
        return [dict(values._mapping) for values in found]


def counts(database: Database, kind: str) -> dict[tuple[str, str, str], int]:
    return {
        (found["subject"], found["source"], found["word"]): found["count"]
        for found in content(database, schema.counts)
        if found["kind"] == kind
    }


def total(database: Database, table: Table) -> int:
    with database.reading() as connection:
        return connection.execute(select(func.count()).select_from(table)).scalar_one()


class TestOnce:
    def test_a_row_that_comes_again_is_not_written_again(self, database: Database) -> None:
        writer = Writer(database)
        assert writer.write([row(1), row(2), row(1)]) == 2
        assert writer.write([row(2), row(3)]) == 1
        assert total(database, schema.messages) == 3
        assert counts(database, "host") == {("mx.example.net", "", "inbound"): 3}

    @pytest.mark.parametrize("sample", [0.0, 0.3, 1.0])
    def test_counts_and_groups_are_of_all_messages_whatever_is_sampled(self, database: Database, sample: float) -> None:
        rows = [row(number) for number in range(400)]
        for _ in range(2):
            Writer(database, sample).write(rows)
        kept = total(database, schema.messages)
        assert kept == pytest.approx(400 * sample, abs=0 if sample in (0, 1) else 40)
        assert total(database, schema.findings) == 4 * kept
        assert counts(database, "host") == {("mx.example.net", "", "inbound"): 400}
        assert [group["count"] for group in content(database, schema.report_groups)] == [400]

    @pytest.mark.parametrize("before", [0, 2000])
    def test_a_row_that_the_tables_forbid_is_not_left_out_in_silence(self, database: Database, before: int) -> None:
        """Alone, or in a statement with many rows."""
        rows = [(number.to_bytes(16, "big"), DAY) for number in [*range(before), 7, 7]]
        with pytest.raises(UnwritableError), database.writing() as connection:
            statements_of(database).insert(connection, schema.seen, rows)
        assert total(database, schema.seen) == 0

    def test_a_statement_has_no_more_parameters_than_each_version_of_sqlite_takes(self, tmp_path: Path) -> None:
        """Of those before 3.32, that is 999."""
        with contextlib.closing(open_database(str(tmp_path / "store.sqlite"))) as database:

            def limit(connection: sqlite3.Connection, _: object) -> None:
                connection.setlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER, 999)

            event.listen(database.engine, "connect", limit)
            database.close()  # what is open has no limit
            assert Writer(database).write([row(number) for number in range(1500)]) == 1500
            assert total(database, schema.messages) == total(database, schema.seen) == 1500

    @pytest.mark.parametrize("before", [1, 60])
    def test_all_or_nothing(self, database: Database, before: int) -> None:
        rows = [row(number) for number in range(before)]
        with pytest.raises(UnwritableError):
            Writer(database).write([*rows, row(before, recipient_count=1 << 70)])
        assert all(total(database, table) == 0 for table in schema.metadata.sorted_tables)


class TestCounts:
    def test_what_is_counted(self, database: Database) -> None:
        again = FindingRow("dkim", "dkim", "fail", "example.com", "s2")
        Writer(database).write([row(1), row(2, findings=(*row(2).findings, again))])
        assert counts(database, "result") == {
            ("iprev", "", "pass"): 2,
            ("spf.mailfrom", "", "pass"): 2,
            ("dkim", "", "fail"): 2,  # messages, not signatures
            ("dmarc", "", "fail"): 2,
        }
        assert counts(database, "action") == {("dmarc.quarantine", "", "quarantine"): 2}
        assert counts(database, "watched") == {("rule strict", "", "reject"): 2}
        assert counts(database, "domain") == {("example.com", "", "fail"): 2}
        assert counts(database, "source") == {("192.0.2.1", "", "fail"): 2}
        assert counts(database, "failing") == {("example.com", "192.0.2.1", "quarantine"): 2}
        assert {found["day"] for found in content(database, schema.counts)} == {DAY}

    def test_mail_of_ours_is_no_ones_failure(self, database: Database) -> None:
        Writer(database).write([row(1, direction="outbound")])
        assert not [kind for kind in ("domain", "source", "failing") if counts(database, kind)]

    def test_counts_add_up_from_batch_to_batch(self, database: Database) -> None:
        writer = Writer(database)
        for start in range(0, 30, 10):
            writer.write([row(number) for number in range(start, start + 10)])
        assert counts(database, "domain") == {("example.com", "", "fail"): 30}


class TestGroups:
    def test_messages_that_are_alike_are_one_record(self, database: Database) -> None:
        Writer(database).write([row(1), row(2), row(3, client="192.0.2.2"), row(4, report_mail=True)])
        groups = content(database, schema.report_groups)
        assert sorted((group["client"], group["count"], group["report_mail"]) for group in groups) == [
            ("192.0.2.1", 3, 1),
            ("192.0.2.2", 1, 0),
        ]
        assert groups[0]["dkim"] == '[["example.com","s1","fail","the body was changed",false]]'
        assert groups[0]["spf"] == '["example.org","pass",""]'
        (published,) = content(database, schema.published)
        assert (published["domain"], published["first_seen"], published["last_seen"]) == (
            "example.com",
            row(1).time,
            row(4).time,
        )
        assert {group["published"] for group in groups} == {published["id"]}

    def test_a_message_that_comes_again_is_in_no_group(self, database: Database) -> None:
        dmarc = row(1).dmarc
        assert dmarc is not None
        Writer(database).write([row(1, dmarc=replace(dmarc, disposition="")), row(2, dmarc=None)])
        assert content(database, schema.report_groups) == []

    def test_another_record_is_another_group(self, database: Database) -> None:
        other = DmarcRow(PublishedRow("example.com", "v=DMARC1; p=none", "treewalk"), "none", "none", False, False)
        Writer(database).write([row(1), row(2, dmarc=other)])
        assert len(content(database, schema.published)) == len(content(database, schema.report_groups)) == 2

    def test_the_time_of_a_record_is_widened(self, database: Database) -> None:
        writer = Writer(database)
        for number in (5, 1, 9, 3):
            writer.write([row(number)])
        (published,) = content(database, schema.published)
        assert (published["first_seen"], published["last_seen"]) == (row(1).time, row(9).time)


def test_addresses_can_be_searched_for_in_any_spelling(database: Database) -> None:
    Writer(database).write(
        [row(1, sender="<Ann@Example.org>", author="ann@example.com", login="Ann", recipients=("<Bob@example.net>",))]
    )
    assert {(found["role"], found["folded"]) for found in content(database, schema.addresses)} == {
        ("sender", "ann@example.org"),
        ("author", "ann@example.com"),
        ("login", "ann"),
        ("recipient", "bob@example.net"),
    }


def test_sums_are_in_one_order_whatever_order_rows_come_in() -> None:
    """So that hosts that write at once lock the same counts in the same order."""
    rows = [row(number, client=f"192.0.2.{number % 7}", author_domain=f"{number % 5}.example") for number in range(40)]
    forward, backward = Tallies(rows), Tallies(rows[::-1])
    assert forward.counts == backward.counts
    assert forward.report_groups == backward.report_groups
    assert forward.published == backward.published
