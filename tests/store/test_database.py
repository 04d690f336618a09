# SPDX-License-Identifier: GPL-3.0-or-later
"""Opening a database, and bringing its tables up to date."""

from __future__ import annotations

import contextlib
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from msgspec.structs import asdict
from sqlalchemy import Column, Connection, MetaData, Table, column, select, table, text

from assay.store import outbox, revisions, schema
from assay.store.database import Database, connect, open_database
from assay.store.feeding import UnavailableError
from assay.store.migrations import configuration, upgrade
from assay.store.outbox import OutgoingReport, ReportState
from assay.store.report_days import ReportDay, known_days
from assay.store.report_deliveries import ReportDelivery, deliveries_of
from assay.store.rows import FindingRow, MessageRow
from assay.store.schema import metadata
from assay.store.search import Criteria
from assay.store.statements import statements_of
from assay.store.tallies import Tallies
from assay.store.whole import exported
from assay.store.writer import Writer, finding_values, message_values
from postgresql import PASSWORD, Postgresql
from store_rows import DAY, row


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.sqlite"


def test_the_newest_migration_leaves_the_tables_of_the_schema(database: Database) -> None:
    with database.reading() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, metadata) == []


def write_as_before(database: Database, rows: list[MessageRow]) -> None:
    """Write rows into the tables as they are."""
    statements, tallies = statements_of(database), Tallies(rows)
    with database.writing() as connection:
        messages = Table("messages", MetaData(), autoload_with=connection)
        kept = [number for number, column in enumerate(schema.messages.columns) if column.name in messages.columns]
        older = Table("messages", MetaData(), *(Column(column.name, column.type) for column in messages.columns))
        values = [message_values(each, tallies) for each in rows]
        statements.see(connection, sorted(each.id for each in rows), DAY)
        statements.merge_published(connection, tallies.published)
        statements.insert(connection, older, [tuple(of[number] for number in kept) for of in values])
        statements.insert(connection, schema.findings, [found for each in rows for found in finding_values(each)])


@pytest.mark.parametrize("revision", revisions.OLDER)
def test_rows_of_an_older_assay_are_kept(where: str, revision: str) -> None:
    many = tuple(FindingRow("dkim", "dkim", "pass", "example.com", f"s{number}", True) for number in range(12))
    rows = [row(1), row(2, findings=()), row(3, findings=many), row(4), row(5, findings=(FindingRow("x", "y", '"ü]'),))]
    older = connect(where, PASSWORD)
    with older.writing() as connection:
        upgrade(connection, revision)
    write_as_before(older, rows)
    if not older.is_sqlite:  # which others may still use
        with pytest.raises(UnavailableError, match=f"older assay .revision {revision}.; run: assay store migrate"):
            open_database(where, PASSWORD)
        assert older.migrate() == revision
    older.close()
    database = open_database(where, PASSWORD)
    assert Writer(database).write([row(2), row(2000)]) == 1
    assert list(exported(database, Criteria())) == [row(2000), *reversed(rows)]
    with database.reading() as connection:
        table = schema.messages.c
        found = connection.execute(select(table.report_group).order_by(table.time)).scalars()
        (group,) = connection.execute(select(schema.report_groups.c.id)).scalars()
        tallies = Tallies(rows)
        before = [None if revision < "0007" else tallies.group_of(each) for each in rows]
        assert list(found) == [*before, group]
    database.close()


@pytest.mark.parametrize("revision", [each for each in revisions.OLDER if each >= "0002"])
def test_reports_of_an_older_assay_are_kept(where: str, revision: str) -> None:
    """All that is in no column of before has the value that says what was true then."""
    day = DAY - 1
    report = OutgoingReport("r", day, "example.com", (7,), ReportState.SENT, "", 1, 2, 3, 4, 5)
    delivery = ReportDelivery("r", "mailto:d@example.com", "example.com", ReportState.SENT, "250 taken", 1, 2, 3, "t")
    older = connect(where, PASSWORD)
    with older.writing() as connection:
        upgrade(connection, revision)
        metadata_of_before = MetaData()
        metadata_of_before.reflect(connection)
        for name, values in {
            "reports": {**asdict(report), "published": "[7]"},
            "deliveries": asdict(delivery),
            "report_days": {"day": day, "planned": 2, "dry_run": False},
        }.items():
            table = metadata_of_before.tables[name]
            by_default = {"form", "kind", "part_of", "part", "parts", "supplement"}
            kept = {key: each for key, each in values.items() if key in table.columns and key not in by_default}
            connection.execute(table.insert(), kept)
    if not older.is_sqlite:
        older.migrate()
    older.close()
    database = open_database(where, PASSWORD)
    with database.reading() as connection:
        assert outbox.report(connection, "r") == report
        assert deliveries_of(connection, "r") == [delivery]
        # Or the same reports would be planned, and sent, once more.
        assert known_days(connection) == {day: ReportDay(day, dry_run=False, closed=1, noted=1, late=False)}
    database.close()


