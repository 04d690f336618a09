# SPDX-License-Identifier: GPL-3.0-or-later
"""How many messages a worker evaluates at a time: the others wait, in the order of their arrival.

libmilter has a thread for each session with something to read. When mail arrives faster than it can be evaluated,
dozens of threads compete for the interpreter, and chance decides which one gets it: some messages take several times as
long as others. So a message needs a place from its first header field to its end. MTAs send header and body in one go
when they have all of it, so a slow SMTP client never holds a place.

No message holds up the others for long. One that waits for the DNS gives its place to the next, and so does one that
has held it for `HOLD_SECONDS`, if another message waits. Both go on without a place.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from threading import Lock

#: Messages that a worker evaluates at a time. More than one, so that the core has work while one of them is read.
AT_A_TIME = 4
#: Seconds after which a message loses its place if another one waits. Most need a hundredth of it.
HOLD_SECONDS = 0.05


class Claim:
    """The claim of one connection to a place, for one message after the other. Its own thread uses it."""

    __slots__ = ("_admission", "made", "waited")

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self.made = False  #: whether the current message has had a place
        self.waited = 0.0  #: seconds for which it waited for it

    def renew(self) -> None:
        """The next message begins."""
        self.made = False
        self.waited = 0.0

    def make(self) -> None:
        """Take a place for the message, or wait for one."""
        self.made = True
        self.waited = self._admission.enter(self)

    def leave(self) -> None:
        """Give the place away, if it is still held: the message is over, or waits for the DNS."""
        self._admission.leave(self)


class Admission:
    """The places of a worker, and the messages that wait for one. Any thread may use it."""

    __slots__ = ("_clock", "_hold_seconds", "_holders", "_lock", "_places", "_queue")

    def __init__(
        self,
        places: int = AT_A_TIME,
        hold_seconds: float = HOLD_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._places = places
        self._hold_seconds = hold_seconds
        self._clock = clock
        self._lock = Lock()
        self._holders: dict[Claim, float] = {}  # since when they hold their places, oldest first
        self._queue: deque[tuple[Claim, Lock]] = deque()  # the lock is released when it has a place

    def enter(self, claim: Claim) -> float:
        """Take a place. If there is none, wait for one.

        :returns: the seconds of waiting.
        """
        began = self._clock()
        with self._lock:
            if len(self._holders) < self._places:  # then no message waits
                self._holders[claim] = began
                return 0.0
            admitted = Lock()
            admitted.acquire()
            # Each of these times admits a message for every place, if need be. Before its time has come, a message
            # has nothing to look for, and its thread takes no time of the core.
            seconds = self._hold_seconds * (1 + len(self._queue) // self._places)
            self._queue.append((claim, admitted))
        while not admitted.acquire(timeout=seconds):
            self._end_long_holds()
            seconds = self._hold_seconds
        return self._clock() - began

    def leave(self, claim: Claim) -> None:
        """Give its place to the claim that has waited longest. Does nothing for one without a place."""
        if claim in self._holders:
            with self._lock:
                self._holders.pop(claim, None)
                self._admit()

    def _end_long_holds(self) -> None:
        with self._lock:
            now = self._clock()
            for claim in [claim for claim, since in self._holders.items() if now - since >= self._hold_seconds]:
                del self._holders[claim]
            self._admit()

    def _admit(self) -> None:
        """Give the places that are free to the claims that have waited longest."""
        while self._queue and len(self._holders) < self._places:
            following, admitted = self._queue.popleft()
            try:
                self._holders[following] = self._clock()
            finally:  # also if there is no memory for it: it must not wait for ever
                admitted.release()
