# SPDX-License-Identifier: GPL-3.0-or-later
"""How long the DNS may take: for inquiries in the background, and for a message whose MTA waits for them.

A `Budget` is the time during which an inquiry waits for the DNS, whoever waits for the inquiry. An `Allowance` is the
time during which the MTA waits for inquiries: a client that takes a minute to send its body uses none of it.
"""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock


class Budget:
    """The time during which any of some inquiries waits for the DNS. Any thread may use it."""

    __slots__ = ("_left", "_lock", "_open", "_since", "clock")

    def __init__(self, seconds: float, clock: Callable[[], float]) -> None:
        self.clock = clock
        self._left = seconds
        self._open = 0  # inquiries that wait
        self._since = 0.0  # since when some inquiry waits
        self._lock = Lock()

    @property
    def remaining(self) -> float:
        """Seconds that are left, zero or less when it is spent."""
        with self._lock:
            return self._left - (self.clock() - self._since) if self._open else self._left

    def begin(self) -> None:
        """One more inquiry waits."""
        with self._lock:
            if not self._open:
                self._since = self.clock()
            self._open += 1

    def end(self) -> None:
        """It waits no more."""
        with self._lock:
            self._open -= 1
            if not self._open:
                self._left -= self.clock() - self._since


class Allowance:
    """The time during which the MTA waits for one message, or for one after the other.

    It is used by one thread at a time, that of the connection.
    """

    __slots__ = ("_on_wait", "_seconds", "_share", "_spent")

    def __init__(self, seconds: float, on_wait: Callable[[], None] = lambda: None) -> None:
        """
        :param on_wait: called whenever the MTA begins to wait.
        """
        self._seconds = seconds
        self._on_wait = on_wait
        self._share = 1.0
        self._spent = 0.0

    @property
    def left(self) -> float:
        """Seconds that are left of what may be spent by now."""
        return self._seconds * self._share - self._spent

    def allow(self, share: float) -> None:
        """From now on this share of the whole may be spent, from 0 to 1."""
        self._share = share

    def begin(self) -> None:
        """The MTA waits from now on."""
        self._on_wait()

    def spend(self, seconds: float) -> None:
        """The MTA has waited."""
        self._spent += seconds

    def renew(self) -> None:
        """The next message begins."""
        self._spent = 0.0