_VALUES: dict[type, list[Any]] = {int: [3, 7], str: ["[3]", "[7]"], bytes: [b"3" * 16, b"7" * 16], bool: [False, True]}


@pytest.mark.parametrize("revision", revisions.OLDER)
def test_each_column_of_an_older_assay_is_kept(where: str, revision: str) -> None:
    """Rows of all tables, of which the columns differ from row to row, whatever they mean."""
    older = connect(where, PASSWORD)
    with older.writing() as connection:
        upgrade(connection, revision)
        before = _reflected(connection)
        rows = {
            name: [{column.name: _VALUES[column.type.python_type][number] for column in columns} for number in (0, 1)]
            for name, columns in before.items()
        }
        for name, values in rows.items():
            connection.execute(table(name, *map(column, values[0])).insert(), values)
    older.migrate()
    older.close()
    with contextlib.closing(open_database(where, PASSWORD)) as database, database.reading() as connection:
        assert before.keys() <= _reflected(connection).keys()
        for name, values in rows.items():
            query = select(*map(column, values[0])).select_from(table(name)).order_by(*map(column, values[0]))
            assert [dict(found) for found in connection.execute(query).mappings()] == values, name


def _reflected(connection: Connection) -> dict[str, list[Column[Any]]]:
    """The columns of all tables but Alembic's own."""
    found = MetaData()
    found.reflect(connection)
    return {name: list(each.columns) for name, each in found.tables.items() if name != "alembic_version"}


def test_a_database_without_tables_says_what_to_run(postgresql: Postgresql) -> None:
    with pytest.raises(UnavailableError, match="has no tables yet; run: assay store migrate"):
        open_database(postgresql.create(), PASSWORD)


def test_the_revisions_are_those_that_alembic_finds(path: Path) -> None:
    with connect(str(path)).reading() as connection:
        scripts = list(ScriptDirectory.from_config(configuration(connection)).walk_revisions())
    assert [script.revision for script in reversed(scripts)] == [*revisions.OLDER, revisions.NEWEST]


@pytest.mark.parametrize("library", ["psycopg", "sqlalchemy.pool.impl.QueuePool"])
def test_libraries_do_not_write_into_the_log_past_us(library: str) -> None:
    """As they do when a connection breaks: without a prefix, a level and a bound."""
    text = f"import logging; import assay.store.database; logging.getLogger({library!r}).error('lost')"
    printed = subprocess.run([sys.executable, "-c", text], capture_output=True, check=True)
    assert (printed.stdout, printed.stderr) == (b"", b"")


def test_others_cannot_read_the_file_or_what_sqlite_keeps_beside_it(path: Path) -> None:
    path.parent.chmod(0o750)
    database = open_database(str(path))
    Writer(database).write([row(1)])
    files = sorted(path.parent.iterdir())
    assert [file.name for file in files] == ["store.sqlite", "store.sqlite-shm", "store.sqlite-wal"]
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o640}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_what_root_makes_belongs_to_the_owner_of_the_directory(path: Path) -> None:
    os.chown(path.parent, 65534, 65534)
    open_database(str(path)).close()
    assert (path.stat().st_uid, path.stat().st_gid) == (65534, 65534)


def test_tables_of_a_newer_assay_are_left_alone(path: Path) -> None:
    database = open_database(str(path))
    with database.writing() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    database.close()
    for may_write in (True, False):
        with pytest.raises(UnavailableError, match=r"newer assay .revision 9999.; upgrade assay on this host"):
            open_database(str(path), may_write=may_write)


