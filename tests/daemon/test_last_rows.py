# SPDX-License-Identifier: GPL-3.0-or-later
"""Rows at the end of a daemon: whichever process is killed, and when, the next daemon has a row for each message."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from assay.cli.mta import Mta
from running import Activated, Daemon, until
from sending import greet, send

#: An open session has to outlive what happens to the daemon, on a slow machine too.
OPTIONS = {"log": {"level": "debug"}, "milter": {"drain_seconds": 120.0}}
AFTER = range(1, 60)  #: messages of a session that is open while everything else ends


@pytest.fixture
def lent(tmp_path: Path, directory: Path) -> Iterator[Activated]:
    """A daemon whose socket the service manager keeps."""
    with Activated(tmp_path, store={"directory": str(directory)}, **OPTIONS) as daemon:
        yield daemon


@pytest.fixture
def own(tmp_path: Path, directory: Path) -> Iterator[Daemon]:
    """A daemon that has opened its socket itself."""
    with Daemon(tmp_path, store={"directory": str(directory)}, **OPTIONS) as daemon:
        yield daemon


def submit(mta: Mta, numbers: Iterable[int]) -> None:
    for number in numbers:
        send(mta, queue=f"Q{number}")


def recorders(daemon: Daemon) -> list[int]:
    """Those that run, children of the supervisor or not, the oldest first."""
    return [pid for pid in map(int, re.findall(r"recorder (\d+) started", daemon.log())) if runs(pid)]


def runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def sockets(pid: int) -> int:
    """How many a process has open."""
    count = 0
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            count += os.readlink(entry).startswith("socket:")
    return count


def kill(*pids: int) -> None:
    """Kill processes, and wait until they have ended."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    until(lambda: not any(map(runs, pids)))


def stored(directory: Path) -> Counter[str]:
    """The queue ids in the database, which a recorder may not have made yet."""
    with (
        contextlib.suppress(sqlite3.OperationalError),
        contextlib.closing(sqlite3.connect(f"file:{directory}/store.sqlite?mode=ro", uri=True)) as connection,
    ):
        return Counter(queue for (queue,) in connection.execute("SELECT queue FROM messages"))
    return Counter()


def check_all_stored(daemon: Daemon, directory: Path, numbers: Iterable[int]) -> None:
    """Start the next daemon. It must bring what the last one has left on disk into the database, once."""
    expected = Counter(f"Q{number}" for number in numbers)
    daemon.start()
    until(lambda: stored(directory).total() >= expected.total())
    assert stored(directory) == expected
    assert not re.search("results? lost", daemon.log())


class TestLentSocket:
    """Old workers outlive the supervisor, and so does a recorder."""

    def test_the_recorder_dies_after_the_supervisor(self, lent: Activated, directory: Path) -> None:
        with lent.mta() as mta:
            greet(mta)
            submit(mta, [0])
            lent.stop()
            kill(*recorders(lent))
            submit(mta, AFTER)
        lent.wait_for_orphans()
        check_all_stored(lent, directory, [0, *AFTER])

    def test_all_that_are_left_die(self, lent: Activated, directory: Path) -> None:
        """Old workers spool what comes while they live, and not only at their end."""
        with lent.mta() as mta:
            greet(mta)
            submit(mta, [0])
            left = lent.workers()
            lent.stop()
            kill(*recorders(lent))
            submit(mta, AFTER)
            last = f"Q{AFTER[-1]}".encode()
            until(lambda: any(last in path.read_bytes() for path in directory.glob("spool/*/*.rows")))
            kill(*left)
        check_all_stored(lent, directory, [0, *AFTER])

    def test_the_recorder_hangs_and_dies_with_rows_that_it_did_not_take(self, lent: Activated, directory: Path) -> None:
        with lent.mta() as mta:
            greet(mta)
            for pid in recorders(lent):
                os.kill(pid, signal.SIGSTOP)
            submit(mta, [0])
            lent.stop()
            submit(mta, AFTER)
            kill(*recorders(lent))
        lent.wait_for_orphans()
        check_all_stored(lent, directory, [0, *AFTER])

    def test_the_recorder_died_before_and_the_next_one_was_not_due(self, lent: Activated, directory: Path) -> None:
        """The second death is followed by a wait, which the end cuts short."""
        with lent.mta() as mta:
            greet(mta)
            for _ in range(2):
                until(lambda: recorders(lent))
                (dead,) = recorders(lent)
                kill(dead)
                lent.wait_for_log(f"recorder {dead} died")
            submit(mta, [0])
            lent.stop()
            submit(mta, AFTER)
        lent.wait_for_orphans()
        check_all_stored(lent, directory, [0, *AFTER])

    @pytest.mark.parametrize("killing", [False, True], ids=["goes on", "is killed"])
    def test_the_recorder_of_an_old_configuration_still_drains(
        self, lent: Activated, directory: Path, *, killing: bool
    ) -> None:
        """It has the order to drain, so it takes nothing that comes from here on."""
        with lent.mta() as mta:
            greet(mta)
            submit(mta, [0])
            (old,) = recorders(lent)
            os.kill(old, signal.SIGSTOP)
            lent.signal(signal.SIGHUP)
            lent.wait_for_log(": reloaded")
            submit(mta, [1])
            lent.stop()
            if killing:
                kill(old)
            else:
                os.kill(old, signal.SIGCONT)
                until(lambda: not runs(old))
            submit(mta, AFTER[1:])
        lent.wait_for_orphans()
        until(lambda: not recorders(lent))
        check_all_stored(lent, directory, [0, *AFTER])

    def test_another_recorder_reads_while_the_old_one_still_writes(self, lent: Activated, directory: Path) -> None:
        """An old one whose database is away ends late. What comes meanwhile is on disk, and not only in a socket."""
        with lent.mta() as mta:
            greet(mta)
            submit(mta, [0])
            until(lambda: stored(directory))
            (old,) = recorders(lent)
            before = sockets(old)
            with contextlib.closing(sqlite3.connect(directory / "store.sqlite")) as other:
                other.execute("BEGIN IMMEDIATE")
                submit(mta, [1])
                lent.signal(signal.SIGHUP)
                until(lambda: sockets(old) < before)
                os.kill(old, signal.SIGSTOP)
            lent.wait_for_log(": reloaded")
            lent.stop()
            submit(mta, AFTER[1:])
            until(lambda: any(path.stat().st_size for path in (directory / "spool" / "1").glob("*.rows")))
            os.kill(old, signal.SIGCONT)
        lent.wait_for_orphans()
        until(lambda: not recorders(lent))
        check_all_stored(lent, directory, [0, *AFTER])

    def test_a_new_daemon_serves_while_old_workers_have_no_recorder(self, lent: Activated, directory: Path) -> None:
        with lent.mta() as mta:
            greet(mta)
            submit(mta, [0])
            lent.stop()
            kill(*recorders(lent))
            lent.start()
            submit(mta, AFTER)
            with lent.mta() as other:
                greet(other)
                submit(other, [100])
        lent.wait_for_orphans()
        until(lambda: stored(directory).total() == len(AFTER) + 2)  # it looks again and again for what they left
        lent.stop()
        until(lambda: not recorders(lent))
        check_all_stored(lent, directory, [0, *AFTER, 100])


