# SPDX-License-Identifier: GPL-3.0-or-later
"""The way of rows from the spool to a backend: takes them in batches to it, and waits while it is away.

Whatever fails, the rows stay in the spool until they are taken. Only a row that can never be taken is left out: it is
logged and counted.
"""

from __future__ import annotations

import threading
import time
import traceback
from collections.abc import Callable, Sequence
from typing import Protocol

from assay.log import Log
from assay.store.rows import MessageRow, decode
from assay.store.spool import Reader, Spool

#: At a time, our choice: one transaction of some 60 ms. The more rows, the fewer times is a page of an index written.
BATCH_ROWS = 2000
BATCH_OCTETS = 4 * 1024 * 1024  # our choice: usual rows are 2 MiB; those of hostile mail are a hundred times as long
GATHER_SECONDS = 2.0  # from the first new row to the batch with it, our choice: light traffic makes few transactions
FIRST_WAIT_SECONDS = 0.5  # after a failure; doubled up to the longest
LONGEST_WAIT_SECONDS = 15.0
TIDY_SECONDS = 3600.0
REMIND_SECONDS = 600.0  # between two lines in the log about the same outage
LAST_SECONDS = 5.0  # for what is left at the end; the rest is written after the next start


class UnavailableError(Exception):
    """A database or broker cannot take rows now. The message says why, and the fix if the operator has to do it."""


class UnwritableError(Exception):
    """It will never take these rows. The message says why."""


class RowTaker(Protocol):
    """Takes rows. What raises nothing has taken them for good."""

    def write(self, rows: Sequence[MessageRow]) -> object:
        """Take rows, some of which it may have taken before.

        :raises UnavailableError: none was taken for now.
        :raises UnwritableError: none was taken, because of at least one of them.
        """


class Backend(RowTaker, Protocol):
    """Where rows go."""

    def tidy(self, now: float) -> None:
        """Do what has to be done once an hour.

        :param now: Unix time in seconds.
        :raises UnavailableError: it can be done later.
        """

    def close(self) -> None:
        """End the connection."""


def write_all(backend: RowTaker, rows: Sequence[MessageRow], refuse: Callable[[str], None]) -> int:
    """Write a batch; if it has rows that cannot be written, all others.

    :param refuse: is called with the reason for each row that cannot be written.
    :returns: how many were taken.
    :raises UnavailableError: some may have been taken.
    """
    try:
        backend.write(rows)
    except UnwritableError as error:
        if len(rows) == 1:
            refuse(f"{rows[0].queue or rows[0].client}: {error}")
            return 0
        middle = len(rows) // 2
        return write_all(backend, rows[:middle], refuse) + write_all(backend, rows[middle:], refuse)
    return len(rows)


class Feeder:
    """A thread that takes rows from the spool to one backend."""

    def __init__(self, reader: Reader, spool: Spool, connect: Callable[[], Backend], log: Log) -> None:
        """
        :param reader: its position; the reader's name is the backend's.
        :param connect: opens the backend; may raise UnavailableError.
        """
        self.name = reader.name
        self.taken = 0  #: rows
        self.refused = 0  #: rows that can never be taken
        self.oldest = 0.0  #: the time of the oldest row that it has not taken, in Unix seconds; 0 if there is none
        self.up = True
        self._reader = reader
        self._spool = spool
        self._connect = connect
        self._log = log
        self._backend: Backend | None = None
        self._ending = threading.Event()
        self._deadline = float("inf")
        self._wait = FIRST_WAIT_SECONDS
        self._down_since = 0.0
        self._remind_at = 0.0
        self._tidy_at = 0.0
        self._more = False  # the last batch was a full one, so that it need not be gathered
        self._thread = threading.Thread(target=self._run, name=self.name, daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def end(self) -> None:
        """Take what is left, for a few seconds at most, and end."""
        self._deadline = time.monotonic() + LAST_SECONDS
        self._ending.set()
        self._spool.wake()
        self._thread.join(2 * LAST_SECONDS)

    def _run(self) -> None:
        while True:
            try:
                if self._step():
                    break
                self._recovered()
            except UnavailableError as error:
                if self._unavailable(str(error)):
                    break
            except OSError as error:  # the spool cannot be read
                if self._unavailable(f"spool: {error.strerror or error}"):
                    break
            except Exception as error:  # a bug, of a library too: without this thread, rows would pile up unnoticed
                if self._unavailable(described(error)):
                    break
        if self._backend is not None:
            self._backend.close()

    def _step(self) -> bool:
        """Take one batch. Returns whether there is nothing left to do."""
        if self._backend is None:
            self._backend = self._connect()
        if time.monotonic() >= self._tidy_at:
            self._backend.tidy(time.time())
            self._tidy_at = time.monotonic() + TIDY_SECONDS
        if not self._spool.wait(self._reader, 0.0 if self._ending.is_set() else 1.0):
            self.oldest = 0.0
            self._spool.collect()
            return self._ending.is_set()
        if not self._more:
            self._ending.wait(GATHER_SECONDS)
        batch = self._reader.read(BATCH_ROWS, BATCH_OCTETS)
        self._more = batch.full
        if batch.torn:
            self._log.error(f"store: {batch.torn}; they are left out")
        if batch.rows:
            rows = [row for octets in batch.rows if (row := self._decoded(octets)) is not None]
            if rows:
                self.oldest = rows[0].time / 1000
                self.taken += write_all(self._backend, rows, self._refuse)
        elif batch.position == self._reader.position:  # damaged, and nothing follows yet
            self._ending.wait(FIRST_WAIT_SECONDS)
            return self._ending.is_set()
        self._reader.move(batch.position)
        if not self._spool.behind(self._reader):
            self.oldest = 0.0
        return time.monotonic() >= self._deadline

    def _decoded(self, octets: bytes) -> MessageRow | None:
        try:
            return decode(octets)
        except ValueError as error:  # of another version of assay
            self._refuse(str(error))
            return None

    def _refuse(self, why: str) -> None:
        self.refused += 1
        self._log.error(f"store: {self.name}: a result cannot be written and is left out: {why}")

    def _unavailable(self, why: str) -> bool:
        """Wait before the next attempt. Returns whether to end instead."""
        now = time.monotonic()
        if self.up and not self._down_since:  # a connection that was idle may be dead: the next one says more
            self._down_since = now
        elif now >= self._remind_at:
            self.up = False
            self._log.warning(f"store: {self.name}: {why}; results wait in {self._spool.directory}")
            self._remind_at = now + REMIND_SECONDS
        if self._backend is not None:
            self._backend.close()
            self._backend = None
        if self._ending.is_set() and now >= self._deadline:
            return True
        self._ending.wait(self._wait)
        if self._ending.is_set():  # not at full speed until the deadline
            time.sleep(min(self._wait, FIRST_WAIT_SECONDS))
        self._wait = min(2 * self._wait, LONGEST_WAIT_SECONDS)
        return False

    def _recovered(self) -> None:
        if not self.up:
            self.up = True
            self._remind_at = 0.0
            self._log.warning(f"store: {self.name}: written again after {time.monotonic() - self._down_since:.0f} s")
        self._down_since = 0.0
        self._wait = FIRST_WAIT_SECONDS


def described(error: Exception) -> str:
    """What was raised, and where. Not its text, which may have values of a row, or a password."""
    place = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__} in {place.filename}:{place.lineno}"