@pytest.mark.parametrize("how", ["moved away", "removed", "replaced"])
def test_a_file_that_an_operator_changes_is_followed(path: Path, tmp_path: Path, how: str) -> None:
    """A connection that is open stays with the old file."""
    other = tmp_path / "other"
    other.mkdir()
    with contextlib.closing(open_database(str(other / "store.sqlite"))) as backup:
        Writer(backup).write([row(7)])
    with (
        contextlib.closing(open_database(str(path))) as database,
        contextlib.closing(open_database(str(path), may_write=False)) as reader,
    ):
        writer, mode = Writer(database), path.stat().st_mode
        writer.write([row(1)])
        assert list(exported(reader, Criteria())) == [row(1)]
        for file in path.parent.glob("store.sqlite*"):
            file.rename(tmp_path / f"old{file.name}") if how == "moved away" else file.unlink()
        if how == "replaced":
            (other / "store.sqlite").rename(path)
        else:
            with pytest.raises(UnavailableError, match="there is no database yet"):
                list(exported(reader, Criteria()))
        writer.write([row(2)])
        expected = [row(2), row(7)] if how == "replaced" else [row(2)]
        assert sorted(exported(reader, Criteria()), key=lambda each: each.id) == expected
        assert how == "replaced" or path.stat().st_mode == mode
    assert sorted(exported(open_database(str(path)), Criteria()), key=lambda each: each.id) == expected
    if how == "moved away":
        assert list(exported(open_database(str(tmp_path / "oldstore.sqlite")), Criteria())) == [row(1)]


@pytest.mark.parametrize("how", ["moved away", "replaced"])
def test_the_log_of_the_old_file_is_not_taken_for_that_of_the_new(path: Path, tmp_path: Path, how: str) -> None:
    """SQLite would write what is in the log into the new file, or remove the log, and with it rows of the old file."""
    old, other = tmp_path / "old", tmp_path / "other"
    for directory in (old, other):
        directory.mkdir()
    with contextlib.closing(open_database(str(other / "store.sqlite"))) as backup:
        Writer(backup).write([row(7)])
    with (
        contextlib.closing(open_database(str(path))) as database,
        contextlib.closing(open_database(str(path), may_write=False)) as reader,
    ):
        writer = Writer(database)
        writer.write([row(1)])
        assert list(exported(reader, Criteria())) == [row(1)]
        path.rename(old / path.name)
        if how == "replaced":
            (other / path.name).rename(path)
        with pytest.raises(UnavailableError, match="was replaced; the daemon opens it when it next writes"):
            list(exported(reader, Criteria()))
        writer.write([row(2)])
        expected = [row(2), row(7)] if how == "replaced" else [row(2)]
        assert sorted(exported(reader, Criteria()), key=lambda each: each.id) == expected
    assert not Path(f"{path}-wal.old").exists(), "all of it is in the file"
    assert list(exported(open_database(str(old / path.name)), Criteria())) == [row(1)]


@pytest.mark.parametrize("may_write", [True, False])
def test_a_file_that_goes_after_the_last_look_is_not_made_for_all_to_read(
    path: Path, monkeypatch: pytest.MonkeyPatch, may_write: bool
) -> None:
    open_database(str(path)).close()
    with contextlib.closing(open_database(str(path), may_write=may_write)) as database:
        database.close()
        path.unlink()
        with monkeypatch.context() as unseen:
            unseen.setattr(database, "_follow", lambda: None)
            with pytest.raises(UnavailableError, match="unable to open database file"):
                database.revision()
        assert not path.exists()


@pytest.mark.parametrize("name", ["a b?c#d%20e", "ä&=", "file:x"])
def test_any_name_of_a_directory(tmp_path: Path, name: str) -> None:
    directory = tmp_path / name
    directory.mkdir()
    with contextlib.closing(open_database(str(directory / "store.sqlite"))) as database:
        Writer(database).write([row(1)])
    assert (directory / "store.sqlite").stat().st_size
    assert [each.name for each in tmp_path.iterdir()] == [name]