class TestDeathOfTheSupervisor:
    def test_and_then_of_the_recorder(self, own: Daemon, directory: Path) -> None:
        with own.mta() as mta:
            greet(mta)
            submit(mta, [0])
            left, (recorder,) = own.workers(), recorders(own)
            kill(own.pid)
            own.wait()
            kill(recorder)
            submit(mta, AFTER)
        until(lambda: not any(map(runs, left)))
        check_all_stored(own, directory, [0, *AFTER])

    def test_without_a_recorder(self, own: Daemon, directory: Path) -> None:
        with own.mta() as mta:
            greet(mta)
            for _ in range(2):
                until(lambda: recorders(own))
                (dead,) = recorders(own)
                kill(dead)
                own.wait_for_log(f"recorder {dead} died")
            submit(mta, [0])
            left = own.workers()
            kill(own.pid)
            own.wait()
            submit(mta, AFTER)
        until(lambda: not any(map(runs, left)))
        check_all_stored(own, directory, [0, *AFTER])


def test_a_reload_ends_the_old_recorder_though_sessions_are_open(own: Daemon, directory: Path) -> None:
    """Helpers are not replaced as workers are: until the old one has ended, the new one takes nothing."""
    with own.mta() as mta:
        greet(mta)
        submit(mta, [0])
        (old,) = recorders(own)
        own.signal(signal.SIGHUP)
        until(lambda: not runs(old))
        submit(mta, [1])
        until(lambda: stored(directory).total() == 2)


def test_a_recorder_that_dies_while_it_waits_for_the_old_one_is_replaced(own: Daemon, directory: Path) -> None:
    """The rows are in the database when the daemon has ended, and not only in a spool."""
    with own.mta() as mta:
        greet(mta)
        submit(mta, [0])
        until(lambda: stored(directory))
        left, (old,) = own.workers(), recorders(own)
        os.kill(old, signal.SIGSTOP)
        own.signal(signal.SIGHUP)
        own.wait_for_log(": reloaded")
        submit(mta, [1])
        own.signal(signal.SIGTERM)
        until(lambda: len(recorders(own)) == 2)
    until(lambda: not any(map(runs, (own.workers() | left) - set(recorders(own)))))
    (waiting,) = {*recorders(own)} - {old}
    kill(waiting)
    own.wait_for_log(f"recorder {waiting} died")
    kill(old)
    own.wait()
    assert stored(directory) == Counter(["Q0", "Q1"])


def test_recorders_that_die_until_the_end_leave_the_rows_to_the_supervisor(own: Daemon, directory: Path) -> None:
    over = threading.Event()

    def keep_killing() -> None:
        while not over.is_set():
            for pid in map(int, re.findall(r"recorder (\d+) started", own.log())):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.001)

    killer = threading.Thread(target=keep_killing)
    with own.mta() as mta:
        greet(mta)
        killer.start()
        submit(mta, [0, *AFTER])
        own.signal(signal.SIGTERM)
    own.wait()
    over.set()
    killer.join()
    check_all_stored(own, directory, [0, *AFTER])
