# SPDX-License-Identifier: GPL-3.0-or-later
"""Lets a worker accept connections only while it can serve them.

libmilter accepts whatever comes. The gate counts sessions. At the bound it replaces the worker's listening socket by
one that nobody reaches (`listener.deaf_socket`), so that further connections wait in the backlog, or go to another
worker. When a session ends, it puts the socket back and wakes libmilter.

Under load the count is late, and libmilter quick. So the worker's limit of descriptors is set to what the bound needs:
then the kernel ends a burst of connections, and there are never more threads than we have reckoned with.

Some descriptors are kept open for nothing. When sessions have taken all others, the gate closes, and these are given to
the DNS: as soon as it asks for one (`make_room`), or at the next look, a few times a second.
"""

from __future__ import annotations

import os
import resource
import time
from math import inf

from assay.daemon.capacity import Capacity
from assay.daemon.connection import SessionCount
from assay.daemon.listener import deaf_socket, prepare_to_wake, refuse, wake
from assay.log import Log
from assay.model.wording import counted

_LOOK_SECONDS = 0.2  # between two looks: while descriptors are used up, libmilter runs at full speed for this long
_SELDOM_SECONDS = 60.0  # between two warnings
_OWN_DESCRIPTORS = 16  # that a worker opens after its gate: libmilter's pipe, the DNS loop, files that are opened again
_SETTLE_SECONDS = 0.1  # until siblings are deaf too; shutting their socket down earlier looks like an error to them


class Gate(SessionCount):
    """The sessions of a worker, and whether it accepts more. Made in the main thread."""

    def __init__(self, descriptor: int, capacity: Capacity, kept: int, log: Log) -> None:
        """
        :param descriptor: the listening socket, where libmilter looks for it.
        :param kept: how many descriptors are kept for the DNS.
        """
        super().__init__()
        prepare_to_wake()
        self._descriptor = descriptor
        self._capacity = capacity
        self._log = log
        self._real = os.dup(descriptor)
        self._deaf = deaf_socket()  # at hand when no descriptor is left
        self._own = _descriptors() + _OWN_DESCRIPTORS
        _limit_descriptors(self._own + capacity.sessions + kept)
        self._kept_count = kept
        self._kept: list[int] = []
        self._full: float = inf  # descriptors in use when they were last used up
        self.closed = False  #: whether it accepts no connections
        self._ended = False
        self._next_warning = float("-inf")

    def change(self, by: int) -> None:
        """Count one session more or one less."""
        with self._lock:
            self.value += by
            if self.value >= self._capacity.sessions:
                self._close(f"{counted(self.value, 'session')} open, the most by {self._capacity.by}")
            elif self._kept:
                self._open()

    def watch(self) -> None:
        """Look for descriptors until the process ends. Call it in a thread of its own."""
        while not self._ended:
            self.look()
            time.sleep(_LOOK_SECONDS)

    def look(self) -> None:
        """Keep descriptors for the DNS, or give it those that were kept."""
        with self._lock:
            if self._ended:
                return
            if not self._kept:
                if _descriptors() >= self._full:
                    return  # nothing has ended: they would be used up again at once, with libmilter at full speed
                self._keep()
                if self._kept and self.value < self._capacity.sessions:
                    self._open()
                return
            try:
                os.close(os.dup(self._descriptor))
            except OSError:
                self._give()

    def make_room(self) -> bool:
        """The DNS needs a descriptor, and none is left: give it those that are kept. In any thread.

        :returns: False if it has them already.
        """
        with self._lock:
            if not self._kept:
                return False
            self._give()
            return True

    def end(self, *, refusing: bool) -> None:
        """Accept no connection any more.

        :param refusing: make the shared socket refuse connections, in all processes.
        """
        with self._lock:
            self._ended = True
            self._release()
            self._deafen()
        if refusing:
            time.sleep(_SETTLE_SECONDS)
            refuse(self._real)
        os.close(self._real)

    def _keep(self) -> None:
        """Take the descriptors that the DNS does not use yet; none if they are not all there."""
        used_by_dns = max(0, _descriptors() - self._own - self.value)
        try:
            while len(self._kept) < max(1, self._kept_count - used_by_dns) + 1:
                self._kept.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
            os.close(self._kept.pop())  # one more must be free
        except OSError:
            self._release()

    def _give(self) -> None:
        """Give the DNS what is kept. The gate closes first: libmilter would take it."""
        self._close("no descriptor is left (LimitNOFILE=, ulimit -n); those kept for the DNS are in use")
        self._release()
        self._full = _descriptors()

    def _deafen(self) -> None:
        os.dup2(self._deaf, self._descriptor, inheritable=False)

    def _release(self) -> None:
        while self._kept:
            os.close(self._kept.pop())

    def _close(self, why: str) -> None:
        if self._ended:
            return
        if not self.closed:
            self._deafen()
            self.closed = True
        now = time.monotonic()
        if now >= self._next_warning:
            self._next_warning = now + _SELDOM_SECONDS
            self._log.warning(f"new sessions wait: {why}")

    def _open(self) -> None:
        if self._ended or not self.closed:
            return
        os.dup2(self._real, self._descriptor, inheritable=False)
        self.closed = False
        wake()


def _descriptors() -> int:
    """How many descriptors this process has: all that it may have, if none is left to look with."""
    try:
        return len(os.listdir("/proc/self/fd")) - 1  # less the one that lists them
    except OSError:
        return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def _limit_descriptors(count: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft > count:
        resource.setrlimit(resource.RLIMIT_NOFILE, (count, hard))
