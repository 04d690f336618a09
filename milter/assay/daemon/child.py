# SPDX-License-Identifier: GPL-3.0-or-later
"""What a child process is to the supervisor, and the supervisor to a child process.

A `Kind` says what runs, and how many of it. The supervisor forks it, waits until it is ready, drains it and starts it
again when it dies. A kind that serves mail and one that only helps differ in one word, `serves_mail`: what that means
is written at the field, and the supervisor keeps it.

Two pipes join the two. `Tether` is the child's side of them: it says when it serves, and waits for the order to drain.
The order is end-of-file, so a child also leaves when the supervisor dies. A word before it says that others go on
serving.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from msgspec import Struct

_READY = b"r"
_REPLACED = b"n"  # others serve by now

_MIN_LIFE_SECONDS = 5.0  # a child that dies younger than this makes the next one wait
_MAX_DELAY_SECONDS = 30.0  # the longest such wait; doubled from 1 s, so that a bug does not become a fork storm
_MAX_DELAY_WITHOUT_ANY_SECONDS = 1.5  # while none serves: MTAs try again for longer than this, and two forks are cheap


class Tether(Struct, frozen=True):
    """The child's side.

    :ivar slot: which one of its kind it is, counted from 0: no two that are meant to stay have the same.
    """

    control: int
    readiness: int
    slot: int

    def ready(self) -> None:
        """Report that this child serves. Call it once."""
        os.write(self.readiness, _READY)
        os.close(self.readiness)

    def wait(self) -> bool:
        """Wait for the order to drain.

        :returns: whether others serve in its place.
        """
        replaced = False
        while word := os.read(self.control, 1):
            replaced = word == _REPLACED
        return replaced


class Kind(Struct, frozen=True):
    """One kind of child.

    :ivar name: a noun for the log.
    :ivar run: what it does, in the child process: serve, call `Tether.ready`, return after `Tether.wait`; its result is
        the exit code.
    :ivar count: how many run at a time.
    :ivar drain_seconds: how long one may take to end after the order to drain, before it is killed.
    :ivar serves_mail: the daemon is there for this kind. A reload waits until new ones serve before the old ones drain;
        and a daemon none of whose children ever served mail ends. Others never decide anything: a reload starts one
        when the old one has ended, so that it may hold a port or a file alone; they end when the last that serves mail
        has ended, which may still need them; and they do not inherit the listening socket.
    """

    name: str
    run: Callable[[Tether], int]
    count: int = 1
    drain_seconds: float = 0.0
    serves_mail: bool = False


@dataclass(slots=True)
class Child:
    """The supervisor's side: one process."""

    kind: Kind
    pid: int
    slot: int
    control: int  #: closing it tells the child to drain; -1 when closed
    readiness: int  #: readable once it serves, or at end-of-file when it died before; -1 when read
    born: float = field(default_factory=time.monotonic)
    draining_until: float = 0.0  #: when it is killed; 0 unless it drains
    serving: bool = False

    def read_readiness(self) -> None:
        """Take note of what `readiness` says, when it is readable."""
        if self.readiness >= 0:
            self.serving = os.read(self.readiness, 1) == _READY
            os.close(self.readiness)
            self.readiness = -1

    def drain(self, grace: float, *, replaced: bool = False) -> None:
        """Order it to drain.

        :param grace: how many seconds beyond its own ``drain_seconds`` it has, before it is killed.
        :param replaced: others serve in its place.
        """
        if self.draining_until:
            return
        if replaced:
            with contextlib.suppress(OSError):  # it has died, and we have yet to hear of it
                os.write(self.control, _REPLACED)
        os.close(self.control)
        self.control = -1
        self.draining_until = time.monotonic() + self.kind.drain_seconds + grace

    def close(self) -> None:
        """Close our ends of the pipes."""
        for end in (self.control, self.readiness):
            if end >= 0:
                os.close(end)
        self.control = self.readiness = -1

    def kill(self) -> None:
        """End it at once."""
        with contextlib.suppress(OSError):  # it runs as somebody else by now, or has been reaped
            os.kill(self.pid, signal.SIGKILL)


@dataclass(slots=True)
class BackOff:
    """When the next child of a kind may be started. One that failed makes it wait, and each time twice as long."""

    _since: float = 0.0
    _delay: float = 0.0

    def until(self, *, none_serves: bool) -> float:
        """The time, on the monotonic clock, from which one may be started; 0 for at once."""
        return self._since + self.delay(none_serves=none_serves) if self._delay else 0.0

    def delay(self, *, none_serves: bool) -> float:
        """How long the wait is, in seconds, from the failure on."""
        return min(self._delay, _MAX_DELAY_WITHOUT_ANY_SECONDS if none_serves else _MAX_DELAY_SECONDS)

    def on_failure(self, lived: float, *, waiting: bool) -> None:
        """Take note that one died or could not be started.

        :param lived: for how many seconds it had run.
        :param waiting: the wait for an earlier one is not over. Those that fail together count once.
        """
        if waiting:
            return
        self._since = time.monotonic()
        self._delay = 0.0 if lived >= _MIN_LIFE_SECONDS else min(_MAX_DELAY_SECONDS, self._delay * 2 or 1.0)
