# SPDX-License-Identifier: GPL-3.0-or-later
"""A file system that is really full, below the spool, below SQLite and below both: mail goes on, what is lost is
counted, and nothing is counted twice."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from running import PATIENCE, Activated, Daemon
from sending import greet, send
from small_disk import SmallDisk, needs_mounts

pytestmark = needs_mounts

FEW = 20
MANY = 600  #: more rows than the socket holds


@pytest.fixture
def disk(request: pytest.FixtureRequest, directory: Path) -> Iterator[SmallDisk]:
    """Below all of ``store.directory``, or the directory in it that is the parameter of the test."""
    with SmallDisk(directory / getattr(request, "param", ".")) as disk:
        yield disk


def submit(daemon: Daemon, numbers: Iterable[int]) -> None:
    """Messages with these numbers in their queue ids; each has its reply when this returns."""
    with daemon.mta() as mta:
        greet(mta)
        for number in numbers:
            send(mta, queue=f"Q{number}")


def queues(numbers: Iterable[int]) -> Counter[str]:
    return Counter(f"Q{number}" for number in numbers)


def stored(disk: SmallDisk, directory: Path) -> Counter[str]:
    """The queue ids in the database. SQLite opens the file that a path names without symbolic links, so it has to look
    from within."""
    command = [*disk.enter, sys.executable, "-c", _QUEUES, str(directory / "store.sqlite")]
    return Counter(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())


_QUEUES = """
import contextlib, sqlite3, sys
with contextlib.suppress(sqlite3.OperationalError):
    print(*[queue for queue, in sqlite3.connect(f"file:{sys.argv[1]}?mode=ro", uri=True).execute(
        "SELECT queue FROM messages")])
"""


def wait_for_rows(disk: SmallDisk, directory: Path, numbers: range) -> None:
    deadline = time.monotonic() + PATIENCE
    while stored(disk, directory).total() < len(numbers) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert stored(disk, directory) == queues(numbers)


def fill_behind_few(daemon: Daemon, disk: SmallDisk, directory: Path, count: int) -> None:
    """Submit so many messages. The disk is full as soon as a few of them are stored."""
    submit(daemon, range(FEW))
    wait_for_rows(disk, directory, range(FEW))
    disk.fill()
    submit(daemon, range(FEW, count))


def lost(log: str) -> int:
    return sum(map(int, re.findall(r"store: (\d+) results? lost", log)))


def test_nothing_is_lost_if_there_is_room_again(tmp_path: Path, disk: SmallDisk, directory: Path) -> None:
    with Daemon(tmp_path, before=disk.enter, store={"directory": str(directory)}) as daemon:
        fill_behind_few(daemon, disk, directory, MANY)
        daemon.wait_for_log(f"store: {directory}/spool/0: No space left on device; results wait with the workers")
        disk.free()
        wait_for_rows(disk, directory, range(MANY))
    assert not lost(daemon.log())


@pytest.mark.parametrize(("disk", "count"), [("spool", FEW), (".", MANY)], indirect=["disk"])
def test_what_is_lost_at_the_end_is_counted_and_the_place_named(
    tmp_path: Path, disk: SmallDisk, directory: Path, count: int
) -> None:
    with Daemon(tmp_path, before=disk.enter, store={"directory": str(directory)}) as daemon:
        fill_behind_few(daemon, disk, directory, FEW + count)
    assert daemon.wait() == 0
    log = daemon.log()
    assert re.search(rf"ERROR: store: \d+ results? lost: {directory}/spool: No space left on device", log)
    assert "Traceback" not in log
    disk.free()
    kept = FEW + count - lost(log)  # the spool's last page took some
    assert kept < 2 * FEW
    # The next daemon finds nothing that stands in its way.
    with Daemon(tmp_path, before=disk.enter, store={"directory": str(directory)}):
        wait_for_rows(disk, directory, range(kept))


def test_room_during_the_end_is_used(tmp_path: Path, disk: SmallDisk, directory: Path) -> None:
    with Daemon(tmp_path, before=disk.enter, store={"directory": str(directory)}) as daemon:
        disk.fill()
        with daemon.mta() as mta:
            greet(mta)
            for number in range(FEW):
                send(mta, queue=f"Q{number}")
            daemon._process.terminate()  # type: ignore[union-attr]  # it runs
            daemon.wait_for_log("waiting for open ones")
            disk.free()
    assert not lost(daemon.log())
    with Daemon(tmp_path, before=disk.enter, store={"directory": str(directory)}):
        wait_for_rows(disk, directory, range(FEW))


def test_a_recorder_that_outlives_the_supervisor_counts_what_it_could_not_keep(
    tmp_path: Path, disk: SmallDisk, directory: Path
) -> None:
    with Activated(tmp_path, before=disk.enter, store={"directory": str(directory)}) as daemon:
        fill_behind_few(daemon, disk, directory, MANY)
        assert daemon.stop() == 0
        daemon.wait_for_orphans()
        assert re.search(rf"ERROR: store: \d+ results? lost: {directory}/spool/0: No space left on", daemon.log())
        disk.free()
        kept = MANY - lost(daemon.log())
        assert kept < 2 * FEW
        daemon.start()
        wait_for_rows(disk, directory, range(kept))


class TestDatabaseAlone:
    """The spool is elsewhere, so nothing is lost at all."""

    @pytest.fixture
    def disk(self, directory: Path, tmp_path: Path) -> Iterator[SmallDisk]:
        (tmp_path / "spool").mkdir()
        with SmallDisk(directory) as disk:
            (disk.seen / "spool").symlink_to(tmp_path / "spool")
            yield disk

    def test_rows_wait_in_the_spool(self, tmp_path: Path, disk: SmallDisk, directory: Path) -> None:
        with Daemon(tmp_path, before=disk.enter, store={"directory": str(directory)}) as daemon:
            fill_behind_few(daemon, disk, directory, MANY)
            daemon.wait_for_log("database or disk is full")
            disk.free()
            wait_for_rows(disk, directory, range(MANY))
            daemon.wait_for_log("database: written again")
        assert not lost(daemon.log())

    def test_to_the_next_daemon(self, tmp_path: Path, disk: SmallDisk, directory: Path) -> None:
        with Daemon(tmp_path, before=disk.enter, store={"directory": str(directory)}) as daemon:
            fill_behind_few(daemon, disk, directory, MANY)
        assert daemon.wait() == 0
        assert not lost(daemon.log())
        disk.free()
        with Daemon(tmp_path, before=disk.enter, store={"directory": str(directory)}):
            wait_for_rows(disk, directory, range(MANY))
