# SPDX-License-Identifier: GPL-3.0-or-later
"""Counters in memory that the processes of the daemon share.

Each process has a page of its own and is the only one that writes to it, so nothing is locked, and a reader stops
nobody: an aligned number of 64 bits is read whole. A page is a table of entries to which new ones are only added: a
name, and a number. So processes need not agree on a layout, a page that gets a new process goes on where the old one
stopped, and a sum over all pages never goes back.

A process may have several threads. CPython switches between them only at calls and backward jumps, and ``values[n] +=
1`` on a memoryview has neither, so no lock is needed for counting either.
"""

from __future__ import annotations

import mmap
from bisect import bisect_left
from collections.abc import Iterator
from threading import Lock
from zlib import crc32

from assay.metrics.families import BY_NAME, SECONDS, Type

#: Entries of one process. Some 400 are the rule; more come from many rules and nameservers. Those beyond share one.
MAX_ENTRIES = 1500
NAME_OCTETS = 120  # a family, and its labels
MAX_LABEL_OCTETS = 80  # a longer one is cut: only rules and nameservers may have one
NOTE_OCTETS = 16 * 1024  # the last warnings and the slowest names, as JSON
ARCHIVE_OCTETS = 4 * 1024 * 1024  # the figures of an hour; memory is taken as it is used
SEPARATOR = "\x1f"  # between the family and the values of its labels, in a name

_ENTRIES, _NOTE_SIZE, _NOTE_TURN, _HEAD = 0, 1, 2, 8  # numbers at the head of a page: indexes, and how many
_PAGE_OCTETS = 8 * (_HEAD + MAX_ENTRIES) + NAME_OCTETS * MAX_ENTRIES + NOTE_OCTETS
_OVERFLOW = "overflow"


class Page:
    """The counters of one process."""

    def __init__(self, memory: memoryview) -> None:
        """:param memory: `_PAGE_OCTETS`, zero at first."""
        numbers = 8 * (_HEAD + MAX_ENTRIES)
        self._head = memory[: 8 * _HEAD].cast("q")
        self._values = memory[8 * _HEAD : numbers].cast("q")
        self._names = memory[numbers : numbers + NAME_OCTETS * MAX_ENTRIES]
        self._note = memory[numbers + NAME_OCTETS * MAX_ENTRIES :]
        self._lock = Lock()  # for new entries
        self._cells: dict[str, int] = {}
        self.taken = False  #: whether a process has it; the supervisor's to know

    @classmethod
    def private(cls) -> Page:
        """A page that no other process reads."""
        return cls(memoryview(bytearray(_PAGE_OCTETS)))

    def add(self, name: str, amount: int = 1) -> None:
        """Count.

        :param name: from `name_of`.
        """
        cell = self._cells.get(name)
        if cell is None:
            cell = self.cell(name)
        self._values[cell] += amount

    def set(self, name: str, value: int) -> None:
        """Set a gauge, or a counter that is kept elsewhere."""
        self._values[self.cell(name)] = value

    def cell(self, name: str) -> int:
        """The place of a number, which is made if it is new."""
        with self._lock:
            if not self._cells:
                self._cells = {known: cell for cell, (known, _) in enumerate(self.entries())}
            octets = _fitting(name)
            found = self._cells.get(octets.decode("utf-8", "ignore"))
            if found is not None:
                self._cells[name] = found
                return found
            cell = self._head[_ENTRIES]
            if cell >= MAX_ENTRIES - 1 and name != _OVERFLOW:
                name, octets, cell = _OVERFLOW, _OVERFLOW.encode(), MAX_ENTRIES - 1
            self._names[cell * NAME_OCTETS : (cell + 1) * NAME_OCTETS] = octets.ljust(NAME_OCTETS, b"\0")
            self._head[_ENTRIES] = cell + 1  # last: a reader looks at complete entries only
            self._cells[name] = cell
            return cell

    def entries(self) -> Iterator[tuple[str, int]]:
        """All entries: name and number. In any process."""
        for cell in range(self._head[_ENTRIES]):
            octets = bytes(self._names[cell * NAME_OCTETS : (cell + 1) * NAME_OCTETS])
            yield octets.rstrip(b"\0").decode("utf-8", "ignore"), self._values[cell]

    def clear_gauges(self) -> None:
        """Set the gauges to zero: their process has ended. Its counters stay."""
        for cell, (name, _) in enumerate(self.entries()):
            family = BY_NAME.get(name.partition(SEPARATOR)[0])
            if family is not None and family.type is Type.GAUGE:
                self._values[cell] = 0
        self.note(b"")

    def note(self, octets: bytes) -> None:
        """Replace the note. One too long is dropped, and the old one stays."""
        self._head[_NOTE_TURN] |= 1  # odd: being written; a process that was killed meanwhile has left it so
        if len(octets) <= NOTE_OCTETS:
            self._note[: len(octets)] = octets
            self._head[_NOTE_SIZE] = len(octets)
        self._head[_NOTE_TURN] += 1

    @property
    def turns(self) -> int:
        """A number that changes with each `note`: a sign of life."""
        return self._head[_NOTE_TURN]

    @property
    def noted(self) -> bytes:
        """The note; empty if there is none, or if it is being written at the moment."""
        for _ in range(3):
            turn = self._head[_NOTE_TURN]
            octets = bytes(self._note[: self._head[_NOTE_SIZE]])
            if turn % 2 == 0 and turn == self._head[_NOTE_TURN]:
                return octets
        return b""


