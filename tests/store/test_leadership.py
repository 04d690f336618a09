# SPDX-License-Identifier: GPL-3.0-or-later
"""Who sends reports: one of several processes, and another one when it ends, however it ends."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import text

from assay.store.database import Database, connect, open_database
from assay.store.feeding import UnavailableError
from assay.store.leadership import Leadership
from postgresql import PASSWORD, Postgresql
from running import until

END_SESSIONS = """
SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = current_database() AND pid IN
(SELECT pid FROM pg_locks WHERE locktype = 'advisory')
"""


@pytest.fixture
def other(database: Database, where: str) -> Iterator[Database]:
    """The same database, as another process opens it."""
    opened = open_database(where, PASSWORD)
    yield opened
    opened.close()


def test_one_of_two_has_it_until_it_gives_it_up(database: Database, other: Database, tmp_path: Path) -> None:
    first, second = Leadership(database, tmp_path), Leadership(other, tmp_path)
    assert first.held()
    assert not second.held()
    assert first.held()
    descriptors = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        assert not second.held()
    assert len(os.listdir("/proc/self/fd")) == descriptors, "who waits for years takes none with each attempt"
    first.release()
    assert second.held()
    assert not first.held()
    second.release()


def test_another_one_gets_it_when_a_process_is_killed(where: str, other: Database, tmp_path: Path) -> None:
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        try:
            held = Leadership(open_database(where, PASSWORD), tmp_path)
            os.write(writing, b"y" if held.held() else b"n")
            signal.pause()
        finally:
            os._exit(1)
    try:
        assert os.read(reading, 1) == b"y"
        second = Leadership(other, tmp_path)
        assert not second.held()
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(reading)
        os.close(writing)
    until(second.held, "the server notices the end of a client when it reads from it again")
    second.release()


def test_whoever_lost_its_session_is_told_and_may_have_a_successor(postgresql: Postgresql, tmp_path: Path) -> None:
    where = postgresql.create()
    name = where.rpartition("/")[2]
    first_database, second_database = connect(where, PASSWORD), connect(where, PASSWORD)
    first, second = Leadership(first_database, tmp_path), Leadership(second_database, tmp_path)
    assert first.held()
    postgresql.execute(END_SESSIONS, name)
    assert second.held()
    with pytest.raises(UnavailableError):
        first.held()
    assert not first.held()
    second.release()
    assert first.held()
    first.release()
    first_database.close()
    second_database.close()


def test_the_server_looks_soon_whether_the_host_is_still_there(postgresql: Postgresql, tmp_path: Path) -> None:
    where = postgresql.create()
    database = connect(where, PASSWORD)
    leadership = Leadership(database, tmp_path)
    assert leadership.held()
    holder = "SELECT state FROM pg_stat_activity WHERE pid IN (SELECT pid FROM pg_locks WHERE locktype = 'advisory')"
    state = postgresql.execute(holder, where.rpartition("/")[2])
    assert state == "idle", "a transaction that stays open for years keeps the server from cleaning up"
    assert leadership._connection is not None
    shown = [
        leadership._connection.execute(text(f"SHOW tcp_keepalives_{name}")).scalar()
        for name in ("idle", "interval", "count")
    ]
    assert shown == ["60", "20", "3"]
    leadership.release()
    with database.reading() as connection:
        assert connection.execute(text("SHOW tcp_keepalives_idle")).scalar() != "60"
    database.close()
