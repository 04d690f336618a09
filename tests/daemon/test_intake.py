# SPDX-License-Identifier: GPL-3.0-or-later
"""From the workers' socket to a spool that takes nothing."""

from __future__ import annotations

import contextlib
import errno
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from assay.daemon import recorder
from assay.daemon.recorder import Intake
from assay.log import Level, Log
from assay.store.channel import Receiver, RowChannel, Sender
from assay.store.spool import Spool


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def ends() -> Iterator[tuple[Sender, Receiver]]:
    with contextlib.closing(RowChannel()) as channel:
        yield Sender(channel._sending), Receiver(channel._receiving)


def intake_of(ends: tuple[Sender, Receiver], spool: Spool, said: list[str]) -> Intake:
    return Intake(ends[1], spool, Log(lambda _, text: said.append(text), Level.INFO))


def test_a_full_spool_drops_the_newest_and_says_so_once(
    tmp_path: Path, ends: tuple[Sender, Receiver], said: list[str]
) -> None:
    intake = intake_of(ends, Spool(tmp_path, 40, ["database"]), said)
    for _ in range(5):
        assert ends[0].send(b"0123456789")  # 18 octets in the spool
    assert intake._take_all() == 5
    assert (intake.spooled, intake.dropped) == (2, 3)
    assert ends[1].look() == []
    assert len(said) == 1
    assert "store.spool_octets" in said[0]


def test_a_disk_that_takes_nothing_leaves_rows_in_the_socket(
    tmp_path: Path, ends: tuple[Sender, Receiver], said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = Spool(tmp_path, 1 << 20, ["database"])
    intake = intake_of(ends, spool, said)
    assert ends[0].send(b"first")
    with monkeypatch.context() as patched:

        def fail(*rows: bytes) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        patched.setattr(spool, "append", fail)
        assert intake._take_all() == 0
    assert "No space left on device; results wait with the workers" in said[0]
    assert intake._take_all() == 1
    assert (intake.spooled, intake.dropped) == (1, 0)
    assert spool.readers[0].read(9).rows == (b"first",)


def test_a_disk_that_is_full_to_the_end_leaves_rows_to_be_counted(
    tmp_path: Path, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*rows: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    spool = Spool(tmp_path, 1 << 20, ["database"])
    monkeypatch.setattr(spool, "append", fail)
    monkeypatch.setattr(recorder, "_FULL_SECONDS", 0.0)
    with contextlib.closing(RowChannel()) as channel:
        ends = Sender(channel._sending), Receiver(channel._receiving)
        for _ in range(3):
            assert ends[0].send(b"row")
        order: Any = SimpleNamespace(ordered=threading.Event(), alone=False)
        order.ordered.set()
        intake_of(ends, spool, said).run(order)
        assert "No space left on device" in said[0]
        assert ends[1].discard() == 3
        assert ends[1].discard() == 0


def test_the_last_row_of_the_last_worker_is_taken(
    tmp_path: Path, ends: tuple[Sender, Receiver], said: list[str]
) -> None:
    """It comes after the recorder has looked, and before it sees the order."""

    class Ordered:
        sent = False

        def is_set(self) -> bool:
            if not self.sent:
                self.sent = ends[0].send(b"last")
            return True

    intake = intake_of(ends, Spool(tmp_path, 1 << 20, ["database"]), said)
    order: Any = SimpleNamespace(ordered=Ordered(), alone=False)
    intake.run(order)
    assert intake.spooled == 1


def test_rows_of_an_ended_process_are_taken_over_while_others_come_without_a_pause(
    tmp_path: Path, ends: tuple[Sender, Receiver], said: list[str]
) -> None:
    class Ordered:
        looks = 0

        def is_set(self) -> bool:
            self.looks += 1
            return self.looks > 3 or not ends[0].send(b"row")  # a row at each look until the order

    ended = Spool(tmp_path / "1", 1 << 20, ["database"])
    ended.append(b"of an ended process")
    ended.close()
    order: Any = SimpleNamespace(ordered=Ordered(), alone=False)
    intake = intake_of(ends, Spool(tmp_path / "0", 1 << 20, ["database"]), said)
    intake.run(order)
    assert said == ["store: took over 1 file of rows from processes that have ended"]
    assert intake.spooled == 3