def _fitting(name: str) -> bytes:
    """The octets of a name. A long label is cut, whatever is beside it, and ends in a checksum of it: others that begin
    alike are counted apart."""
    parts = name.encode("utf-8", "replace").split(SEPARATOR.encode())
    for number, part in enumerate(parts):
        if len(part) > MAX_LABEL_OCTETS:
            mark = b"~%08x" % crc32(part)
            # A character that would be cut in two is left out, as when the entry is read.
            kept = part[: MAX_LABEL_OCTETS - len(mark)].decode("utf-8", "ignore").encode()
            parts[number] = kept + mark
    return SEPARATOR.encode().join(parts)[:NAME_OCTETS]


class Histogram:
    """How many waits fell into each class of `SECONDS`, and their sum in microseconds."""

    __slots__ = ("_cells", "_values")

    def __init__(self, page: Page, name: str) -> None:
        """:param name: from `name_of`."""
        self._values = page._values
        self._cells = [page.cell(f"{name}{SEPARATOR}{number}") for number in (*range(len(SECONDS) + 1), "sum")]

    def observe(self, seconds: float) -> None:
        """Count a wait."""
        self._values[self._cells[bisect_left(SECONDS, seconds)]] += 1
        self._values[self._cells[-1]] += int(seconds * 1e6)


class Pages:
    """The pages of all processes. Made by the supervisor before its first fork."""

    def __init__(self, count: int) -> None:
        self._memory = memoryview(mmap.mmap(-1, count * _PAGE_OCTETS))  # shared by all that are forked
        self.all = tuple(
            Page(self._memory[number * _PAGE_OCTETS : (number + 1) * _PAGE_OCTETS]) for number in range(count)
        )
        self._archive = memoryview(mmap.mmap(-1, 8 + ARCHIVE_OCTETS))

    def take(self) -> Page:
        """A page for a new process. If none is left, one that no other process reads."""
        page = next((page for page in self.all if not page.taken), None)
        if page is None:
            return Page.private()
        page.taken = True
        return page

    @property
    def archive(self) -> bytes:
        """What one endpoint leaves for the next one; empty at first."""
        return bytes(self._archive[8 : 8 + int.from_bytes(self._archive[:8], "big")])

    @archive.setter
    def archive(self, octets: bytes) -> None:
        if len(octets) <= ARCHIVE_OCTETS:
            self._archive[:8] = bytes(8)  # none while it is being written
            self._archive[8 : 8 + len(octets)] = octets
            self._archive[:8] = len(octets).to_bytes(8, "big")

    def release(self, page: Page) -> None:
        """The process of a page has ended."""
        if page.taken:
            page.clear_gauges()
            page.taken = False


def name_of(family: str, *labels: object) -> str:
    """The name of an entry. On hot paths, an f-string does the same."""
    return SEPARATOR.join((family, *map(str, labels)))
