# SPDX-License-Identifier: GPL-3.0-or-later
"""Rows that no recorder takes: the process that ends last leaves none behind, or says how many are lost and where."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from assay.store import spool as spools
from assay.store.channel import RowChannel, Sender
from assay.store.spool import Spool
from assay.store.stand_in import NotTakenError, StandIn

MOST = 1_000_000
LONG = 30.0


@pytest.fixture
def channel() -> Iterator[RowChannel]:
    channel = RowChannel()
    yield channel
    channel.close()


def send(channel: RowChannel, *rows: bytes) -> None:
    sender = Sender(channel._sending)
    for row in rows:
        assert sender.send(row)
    assert not sender.waiting


def spooled(root: Path) -> list[bytes]:
    """What the recorder of the next daemon finds."""
    spool = Spool(root / "spool" / "9", MOST, ("database",))
    spool.adopt()
    rows = list(spool.readers[0].read(1000).rows)
    spool.close()
    return rows


def other_process(act: Callable[[], None]) -> int:
    """Fork; the child reports when it has acted, and then waits to be killed."""
    told, tell = os.pipe()
    pid = os.fork()
    if pid == 0:
        act()
        os.write(tell, b"x")
        signal.pause()
    os.close(tell)
    assert os.read(told, 1) == b"x"
    os.close(told)
    return pid


def killed(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def test_what_nobody_reads_is_spooled(channel: RowChannel, tmp_path: Path) -> None:
    stand_in = StandIn(channel, str(tmp_path), MOST)
    send(channel, b"first", b"second")
    stand_in.read()
    send(channel, b"third")
    assert not stand_in.settle(LONG)
    assert spooled(tmp_path) == [b"first", b"second", b"third"]


def test_what_another_process_reads_is_left_to_it_until_it_dies(channel: RowChannel, tmp_path: Path) -> None:
    """A second reader would take a row that the first has looked at, and not the one that it has seen itself."""
    reader = other_process(lambda: channel.receiver().look())
    stand_in = StandIn(channel, str(tmp_path), MOST)
    try:
        send(channel, b"row")
        stand_in.read()
        assert channel.waits()
    finally:
        killed(reader)
    stand_in.read()
    assert not channel.waits()
    assert not stand_in.settle(LONG)
    assert spooled(tmp_path) == [b"row"]


def test_the_last_to_end_waits_for_the_reader_and_takes_over_if_it_dies(channel: RowChannel, tmp_path: Path) -> None:
    reader = other_process(lambda: channel.receiver().look())
    stand_in = StandIn(channel, str(tmp_path), MOST)
    send(channel, b"row")
    threading.Timer(0.3, killed, (reader,)).start()
    assert not stand_in.settle(LONG)
    assert spooled(tmp_path) == [b"row"]


def test_a_reader_that_hangs_keeps_its_rows(channel: RowChannel, tmp_path: Path) -> None:
    reader = other_process(lambda: channel.receiver().look())
    try:
        send(channel, b"row")
        assert not StandIn(channel, str(tmp_path), MOST).settle(0.1)
        assert channel.waits()
    finally:
        killed(reader)


def test_who_is_not_the_last_leaves_it_to_the_others(channel: RowChannel, tmp_path: Path) -> None:
    other = other_process(lambda: None)
    try:
        send(channel, b"row")
        began = time.monotonic()
        assert not StandIn(channel, str(tmp_path), MOST).settle(LONG)
        assert time.monotonic() - began < LONG / 2
        assert channel.waits()
    finally:
        killed(other)


def test_what_cannot_be_spooled_is_counted_and_the_place_named(channel: RowChannel, tmp_path: Path) -> None:
    stand_in = StandIn(channel, str(tmp_path / "none"), MOST)
    send(channel, b"first", b"second")
    with pytest.raises(NotTakenError):
        stand_in.read()
    assert stand_in.settle(0.1) == f"2 results lost: {tmp_path}/none/spool: No such file or directory"


def test_a_spool_at_its_bound(channel: RowChannel, tmp_path: Path) -> None:
    send(channel, b"first", b"second")
    fault = f"1 result lost: {tmp_path}/spool has reached store.spool_octets"
    assert StandIn(channel, str(tmp_path), spools._FRAME.size + 5).settle(0.1) == fault
    assert spooled(tmp_path) == [b"first"]


def test_a_directory_that_is_no_longer_set(channel: RowChannel) -> None:
    send(channel, b"row")
    assert StandIn(channel, "", MOST).settle(0.1) == "1 result lost: store.directory is no longer set"


def test_a_disk_that_takes_rows_again_in_time(channel: RowChannel, tmp_path: Path) -> None:
    root = tmp_path / "late"
    send(channel, b"row")
    threading.Timer(0.3, root.mkdir).start()
    assert not StandIn(channel, str(root), MOST).settle(LONG)