@contextlib.contextmanager
def read_by_another_process(path: Path) -> Iterator[None]:
    """It is in a transaction that has read."""
    program = (
        "import sqlite3, sys; connection = sqlite3.connect(sys.argv[1], isolation_level=None); "
        "connection.execute('BEGIN'); connection.execute('SELECT count(*) FROM messages').fetchone(); "
        "print(flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"\n"
        yield  # to close its input ends it


@pytest.mark.parametrize("has_connection", [True, False])
def test_a_log_that_cannot_be_emptied_is_kept(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_connection: bool
) -> None:
    """Another process reads the old file. Without a connection to it, the log would go into the new one."""
    monkeypatch.setattr("assay.store.database.BUSY_SECONDS", 0.1)
    old, other = tmp_path / "old", tmp_path / "other"
    for directory in (old, other):
        directory.mkdir()
    with contextlib.closing(open_database(str(other / path.name))) as backup:
        Writer(backup).write([row(7)])
    with contextlib.closing(open_database(str(path))) as database, read_by_another_process(path):
        writer = Writer(database)
        writer.write([row(1)])
        path.rename(old / path.name)
        (other / path.name).rename(path)
        if not has_connection:
            database.close()
        writer.write([row(2)])
        assert sorted(exported(database, Criteria()), key=lambda each: each.id) == [row(2), row(7)]
    Path(f"{path}-wal.old").rename(old / f"{path.name}-wal")
    assert list(exported(open_database(str(old / path.name)), Criteria())) == [row(1)]


def test_a_file_of_a_newer_assay_in_its_place_is_not_touched(path: Path, tmp_path: Path) -> None:
    newer = tmp_path / "newer.sqlite"
    with contextlib.closing(open_database(str(newer))) as database, database.writing() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with contextlib.closing(open_database(str(path))) as database:
        for file in path.parent.glob("store.sqlite*"):
            file.unlink()
        newer.rename(path)
        for _ in range(2):
            with pytest.raises(UnavailableError, match="upgrade assay on this host"):
                Writer(database).write([row(1)])
            assert [*path.parent.glob("store.sqlite*")] == [path], "its log would be taken for that of the next file"
        path.unlink()
        Writer(database).write([row(1)])
    assert list(exported(open_database(str(path)), Criteria())) == [row(1)]


def test_a_reader_makes_no_file(path: Path) -> None:
    with pytest.raises(UnavailableError, match="there is no database yet"):
        open_database(str(path), may_write=False)
    assert not path.exists()


@pytest.mark.parametrize("may_write", [True, False])
def test_a_directory_that_is_not_there(tmp_path: Path, may_write: bool) -> None:
    with pytest.raises(UnavailableError, match=r"No such file or directory; create the directory, writable for"):
        open_database(f"{tmp_path}/none/store.sqlite", may_write=may_write)
    (tmp_path / "file").touch()
    with pytest.raises(UnavailableError, match=r"Not a directory; write the path of a directory as store.directory"):
        open_database(f"{tmp_path}/file/store.sqlite", may_write=may_write)


def test_a_reader_cannot_write(path: Path) -> None:
    open_database(str(path)).close()
    with pytest.raises(UnavailableError, match="readonly"):
        Writer(open_database(str(path), may_write=False)).write([row(1)])


def test_whether_rows_can_be_changed(database: Database, where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the rights of the file and its directory, or of the user."""
    assert database.can_change(schema.suppressions)
    if database.is_sqlite:
        monkeypatch.setattr("assay.store.database.os.access", lambda path, _: Path(path).suffix == ".sqlite")
        assert not database.can_change(schema.suppressions), "the directory, in which the log is"
        return
    for right in ("INSERT", "UPDATE", "DELETE"):
        with database.writing() as connection:
            connection.execute(text(f"REVOKE {right} ON suppressions FROM CURRENT_USER"))
        assert not database.can_change(schema.suppressions), right
        with database.writing() as connection:
            connection.execute(text(f"GRANT {right} ON suppressions TO CURRENT_USER"))
    assert database.can_change(schema.suppressions)
    options = f"{where}?options=-c%20default_transaction_read_only%3Don"
    with contextlib.closing(open_database(options, PASSWORD, may_write=False)) as standing_by:
        assert not standing_by.can_change(schema.suppressions)
