# SPDX-License-Identifier: GPL-3.0-or-later
"""The file of facts: whole lines, whatever happens to the disk and the file."""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from assay.daemon.journal import FactsLog
from assay.log import Log, appended
from assay.log.appended import AppendedFile


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(appended, "_LOOK_SECONDS", 0.0)
    return tmp_path / "facts"


@contextlib.contextmanager
def opened(path: Path) -> Iterator[AppendedFile]:
    with contextlib.closing(AppendedFile(str(path))) as file:
        yield file


def cut(monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    """The disk is full after so many octets of a line."""
    write = os.write

    def short(descriptor: int, octets: bytes) -> int:
        return write(descriptor, octets[:after])

    monkeypatch.setattr(appended.os, "write", short)


def test_a_cut_line_does_not_swallow_the_next(path: Path) -> None:
    with opened(path) as file:
        file.append(b"one\n")
        with pytest.MonkeyPatch.context() as patch:
            cut(patch, 2)
            with pytest.raises(OSError, match="No space left"):
                file.append(b"second\n")
        file.append(b"three\n")
        file.append(b"four\n")
    assert path.read_bytes() == b"one\nse\nthree\nfour\n"


def test_a_cut_line_does_not_swallow_the_next_of_another_process(path: Path) -> None:
    with opened(path) as file, opened(path) as other:
        with pytest.MonkeyPatch.context() as patch:
            cut(patch, 2)
            with pytest.raises(OSError, match="No space left"):
                file.append(b"one\n")
        other.append(b"two\n")
    assert path.read_bytes() == b"on\ntwo\n"


def test_a_line_cut_only_at_its_end(path: Path) -> None:
    with opened(path) as file:
        with pytest.MonkeyPatch.context() as patch:
            cut(patch, 3)
            with pytest.raises(OSError, match="No space left"):
                file.append(b"one\n")
        file.append(b"two\n")
    assert path.read_bytes() == b"one\ntwo\n"


def test_a_pipe(path: Path) -> None:
    os.mkfifo(path)
    reading = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    with opened(path) as file:
        with pytest.MonkeyPatch.context() as patch:
            cut(patch, 2)
            with pytest.raises(OSError, match="No space left"):
                file.append(b"one\n")
        file.append(b"two\n")
        file.append(b"three\n")
    assert os.read(reading, 100) == b"on\ntwo\nthree\n"
    os.close(reading)


def test_a_pipe_without_a_reader_is_an_error_at_once(path: Path) -> None:
    os.mkfifo(path)
    said: list[int | None] = []

    def try_to_open() -> None:
        try:
            AppendedFile(str(path))
        except OSError as error:
            said.append(error.errno)

    thread = threading.Thread(target=try_to_open, daemon=True)
    thread.start()
    thread.join(10)
    assert said == [errno.ENXIO]


def test_pipes_that_take_the_place_of_a_file(path: Path) -> None:
    with opened(path) as file:
        descriptors = len(os.listdir("/proc/self/fd"))
        file.append(b"one\n")
        for number in range(2):
            path.rename(path.with_suffix(f".{number}"))
            os.mkfifo(path)
            reading = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
            file.append(b"two\n")
            with pytest.MonkeyPatch.context() as patch:
                cut(patch, 2)
                with pytest.raises(OSError, match="No space left"):
                    file.append(b"three\n")
            assert os.read(reading, 100) == b"two\nth"
            os.close(reading)
        assert len(os.listdir("/proc/self/fd")) == descriptors


@pytest.mark.parametrize("create", [True, False], ids=["create", "nocreate"])
def test_rotation(path: Path, create: bool) -> None:
    with opened(path) as file:
        file.append(b"one\n")
        path.rename(path.with_suffix(".1"))
        if create:
            path.touch()
        file.append(b"two\n")
        assert path.with_suffix(".1").read_bytes() == b"one\n"
        assert path.read_bytes() == b"two\n"
        os.truncate(path, 0)  # copytruncate
        file.append(b"three\n")
        assert path.read_bytes() == b"three\n"


def test_rotation_that_left_nothing_to_open(path: Path) -> None:
    with opened(path) as file:
        path.rename(path.with_suffix(".1"))
        path.mkdir()
        file.append(b"one\n")
    assert path.with_suffix(".1").read_bytes() == b"one\n"


def test_it_looks_at_the_path_once_a_second(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(appended, "_LOOK_SECONDS", 1.0)
    monkeypatch.setattr(appended.time, "monotonic", lambda: now)
    with opened(path) as file:
        path.rename(path.with_suffix(".1"))
        file.append(b"one\n")
        now = 1.0
        file.append(b"two\n")
    assert path.with_suffix(".1").read_bytes() == b"one\n"
    assert path.read_bytes() == b"two\n"


def test_lost_lines_are_counted(path: Path) -> None:
    said: list[str] = []
    with opened(path) as file:
        facts = FactsLog(file, Log(lambda _, text: said.append(text)))
        facts.append(b"one\n")
        with pytest.MonkeyPatch.context() as patch:
            cut(patch, 2)
            for _ in range(3):
                facts.append(b"two\n")
        facts.append(b"three\n")
        facts.append(b"four\n")
    assert said == [
        "log.facts: No space left on device; the facts of messages are lost",
        "log.facts: written again; the facts of 3 messages were lost",
    ]
    assert path.read_bytes().splitlines()[-2:] == [b"three", b"four"]
