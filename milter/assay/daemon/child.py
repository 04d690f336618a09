# SPDX-License-Identifier: GPL-3.0-or-later
"""The interface between the supervisor and its child processes.

A `Kind` defines what runs, and in how many processes. The supervisor forks each process, waits until it is ready,
drains it, and restarts it when it dies. `serves_mail` distinguishes kinds that serve mail from helpers; the field
documents the difference.

Two pipes connect the supervisor and a child. `Tether` is the child's side: it reports that the child serves, and waits
for the order to drain. The order is a byte and then end-of-file, so a child also ends when the supervisor dies.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import signal
import socket
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from dataclasses import field as attribute
from enum import Enum

from msgspec import Struct, field

from assay.config.endpoint import Endpoint
from assay.metrics import Page, Pages

_READY = b"r"

_TICK_SECONDS = 1.0  # between two ticks of a child that waits
_MIN_LIFE_SECONDS = 5.0  # if a child dies younger than this, the next one waits
_MAX_DELAY_SECONDS = 30.0  # the longest such wait; doubled from 1 s, so that a bug does not become a fork storm
_MAX_DELAY_WITHOUT_ANY_SECONDS = 1.5  # while none serves: MTAs retry for longer than this, and two forks are cheap


class Order(Enum):
    """Why a child is to drain."""

    END = b"e"
    REPLACED = b"n"  #: others serve in its place, or the supervisor ends before it
    ORPHANED = b""  #: the supervisor has died


class Tether(Struct, frozen=True):
    """The child's side.

    :ivar slot: its number within its kind, from 0. Unique among children that do not drain.
    :ivar page: where it counts.
    :ivar pages: where all processes of the daemon count.
    :ivar sockets: that listen, by the key that asks for each (`Kind.sockets`).
    """

    control: int
    readiness: int
    slot: int
    page: Page = field(default_factory=Page.private)
    pages: Pages = field(default_factory=lambda: Pages(1))
    sockets: Mapping[str, socket.socket] = {}

    def ready(self) -> None:
        """Report that this child serves. Call it once."""
        with contextlib.suppress(BrokenPipeError):  # the supervisor has ended, and `wait` returns at once
            os.write(self.readiness, _READY)
        os.close(self.readiness)

    def wait(self, tick: Callable[[], None] | None = None) -> Order:
        """Wait for the order to drain.

        :param tick: called once a second until then.
        """
        while tick is not None and not select.select([self.control], [], [], _TICK_SECONDS)[0]:
            tick()
        return Order(os.read(self.control, 1))


class SocketSetting(Struct, frozen=True):
    """A setting that says where a kind listens.

    :ivar key: its name in the configuration.
    :ivar mode: permissions of a unix socket.
    """

    key: str
    endpoint: Endpoint
    mode: int = 0o660  # as for the MTA's


class Kind(Struct, frozen=True):
    """One kind of child.

    :ivar name: a noun for the log.
    :ivar run: runs in the child process: serves, calls `Tether.ready`, and returns after `Tether.wait`. Its result is
        the exit code.
    :ivar count: how many processes run at a time.
    :ivar drain_seconds: how long one may take to end after the order to drain, before it is killed.
    :ivar serves_mail: whether it serves mail or is a helper. A reload waits until new processes that serve mail are
        ready before the old ones drain. A daemon without any that was ever ready ends. A reload starts a helper after
        the old one has ended, so that it may hold a port or file exclusively. Helpers end after the last process that
        serves mail, which may need them, and do not inherit the listening socket.
    :ivar lingers: a helper that workers need to their end. If the socket is lent and they outlive the supervisor, so
        does it. When the daemon ends, another is started though its predecessor of an older configuration drains.
    :ivar sockets: where it listens. The supervisor opens them, and they stay open while it is replaced.
    """

    name: str
    run: Callable[[Tether], int]
    count: int = 1
    drain_seconds: float = 0.0
    serves_mail: bool = False
    lingers: bool = False
    sockets: tuple[SocketSetting, ...] = ()


@dataclass(slots=True)
class Child:
    """The supervisor's side: one process."""

    kind: Kind
    pid: int
    slot: int
    control: int  #: closing it tells the child to drain; -1 when closed
    readiness: int  #: readable once it serves, or at end-of-file when it died before; -1 when read
    page: Page
    born: float = attribute(default_factory=time.monotonic)
    draining_until: float = 0.0  #: when it is killed; 0 unless it drains
    serving: bool = False

    @property
    def serves(self) -> bool:
        """Whether it serves new mail."""
        return self.kind.serves_mail and self.serving and not self.draining_until

    def read_readiness(self) -> None:
        """Read `readiness`. Call it when it is readable."""
        if self.readiness >= 0:
            self.serving = os.read(self.readiness, 1) == _READY
            os.close(self.readiness)
            self.readiness = -1

    def drain(self, grace: float, *, replaced: bool = False) -> None:
        """Order it to drain.

        :param grace: seconds beyond its own ``drain_seconds`` before it is killed.
        :param replaced: others serve in its place.
        """
        if self.draining_until:
            return
        with contextlib.suppress(OSError):  # it has died, and is not reaped yet
            os.write(self.control, (Order.REPLACED if replaced else Order.END).value)
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
        """Kill it."""
        with contextlib.suppress(OSError):  # it runs as another user, or has been reaped
            os.kill(self.pid, signal.SIGKILL)


