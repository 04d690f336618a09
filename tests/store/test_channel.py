# SPDX-License-Identifier: GPL-3.0-or-later
"""The way from workers to the recorder: nobody waits, and no death loses what was handed over."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import pytest

from assay.store import channel as channels
from assay.store.channel import Receiver, RowChannel, Sender


@pytest.fixture
def channel() -> Iterator[RowChannel]:
    channel = RowChannel()
    yield channel
    channel.close()


def ends(channel: RowChannel) -> tuple[Sender, Receiver]:
    """Both ends in one process."""
    return Sender(channel._sending), Receiver(channel._receiving)


def taken(receiver: Receiver) -> list[bytes]:
    found = []
    while rows := receiver.look():
        found += rows
        receiver.take(len(rows))
    return found


def test_rows_arrive_whole_and_in_order(channel: RowChannel) -> None:
    sender, receiver = ends(channel)
    rows = [b"first", b"x" * 100_000, b"last"]
    for row in rows:
        assert sender.send(row)
    assert taken(receiver) == rows


def test_a_row_stays_until_it_is_taken(channel: RowChannel) -> None:
    sender, receiver = ends(channel)
    rows = [b"first", b"second", b"third"]
    for row in rows:
        sender.send(row)
    assert receiver.look() == receiver.look() == rows
    assert receiver.look(2) == rows[:2]
    receiver.take()
    assert receiver.look() == rows[1:]
    receiver.take(2)
    assert receiver.look() == []


def test_whether_a_row_waits_moves_nothing(channel: RowChannel) -> None:
    """Another process asks, while the reader has looked at all rows."""
    sender, receiver = ends(channel)
    assert not channel.waits()
    sender.send(b"first")
    sender.send(b"second")
    assert receiver.look() == [b"first", b"second"]
    assert channel.waits()
    receiver.take()
    assert channel.waits()
    assert receiver.look() == [b"second"]
    receiver.take()
    assert not channel.waits()


def test_no_more_than_a_bound_is_in_memory(channel: RowChannel) -> None:
    sender, receiver = ends(channel)
    for number in range(channels.MAX_LOOK + 1):
        sender.send(b"%d" % number)
    assert len(receiver.look()) == channels.MAX_LOOK


def test_a_sender_never_waits_and_keeps_what_the_socket_does_not_take(channel: RowChannel) -> None:
    sender, receiver = ends(channel)
    rows = [b"%06d" % number + b"x" * 1000 for number in range(12_000)]
    began = time.monotonic()
    kept = [row for row in rows if sender.send(row)]
    assert time.monotonic() - began < 10
    assert sender.lost == len(rows) - len(kept) > 0
    assert sender.waiting > 0
    found = []
    while not sender.flush() or receiver.look():
        found += taken(receiver)
    assert found == kept


def test_the_memory_of_a_sender_is_bounded(channel: RowChannel) -> None:
    sender, _receiver = ends(channel)
    row = b"x" * 10_000
    while sender.send(row):
        pass
    assert sender.waiting * len(row) <= channels.MAX_QUEUE_OCTETS


def test_what_a_dead_process_sent_arrives(channel: RowChannel) -> None:
    pid = os.fork()
    if pid == 0:
        channel.sender().send(b"last words")
        os._exit(0)
    os.waitpid(pid, 0)
    receiver = channel.receiver()
    assert taken(receiver) == [b"last words"]
    assert receiver.ended


def test_what_a_dead_receiver_did_not_take_stays(channel: RowChannel) -> None:
    sender = Sender(channel._sending)
    sender.send(b"first")
    sender.send(b"second")
    sender.send(b"third")
    pid = os.fork()
    if pid == 0:
        receiver = Receiver(channel._receiving)
        receiver.look()
        receiver.take()
        receiver.look()
        os._exit(0)
    os.waitpid(pid, 0)
    assert taken(Receiver(channel._receiving)) == [b"second", b"third"]


def test_a_sender_without_any_receiver_counts_and_does_not_fail(channel: RowChannel) -> None:
    sender = channel.sender()
    channel._receiving.close()
    assert sender.send(b"row")
    assert sender.lost == 1
    assert not sender.waiting


def test_the_end_of_all_senders_is_seen(channel: RowChannel) -> None:
    sender, receiver = ends(channel)
    assert receiver.look() == []
    assert not receiver.ended
    sender._socket.close()
    receiver.wait(30.0)
    assert receiver.look() == []
    assert receiver.ended


def test_there_is_place_in_memory_again_when_the_socket_takes_rows(
    channel: RowChannel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(channels, "MAX_QUEUE_OCTETS", 3000)
    sender, receiver = ends(channel)
    for _ in range(3):
        while sender.send(b"x" * 1000):
            pass
        assert sender.waiting == 3
        while not sender.flush():
            taken(receiver)
    assert sender.lost == 3
