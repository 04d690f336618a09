# SPDX-License-Identifier: GPL-3.0-or-later
"""Databases that fail, and hosts that write at once: no row is lost, none is written twice."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import func, insert, select, text

from assay.store import database as module
from assay.store import schema
from assay.store.condition import condition
from assay.store.database import Database, open_database
from assay.store.feeding import UnavailableError
from assay.store.writer import Writer
from postgresql import PASSWORD, Postgresql
from store_rows import row
from store_writing import BATCH, PATIENCE

_NOBODY = 65534
ROOT = Path(__file__).parents[2]


@contextlib.contextmanager
def host(where: str, *arguments: int) -> Iterator[subprocess.Popen[str]]:
    """A process that writes (`store_writing`)."""
    paths = f"{ROOT / 'tests'}:{ROOT / 'milter'}"
    command = [sys.executable, ROOT / "tests" / "store_writing.py", where, *map(str, arguments)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": paths}
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def ended(process: subprocess.Popen[str]) -> str:
    """Wait for its end. Returns what went wrong last."""
    said, _ = process.communicate(timeout=3 * PATIENCE)
    assert process.returncode == 0
    return said


def counted(database: Database) -> int:
    """How many rows are counted, in each of the places that count them."""
    with database.reading() as connection:
        sums = {
            int(connection.execute(query).scalar_one() or 0)
            for query in (
                select(func.sum(schema.counts.c.count)).where(schema.counts.c.kind == "host"),
                select(func.sum(schema.counts.c.count)).where(schema.counts.c.kind == "source"),
                select(func.sum(schema.report_groups.c.count)),
                select(func.count()).select_from(schema.seen),
            )
        }
    assert len(sums) == 1, sums
    return sums.pop()


def test_hosts_that_write_at_once_add_up(database: Database, where: str) -> None:
    """Half of the rows are written by both, as after a broker delivered again."""
    with host(where, 0, 1000) as first, host(where, 500, 1500) as second, host(where, 500, 1500) as third:
        for process in (first, second, third):
            ended(process)
    assert counted(database) == 1500


def test_a_server_that_is_killed_in_the_middle(postgresql: Postgresql) -> None:
    where = postgresql.create()
    with contextlib.closing(module.connect(where, PASSWORD)) as database:
        database.migrate()
    with host(where, 0, 2000) as first, host(where, 1000, 3000) as second:
        for _ in range(2):
            before = total(where)
            deadline = time.monotonic() + PATIENCE
            while total(where) < min(before + 200, 2900):
                assert time.monotonic() < deadline
                time.sleep(0.02)
            postgresql.kill()
            with pytest.raises(UnavailableError, match="onnection"):
                open_database(where, PASSWORD)
            postgresql.start()
        assert ended(first) + ended(second) != "\n\n"
    with contextlib.closing(open_database(where, PASSWORD)) as database:
        assert counted(database) == 3000


def total(where: str) -> int:
    with contextlib.closing(open_database(where, PASSWORD)) as database:
        return counted(database)


def test_a_writer_whose_connection_ended_writes_by_the_next(postgresql: Postgresql) -> None:
    where = postgresql.create()
    with contextlib.closing(module.connect(where, PASSWORD)) as database:
        database.migrate()
        writer = Writer(database)
        writer.write([row(1)])
        postgresql.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'assay'")
        with contextlib.suppress(UnavailableError):
            writer.write([row(2)])
        writer.write([row(2), row(3)])
        assert counted(database) == 3


def test_a_process_that_is_killed_writes_all_of_a_batch_or_nothing(database: Database, where: str) -> None:
    with host(where, 0, 100_000) as process:
        deadline = time.monotonic() + PATIENCE
        while counted(database) < 4 * BATCH:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.wait()
    written = counted(database)
    assert written % BATCH == 0
    Writer(database).write([row(number) for number in range(written + BATCH)])
    assert counted(database) == written + BATCH


class TestSqlite:
    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        path = tmp_path / "store.sqlite"
        with contextlib.closing(open_database(str(path))) as database:
            Writer(database).write([row(1)])
        return path

    def test_a_locked_database(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "BUSY_SECONDS", 0.1)
        with contextlib.closing(open_database(str(path))) as database:
            with contextlib.closing(sqlite3.connect(path)) as other:
                other.execute("BEGIN IMMEDIATE")
                with pytest.raises(
                    UnavailableError, match="database is locked; another program writes to it; end that"
                ):
                    Writer(database).write([row(2)])
            assert Writer(database).write([row(2)]) == 1

    def test_one_who_writes_shortly_is_waited_for(self, path: Path) -> None:
        with contextlib.closing(open_database(str(path))) as database:
            other = sqlite3.connect(path, check_same_thread=False)
            other.execute("BEGIN IMMEDIATE")
            later = threading.Timer(0.3, other.close)
            later.start()
            assert Writer(database).write([row(2)]) == 1
            later.join()

    def test_readers_and_the_writer_do_not_wait_for_each_other(self, path: Path) -> None:
        reader = open_database(str(path), may_write=False)
        with contextlib.closing(open_database(str(path))) as database, contextlib.closing(reader):
            with reader.reading() as connection:
                query = select(func.count()).select_from(schema.messages)
                assert connection.execute(query).scalar_one() == 1
                Writer(database).write([row(2)])
                assert connection.execute(query).scalar_one() == 1  # one state until its end
            assert counted(reader) == 2

    def test_a_full_disk(self, path: Path) -> None:
        rows = [row(number) for number in range(2000)]
        with contextlib.closing(open_database(str(path))) as database:
            soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
            before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 200_000, hard))
            try:
                with pytest.raises(UnavailableError, match=r"disk"):
                    [Writer(database).write(rows[start : start + 500]) for start in range(0, 2000, 500)]
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
                signal.signal(signal.SIGXFSZ, before)
            written = counted(database)
            assert written < 2000
            assert Writer(database).write(rows) == 2000 - written
            assert counted(database) == 2000

    def test_a_file_that_is_no_database(self, tmp_path: Path) -> None:
        path = tmp_path / "store.sqlite"
        path.write_text("not a database\n" * 1000)
        with pytest.raises(UnavailableError, match=r"file is not a database; move the file away; a new one is made"):
            open_database(str(path))

    def test_tables_that_somebody_has_changed(self, path: Path) -> None:
        open_database(str(path)).close()
        with contextlib.closing(sqlite3.connect(path)) as connection:
            connection.execute("DROP TABLE messages")
        with pytest.raises(UnavailableError, match=r"no such table: messages; stop the daemon, and restore the file"):
            condition(open_database(str(path)))

    def test_a_damaged_file(self, path: Path) -> None:
        with contextlib.closing(open_database(str(path))) as database:
            Writer(database).write([row(number) for number in range(500)])
        with path.open("r+b") as file:
            file.seek(8192)
            file.write(os.urandom(path.stat().st_size - 8192))
        with pytest.raises(UnavailableError, match=r"malformed; stop the daemon, rescue what is left"):
            Writer(open_database(str(path))).write([row(number) for number in range(500, 1000)])

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
    def test_a_file_that_may_not_be_written(self, path: Path) -> None:
        folders = [folder for folder in path.parents if folder.stat().st_uid == os.geteuid() and folder != Path("/")]
        before = {folder: folder.stat().st_mode for folder in folders}
        for folder in folders:
            folder.chmod(0o711 | before[folder])
        try:
            for mode, what in (
                (0o644, "attempt to write a readonly database"),
                (0o600, "unable to open database file"),
            ):
                path.chmod(mode)
                with host(str(path), 100, 101, _NOBODY) as process:
                    assert f"{what}; the user who runs this must be able to write the file and" in ended(process)
        finally:
            for folder in folders:
                folder.chmod(before[folder])

    def test_a_directory_that_is_not_there(self, tmp_path: Path) -> None:
        with pytest.raises(UnavailableError, match=r"store.sqlite: No such file or directory"):
            open_database(str(tmp_path / "none" / "store.sqlite"))


class TestPostgresql:
    def test_hosts_never_wait_for_each_other_in_a_circle(self, postgresql: Postgresql) -> None:
        """Whoever waits for another at the first row of both has locked none that the other still needs."""
        where = postgresql.create()
        waiting = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'assay' AND wait_event_type = 'Lock'"
        with contextlib.closing(module.connect(where, PASSWORD)) as database, ThreadPoolExecutor(1) as thread:
            database.migrate()
            with contextlib.suppress(ZeroDivisionError), database.writing() as other:
                other.execute(insert(schema.seen).values(id=row(1).id, day=0))
                writing = thread.submit(Writer(database).write, [row(2), row(1)])
                deadline = time.monotonic() + PATIENCE
                while postgresql.execute(waiting) == "0":
                    assert time.monotonic() < deadline
                    time.sleep(0.01)
                other.execute(text("SET lock_timeout = '1s'"))
                other.execute(insert(schema.seen).values(id=row(2).id, day=0))
                raise ZeroDivisionError  # nothing of it stays
            assert writing.result(PATIENCE) == 2

    def test_what_is_wrong_names_the_fix_and_no_secret(self, postgresql: Postgresql) -> None:
        where = postgresql.create()
        for url, password, fix in (
            (
                where,
                "a wrong one",
                r"password authentication failed .*; check the user, pg_hba.conf and store.password_f",
            ),
            (where, "", r"no password supplied; check the user, pg_hba.conf and store.password_file"),
            (
                where.replace("/test", "/none"),
                PASSWORD,
                r"does not exist; create the role and the database as docs/store",
            ),
            (where.replace("assay@", "postgres@"), PASSWORD, r"no pg_hba.conf entry .*; allow this host in the pg_hba"),
        ):
            with pytest.raises(UnavailableError, match=fix) as caught:
                open_database(url, password)
            assert not password or password not in str(caught.value)

    def test_rights_that_are_missing(self, postgresql: Postgresql) -> None:
        where = postgresql.create()
        with contextlib.closing(module.connect(where, PASSWORD)) as database:
            database.migrate()
            postgresql.execute("ALTER TABLE seen OWNER TO postgres", where.rpartition("/")[2])
            with pytest.raises(UnavailableError, match=r"permission denied .*; grant the rights that docs/store.md"):
                Writer(database).write([row(1)])
