# SPDX-License-Identifier: GPL-3.0-or-later
"""Lines on their way to a sink that may not take them now.

A line is sent at once by the thread that writes it, without blocking, while nothing waits. If the sink does not take it
(a pipe that nobody reads, a syslog daemon that hangs or restarts, a full disk), it waits in a bounded buffer, and so do
all after it, in order. Lines beyond the bound are lost, and their number is logged behind those that waited.

The process that opened the log is the supervisor, which forks and has no threads: it calls `flush` from time to time.
In its children a thread sends what waits, once there is something.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable
from threading import Event, Lock, Thread

from assay.log.level import Level
from assay.log.sinks import Sink

#: Octets that wait in one process. Some 2,500 lines of messages: a busy minute, and little of a worker's memory.
MAX_WAITING_OCTETS = 1024 * 1024
MAX_WARNINGS = 5  # that are kept for `assay status`
MAX_WARNING_LENGTH = 500  # characters of each
RETRY_SECONDS = 1.0  # until the next attempt, if the sink cannot say when it takes more


LOST = "{} log lines were lost, because the log did not take them"


class Outlet:
    """Sends lines in order and never blocks. Any thread may write."""

    def __init__(self, sink: Sink, form: Callable[[Level, str], str]) -> None:
        """:param form: makes a line of our own."""
        self.lost = 0  #: lines lost so far
        #: The last lines that are not only information: when, and the line as it was written.
        self.warnings: deque[tuple[float, str]] = deque(maxlen=MAX_WARNINGS)
        self._sink = sink
        self._form = form
        self._lock = Lock()
        self._waiting: deque[bytes] = deque()
        self._octets = 0
        self._unreported = 0
        self._blocked = False  # the last failure was one that ends when somebody reads
        self._owner = self._opener = os.getpid()  # whose lines wait
        self._wake: Event | None = None  # of the thread, once there is one

    def write(self, level: Level, line: str) -> None:
        """Send a line now or later, or lose it."""
        if level <= Level.WARNING:
            self.warnings.append((time.time(), line[:MAX_WARNING_LENGTH]))
        octets = self._sink.frame(level, line)
        with self._lock:
            if not self._waiting:
                octets = self._send(octets)
                if not octets:
                    return
            self._keep(octets)

    def flush(self, patience: float = 0.0) -> bool:
        """Send what waits.

        :param patience: seconds to wait at most.
        :returns: whether nothing is left.
        """
        deadline = time.monotonic() + patience
        while True:
            with self._lock:
                if self._flush():
                    return True
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            self._pause(left)

    def close(self) -> int:
        """Send what can be sent at once, and close the sink.

        :returns: how many lines are lost and not reported.
        """
        with self._lock:
            self._flush()
            lost = len(self._waiting) + self._unreported
            self._waiting.clear()
            self._octets = self._unreported = 0
            self._sink.close()
        return lost

    def _send(self, octets: bytes) -> bytes:
        """Send octets; what is left of them."""
        try:
            return octets[self._sink.send(octets) :]
        except OSError as error:
            self._blocked = isinstance(error, BlockingIOError)
            return octets

    def _keep(self, octets: bytes) -> None:
        process = os.getpid()
        if process != self._owner:  # what waits is our parent's, which sends it itself
            self._owner = process
            self._waiting.clear()
            self._octets = self._unreported = self.lost = 0
        if self._octets + len(octets) > MAX_WAITING_OCTETS:
            self.lost += 1
            self._unreported += 1
            return
        self._waiting.append(octets)
        self._octets += len(octets)
        if process == self._opener:
            return
        if self._wake is None:
            self._wake = Event()
            Thread(target=self._work, args=(self._wake,), name="log", daemon=True).start()
        self._wake.set()

    def _flush(self) -> bool:
        """Send what waits until the sink takes no more; True if nothing is left."""
        waiting = self._waiting
        while waiting:
            left = self._send(waiting[0])
            self._octets -= len(waiting[0]) - len(left)
            if left:
                waiting[0] = left
                return False
            waiting.popleft()
            if not waiting and self._unreported:
                self._report()
        return True

    def _report(self) -> None:
        number, self._unreported = self._unreported, 0
        line = self._form(Level.WARNING, LOST.format(number))
        octets = self._sink.frame(Level.WARNING, line)
        self._waiting.append(octets)
        self._octets += len(octets)

    def _work(self, wake: Event) -> None:
        """The thread: send what waits, then wait for more."""
        while True:
            wake.wait()
            wake.clear()
            while not self.flush():
                self._pause(RETRY_SECONDS)

    def _pause(self, seconds: float) -> None:
        """Wait until the sink may take more."""
        if self._blocked:
            self._sink.wait(seconds)
        else:
            time.sleep(min(seconds, RETRY_SECONDS))