def fork() -> tuple[int, tuple[int, int, int, int]]:
    """Fork, with the two pipes between the supervisor and the child.

    :returns: the process id, 0 in the child, and the ends: where the child reads orders, where the supervisor writes
        them, where the supervisor reads the readiness, and where the child writes it.
    :raises OSError: no process, descriptor or memory left; nothing has changed. The message names which.
    """
    ends: list[int] = []
    try:
        ends += os.pipe()
        ends += os.pipe()
        return os.fork(), (ends[0], ends[1], ends[2], ends[3])
    except (OSError, MemoryError) as error:
        for end in ends:
            os.close(end)
        number = error.errno if isinstance(error, OSError) and error.errno else errno.ENOMEM
        raise OSError(number, f"{'fork' if len(ends) == 4 else 'pipe'}: {os.strerror(number)}") from error


def wait_for_killed(pids: Iterable[int], seconds: float) -> None:
    """Wait until children that were killed have ended, and what they held is free.

    :param seconds: how long at most.
    """
    deadline = time.monotonic() + seconds
    for pid in pids:
        with contextlib.suppress(ChildProcessError):  # it has been reaped
            while os.waitpid(pid, os.WNOHANG) == (0, 0) and time.monotonic() < deadline:
                time.sleep(seconds / 100)


@dataclass(slots=True)
class BackOff:
    """When the next child of a kind may be started. The wait doubles with each failure."""

    _since: float = 0.0
    _delay: float = 0.0

    def until(self, *, none_serves: bool) -> float:
        """The earliest start on the monotonic clock; 0 for at once."""
        return self._since + self.delay(none_serves=none_serves) if self._delay else 0.0

    def delay(self, *, none_serves: bool) -> float:
        """The wait after the failure, in seconds."""
        return min(self._delay, _MAX_DELAY_WITHOUT_ANY_SECONDS if none_serves else _MAX_DELAY_SECONDS)

    def on_failure(self, lived: float, *, waiting: bool) -> None:
        """Note that one died or could not be started.

        :param lived: how many seconds it ran.
        :param waiting: the wait after an earlier failure is not over. Simultaneous failures count once.
        """
        if waiting:
            return
        self._since = time.monotonic()
        self._delay = 0.0 if lived >= _MIN_LIFE_SECONDS else min(_MAX_DELAY_SECONDS, self._delay * 2 or 1.0)
