# SPDX-License-Identifier: GPL-3.0-or-later
"""Lines that a sink does not take at once: in order, whole, bounded and counted."""

from __future__ import annotations

import os
import threading
import time

import pytest

from assay.log import Level, Log, outlet
from assay.log.outlet import LOST, Outlet


class Sink:
    """Takes `room` octets."""

    def __init__(self, room: int = 0) -> None:
        self.room = room
        self.taken = b""
        self.error: OSError = BlockingIOError()
        self.closed = False

    def frame(self, _level: Level, line: str) -> bytes:
        return line.encode() + b"\n"

    def send(self, octets: bytes) -> int:
        if not self.room:
            raise self.error
        taken = octets[: self.room]
        self.room -= len(taken)
        self.taken += taken
        return len(taken)

    def wait(self, seconds: float) -> None:
        time.sleep(min(seconds, 0.01))

    def close(self) -> None:
        self.closed = True


def opened(sink: Sink) -> Outlet:
    return Outlet(sink, lambda level, text: f"{level.name} {text}")


def test_lines_go_at_once_and_in_order() -> None:
    sink = Sink(9)
    out = opened(sink)
    for line in ("one", "two", "three", "four"):
        out.write(Level.INFO, line)
    assert sink.taken == b"one\ntwo\nt", "the rest waits"
    sink.room = 100
    out.write(Level.INFO, "five")
    assert sink.taken == b"one\ntwo\nt", "behind what waits"
    assert out.flush()
    assert sink.taken == b"one\ntwo\nthree\nfour\nfive\n"


def test_what_does_not_fit_is_lost_and_reported_behind_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outlet, "MAX_WAITING_OCTETS", 10)
    sink = Sink()
    out = opened(sink)
    for line in ("one", "two", "three", "four", "x"):
        out.write(Level.INFO, line)
    assert out.lost == 2
    assert not out.flush()
    sink.room = 1000
    assert out.flush()
    assert sink.taken.decode() == f"one\ntwo\nx\nWARNING {LOST.format(2)}\n"
    out.write(Level.INFO, "six")
    assert sink.taken.endswith(b"\nsix\n")
    assert sink.taken.count(b"lost") == 1


def test_lines_lost_while_some_still_wait_are_reported_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outlet, "MAX_WAITING_OCTETS", 10)
    sink = Sink()
    out = opened(sink)
    for line in ("one", "two", "three"):
        out.write(Level.INFO, line)
    sink.room = 4
    assert not out.flush()
    out.write(Level.INFO, "fourth")
    sink.room = 1000
    assert out.flush()
    assert sink.taken.decode() == f"one\ntwo\nWARNING {LOST.format(2)}\n"


def test_a_child_sends_its_own_lines_only() -> None:
    """What waited at the fork is the parent's: else it would be logged by each worker once more."""
    reading, writing = os.pipe()
    sink = Sink()
    threads = threading.active_count()  # those of other tests
    out = opened(sink)
    out.write(Level.INFO, "of the parent")
    pid = os.fork()
    if pid == 0:
        out.write(Level.INFO, "of the child")
        sink.room = 1000
        out.flush(1.0)
        os.write(writing, sink.taken)
        os._exit(0)
    os.waitpid(pid, 0)
    assert os.read(reading, 1000) == b"of the child\n"
    os.close(reading)
    os.close(writing)
    assert threading.active_count() <= threads, "the parent forks, so it has no threads"
    sink.room = 1000
    assert out.flush()
    assert sink.taken == b"of the parent\n"


def test_a_child_counts_its_own_lines_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outlet, "MAX_WAITING_OCTETS", 10)
    reading, writing = os.pipe()
    sink = Sink()
    out = opened(sink)
    for line in ("one", "two", "three"):
        out.write(Level.INFO, line)
    pid = os.fork()
    if pid == 0:
        out.write(Level.INFO, "of mine")
        sink.room = 1000
        out.flush(1.0)
        os.write(writing, b"%d lost; %s" % (out.lost, sink.taken))
        os._exit(0)
    os.waitpid(pid, 0)
    assert os.read(reading, 1000) == b"0 lost; of mine\n"
    os.close(reading)
    os.close(writing)


def test_a_child_sends_them_by_itself() -> None:
    reading, writing = os.pipe()
    sink = Sink()
    out = opened(sink)
    pid = os.fork()
    if pid == 0:
        out.write(Level.INFO, "one")
        sink.room = 1000
        deadline = time.monotonic() + 10
        while not sink.taken and time.monotonic() < deadline:
            time.sleep(0.01)
        os.write(writing, sink.taken)
        os._exit(0)
    os.waitpid(pid, 0)
    assert os.read(reading, 1000) == b"one\n"
    os.close(reading)
    os.close(writing)


def test_waiting_for_a_reader_has_an_end() -> None:
    out = opened(Sink())
    out.write(Level.INFO, "one")
    began = time.monotonic()
    assert not out.flush(0.2)
    assert 0.2 <= time.monotonic() - began < 5


def test_a_full_disk_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outlet, "RETRY_SECONDS", 0.01)
    sink = Sink()
    sink.error = OSError(28, "No space left on device")
    out = opened(sink)
    out.write(Level.INFO, "one")
    timer = threading.Timer(0.1, lambda: setattr(sink, "room", 1000))
    timer.start()
    assert out.flush(10)
    timer.join()
    assert sink.taken == b"one\n"


def test_the_last_warnings_are_kept() -> None:
    out = opened(Sink(10_000))
    out.write(Level.INFO, "fine")
    for number in range(2 * outlet.MAX_WARNINGS):
        out.write(Level.WARNING, f"{number} " + "x" * 1000)
    assert [text.split()[0] for _, text in out.warnings] == ["5", "6", "7", "8", "9"]
    assert all(len(text) == outlet.MAX_WARNING_LENGTH for _, text in out.warnings)


def test_lines_lost_by_a_reload_are_reported_by_the_new_log() -> None:
    said: list[str] = []
    sink = Sink()
    out = opened(sink)
    old, new = Log(out.write, outlet=out), Log(lambda _, text: said.append(text))
    old.info("one")
    old.info("two")
    old.replace_by(new)
    assert sink.closed
    assert said == [LOST.format(2)]
