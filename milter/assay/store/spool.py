# SPDX-License-Identifier: GPL-3.0-or-later
"""Rows on disk between the workers and the database: written once, read by each backend at its own pace.

A spool is a directory of segments, files with a growing number in their names. Rows are appended by one write of the
length, the checksum and the octets of each, so they survive the death of the process that wrote them. No process waits
for the disk, so a power failure takes the rows that the kernel had not written yet. Each backend has a file with its
position, which it moves after it has taken rows. A segment that all backends have read is removed, also that which
is being written, as soon as no rows come for a moment: what was written is personal data, and stays nowhere else than
in the database. After a crash the position may be old, so a backend can get rows again, and recognizes them by
their id.

Only one process uses a spool. While an old daemon still drains, the next one takes another spool in the same directory,
and later adopts what a dead one left behind.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import struct
import threading
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from msgspec import Struct

from assay.model.wording import counted
from assay.store.rows import MAX_ROW_OCTETS

MAX_SPOOLS = 16  # of one directory, our choice: a daemon and those that drain after restarts
SEGMENT_OCTETS = 8 * 1024 * 1024  # our choice; a whole segment is removed at a time
_FRAME = struct.Struct(">II")
_SUFFIX = ".rows"
_POSITION = ".position"
_MODE = 0o600


class SpoolFullError(Exception):
    """The spool has reached its bound."""


class Spool:
    """One spool. `append` may be called by one thread, everything else by any."""

    def __init__(self, directory: Path, most: int, backends: Sequence[str]) -> None:
        """Take a directory, which must not be in use.

        :param most: the bound of all segments in octets.
        :param backends: the names of those who read.
        :raises BlockingIOError: another process uses it.
        :raises OSError: it cannot be used.
        """
        directory.mkdir(mode=0o750, exist_ok=True)
        self.directory = directory
        self._most = most
        self._lock = _Lock(directory)
        self._grown = threading.Condition()
        #: Octets of each segment, by number; the last one is being written.
        self._segments = {number: path.stat().st_size for number, path in _segments(directory)}
        self._descriptor = -1
        self.readers = tuple(Reader(self, name) for name in backends)
        # Numbers never come again: a position would otherwise be ahead of what is written.
        positions = [_position(path)[0] for path in directory.glob(f"*{_POSITION}")]
        self._number = max([*self._segments, *positions], default=0)
        self.collect()

    @property
    def octets(self) -> int:
        """How much is kept."""
        return sum(self._segments.copy().values())

    def append(self, *rows: bytes) -> None:
        """Append rows, all or none.

        :raises SpoolFullError: the bound would be passed; nothing was written.
        :raises OSError: they cannot be written; nothing was written.
        """
        frames = b"".join([part for row in rows for part in (_FRAME.pack(len(row), zlib.crc32(row)), row)])
        if self.octets + len(frames) > self._most:
            raise SpoolFullError
        with self._grown:
            if self._descriptor < 0 or self._segments[self._number] + len(frames) > SEGMENT_OCTETS:
                self._next_segment()
            end = self._segments[self._number]
            try:
                written = os.write(self._descriptor, frames)
            except OSError:
                os.ftruncate(self._descriptor, end)
                raise
            if written < len(frames):  # the disk is full, and has taken a part
                os.ftruncate(self._descriptor, end)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            self._segments[self._number] = end + len(frames)
            self._grown.notify_all()

    def _next_segment(self) -> None:
        """Begin a segment. A process never goes on with that of another, whose last row may be torn."""
        descriptor = os.open(
            self._path(self._number + 1), os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, _MODE
        )
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor = descriptor
        self._number += 1
        self._segments[self._number] = 0

    def wait(self, reader: Reader, seconds: float) -> bool:
        """Wait until there is something that a reader has not read.

        :returns: whether there is.
        """
        with self._grown:
            return self._grown.wait_for(lambda: self.behind(reader) > 0, seconds)

    def wake(self) -> None:
        """End all waits that look whether there is something to do."""
        with self._grown:
            self._grown.notify_all()

    def behind(self, reader: Reader) -> int:
        """How many octets a reader has not read yet."""
        segment, offset = reader.position
        with self._grown:
            return sum(
                # After a power failure a segment may be shorter than the position says.
                max(octets - offset, 0) if number == segment else octets
                for number, octets in self._segments.items()
                if number >= segment
            )

    def collect(self) -> None:
        """Remove the segments that all backends have read."""
        if not self.readers:
            return
        with self._grown:
            read = min(reader.position for reader in self.readers)
            for number in [each for each, octets in self._segments.items() if (each, octets) <= read]:
                if number == self._number and self._descriptor >= 0:
                    os.close(self._descriptor)
                    self._descriptor = -1
                self._path(number).unlink(missing_ok=True)
                del self._segments[number]

    def adopt(self) -> int:
        """Take over what ended processes left in the other spools of the directory.

        :returns: how many segments that were.
        """
        adopted = 0
        for number in range(MAX_SPOOLS):
            other = self.directory.parent / str(number)
            if other == self.directory or not other.is_dir() or not any(_segments(other)):
                continue
            try:
                lock = _Lock(other)
            except OSError:  # its process lives
                continue
            with contextlib.closing(lock):
                for _, path in sorted(_segments(other)):
                    self._take(path)
                    adopted += 1
        return adopted

    def _take(self, path: Path) -> None:
        """Make a segment of another spool our own. What is appended from here on comes after it."""
        octets = path.stat().st_size
        with self._grown:
            number = self._number + 1
            path.rename(self._path(number))
            self._segments[number] = octets
            self._number = number
            descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def close(self) -> None:
        """Let another process use it."""
        self.collect()
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
        self._lock.close()

    def _path(self, number: int) -> Path:
        return self.directory / f"{number:016d}{_SUFFIX}"

    def segment_after(self, number: int) -> int | None:
        """The next segment; None if there is none."""
        with self._grown:
            return min((other for other in self._segments if other > number), default=None)

    def segment(self, number: int) -> tuple[Path, int] | None:
        """The file of a segment and how many of its octets may be read; None if there is no such segment."""
        octets = self._segments.get(number)
        return None if octets is None else (self._path(number), octets)


class Batch(Struct, frozen=True):
    """Rows that a reader read, and its position after them. `torn` says what was skipped, empty if nothing was. `full`
    means that it may go on at once."""

    rows: tuple[bytes, ...]
    position: tuple[int, int]
    torn: str = ""
    full: bool = False


class Reader:
    """The position of one backend."""

    def __init__(self, spool: Spool, name: str) -> None:
        self.name = name
        self._spool = spool
        self._file = spool.directory / f"{name}{_POSITION}"
        self.position = _position(self._file)

    def read(self, most: int, octets_enough: int = SEGMENT_OCTETS) -> Batch:
        """The next rows.

        :param most: how many at most.
        :param octets_enough: after which no further row is read.
        :raises OSError: the disk cannot be read.
        """
        rows: list[bytes] = []
        number, offset = self.position
        torn = ""
        read = 0
        while True:
            # In this order: only one that has a successor grows no more.
            following = self._spool.segment_after(number)
            found = self._spool.segment(number)
            if found is not None:
                path, octets = found
                # One that is read to its end may be gone at any moment.
                for row, end in _rows(path, offset, octets) if offset < octets else ():
                    rows.append(row)
                    read += len(row)
                    offset = end
                    if len(rows) == most or read >= octets_enough:
                        return Batch(tuple(rows), (number, offset), torn, full=True)
            if following is None:
                break
            if found is not None and offset < found[1]:
                torn = f"{found[0]}: {counted(found[1] - offset, 'octet')} after octet {offset} are not rows"
            number, offset = following, 0
        return Batch(tuple(rows), (number, offset), torn)

    def move(self, position: tuple[int, int]) -> None:
        """Note that everything before a position is taken.

        :raises OSError: it cannot be noted; the rows come again.
        """
        moved = position[0] != self.position[0]
        self.position = position
        unfinished = self._file.with_suffix(".unfinished")
        unfinished.write_text(f"{position[0]} {position[1]}\n")
        unfinished.rename(self._file)
        if moved:
            self._spool.collect()


def _position(path: Path) -> tuple[int, int]:
    """As it was written last; the beginning for a new backend, or if the file is damaged."""
    try:
        segment, offset = map(int, path.read_text().split())
    except (OSError, ValueError):
        return 0, 0
    return max(segment, 0), max(offset, 0)


class _Lock:
    """A lock on a directory, which ends with the process."""

    def __init__(self, directory: Path) -> None:
        """:raises BlockingIOError: another process has it."""
        self._descriptor = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, _MODE)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._descriptor)
            raise

    def close(self) -> None:
        """Give it up."""
        os.close(self._descriptor)


def take(root: Path, most: int, backends: Sequence[str]) -> Spool:
    """The first spool below a directory that no process uses.

    :param most: see `Spool`.
    :raises OSError: the directory cannot be used, or all its spools are in use.
    """
    root.mkdir(mode=0o750, exist_ok=True)
    for number in range(MAX_SPOOLS):
        with contextlib.suppress(BlockingIOError):
            return Spool(root / str(number), most, backends)
    raise OSError(errno.EBUSY, f"{MAX_SPOOLS} other processes use it")


def _segments(directory: Path) -> Iterator[tuple[int, Path]]:
    for path in directory.glob(f"*{_SUFFIX}"):
        if path.stem.isdigit():
            yield int(path.stem), path


def _rows(path: Path, offset: int, end: int) -> Iterator[tuple[bytes, int]]:
    """The rows of a segment from an offset on, each with the offset after it, up to the first that is damaged."""
    with path.open("rb") as file:
        file.seek(offset)
        while offset + _FRAME.size <= end:
            head = file.read(_FRAME.size)
            if len(head) < _FRAME.size:  # somebody has cut the file
                return
            length, checksum = _FRAME.unpack(head)
            if length > MAX_ROW_OCTETS or offset + _FRAME.size + length > end:
                return
            row = file.read(length)
            if zlib.crc32(row) != checksum:
                return
            offset += _FRAME.size + length
            yield row, offset
