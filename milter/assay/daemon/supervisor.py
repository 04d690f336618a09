# SPDX-License-Identifier: GPL-3.0-or-later
"""The supervisor: keeps the socket and N workers, obeys signals. A single thread that never touches a message.

Signals: TERM and INT drain and end; a second one ends at once. HUP reads the configuration, and only if it is good
starts new workers with it, waits until they serve, and drains the old ones. CHLD replaces a worker that died.
Handlers only note the signal; the loop acts.
"""

from __future__ import annotations

import contextlib
import os
import random
import select
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from assay.config import ConfigError, Configuration
from assay.daemon import worker
from assay.daemon.listener import Listener
from assay.log import Log

_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)
_STOPS = (signal.SIGTERM, signal.SIGINT)  # they count: the second one is another order
_MIN_LIFE_SECONDS = 5.0  # a worker that dies younger than this makes the next one wait
_MAX_DELAY_SECONDS = 30.0  # the longest such wait; doubled from 1 s, so that a bug does not become a fork storm
_START_SECONDS = 30.0  # how long a worker may take until it serves; it needs less than one
_GRACE_SECONDS = 5.0  # beyond drain_seconds, before a worker that should have ended is killed


@dataclass(slots=True)
class _Worker:
    pid: int
    control: int  # closing it tells the worker to drain; -1 when closed
    ready: int  # readable once it serves, or at end-of-file when it died before; -1 when read
    born: float
    core: int  # the one it runs on
    draining_until: float = 0.0
    serving: bool = False


@dataclass(slots=True)
class Supervisor:
    """Runs the daemon in the foreground."""

    listener: Listener
    configuration: Configuration
    reload: Callable[[], tuple[Configuration, Log]]  #: reads the configuration anew; raises ConfigError
    log: Log
    _workers: dict[int, _Worker] = field(default_factory=dict)
    _noted: list[int] = field(default_factory=list)
    _stopping: bool = False
    _spawn_at: float = 0.0
    _delay: float = 0.0
    _served: bool = False

    def run(self) -> int:
        """Serve until told to end.

        :returns: the exit code: ``EX_OK``, or ``EX_SOFTWARE`` when no worker could start at all.
        """
        wake, wake_end = os.pipe()
        for end in (wake, wake_end):
            os.set_blocking(end, False)
        previous = signal.set_wakeup_fd(wake_end)
        handlers = {number: signal.signal(number, lambda n, _: self._noted.append(n)) for number in _SIGNALS}
        try:
            return self._loop(wake)
        finally:
            self._kill_all()
            for number, handler in handlers.items():
                signal.signal(number, handler)
            signal.set_wakeup_fd(previous)
            os.close(wake)
            os.close(wake_end)
            self.listener.remove()

    def _loop(self, wake: int) -> int:
        while self._workers or not self._stopping:
            self._keep_workers()
            readers = [wake, *(one.ready for one in self._workers.values() if one.ready >= 0)]
            readable, _, _ = select.select(readers, [], [], self._patience())
            if wake in readable:
                os.read(wake, 512)
            for one in list(self._workers.values()):
                if one.ready in readable:
                    self._on_ready(one)
            while self._noted:
                number = self._noted.pop(0)
                if number not in self._noted or number in _STOPS:  # a storm of one signal is one signal
                    self._on_signal(number)
            self._kill_overdue()
            if self._stopping and not self._served:
                return os.EX_SOFTWARE
        return os.EX_OK

    def _patience(self) -> float | None:
        """How long the loop may sleep, in seconds; None for as long as nothing happens."""
        times = [one.draining_until for one in self._workers.values() if one.draining_until]
        if not self._stopping and self._spawn_at:
            times.append(self._spawn_at)
        return max(0.0, min(times) - time.monotonic()) if times else None

    def _on_signal(self, number: int) -> None:
        match number:
            case signal.SIGCHLD:
                self._reap()
            case signal.SIGHUP:
                self._on_reload()
            case _ if self._stopping:
                self.log.warning("told to end a second time: cutting sessions off")
                self._kill_all()
            case _:
                self._on_stop()

    def _on_stop(self) -> None:
        """Drain and end. Our own descriptor goes first: MTAs are refused at once instead of left waiting."""
        self.log.info("ending: no new sessions, waiting for those that are open")
        self._stopping = True
        os.close(self.listener.descriptor)
        for one in self._workers.values():
            self._drain(one)

    def _on_reload(self) -> None:
        if self._stopping:
            return
        try:
            configuration, log = self.reload()
        except ConfigError as error:
            self.log.error(f"not reloaded, the old configuration stays: {error}")
            return
        if configuration.milter.socket != self.configuration.milter.socket:
            self.log.warning("milter.socket was changed: that needs a restart, the old socket stays")
        before = self.configuration, self.log
        self.configuration, self.log = configuration, log
        old = [one for one in self._workers.values() if not one.draining_until]
        fresh = [self._workers[self._spawn()] for _ in range(configuration.milter.worker_count)]
        self._await(fresh)
        good = all(one.serving for one in fresh)
        if not good:
            self.configuration, self.log = before
        for one in old if good else fresh:
            self._drain(one, replaced=True)
        if good:
            self.log.info("reloaded")
        else:
            self.log.error("not reloaded, the old configuration stays: a worker with the new one cannot serve")

    def _await(self, fresh: list[_Worker]) -> None:
        """Wait until new workers serve, have died or take too long, so that the old ones are never missed."""
        deadline = time.monotonic() + _START_SECONDS
        while waiting := [one for one in fresh if one.ready >= 0]:
            readable, _, _ = select.select(
                [one.ready for one in waiting], [], [], max(0.0, deadline - time.monotonic())
            )
            if not readable:
                return
            for one in waiting:
                if one.ready in readable:
                    self._on_ready(one)

    def _keep_workers(self) -> None:
        """Start what is missing, unless workers have died young lately."""
        now = time.monotonic()
        if self._stopping or now < self._spawn_at:
            return
        self._spawn_at = 0.0
        alive = sum(not one.draining_until for one in self._workers.values())
        for _ in range(alive, self.configuration.milter.worker_count):
            self._spawn()

    def _spawn(self) -> int:
        control, control_end = os.pipe()
        ready, ready_end = os.pipe()
        core = self._free_core()
        pid = os.fork()
        if pid == 0:
            self._become_worker(control, control_end, ready, ready_end, core)
        os.close(control)
        os.close(ready_end)
        self._workers[pid] = _Worker(pid, control_end, ready, time.monotonic(), core)
        self.log.debug(f"worker {pid} started")
        return pid

    def _free_core(self) -> int:
        """The core for the next worker: one of those that have the fewest, drawn by lot, so that several daemons with
        few workers do not all come to the same."""
        taken = [one.core for one in self._workers.values() if not one.draining_until]
        cores = list(os.sched_getaffinity(0))
        random.shuffle(cores)
        return min(cores, key=taken.count)

    def _become_worker(self, control: int, control_end: int, ready: int, ready_end: int, core: int) -> None:
        """The child's side of the fork; does not return."""
        code = os.EX_SOFTWARE
        try:
            signal.set_wakeup_fd(-1)
            for number in _SIGNALS:
                signal.signal(number, signal.SIG_DFL)
            os.setpgid(0, 0)  # Ctrl-C at a terminal is the supervisor's affair
            # A sibling's pipe end kept open here would keep that sibling from seeing its end-of-file.
            for one in self._workers.values():
                for end in (one.control, one.ready):
                    if end >= 0:
                        os.close(end)
            os.close(control_end)
            os.close(ready)
            code = worker.run(self.configuration, self.listener, self.log, control=control, ready=ready_end, core=core)
        except Exception as error:  # the child must not run on as a second supervisor
            self.log.error(f"worker cannot serve: {error!r}")
        finally:
            os._exit(code)

    def _on_ready(self, one: _Worker) -> None:
        served = os.read(one.ready, 1) == worker.READY
        os.close(one.ready)
        one.ready = -1
        one.serving = served
        if served and not self._served:
            self._served = True
            count = self.configuration.milter.worker_count
            self.log.info(f"serving on {self.listener.endpoint} with {count} worker{'s' if count > 1 else ''}")

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            one = self._workers.pop(pid, None)
            if one is not None:
                self._on_death(one, status)

    def _on_death(self, one: _Worker, status: int) -> None:
        if one.ready >= 0:
            self._on_ready(one)
        if one.draining_until:
            self.log.debug(f"worker {one.pid} drained")
            return
        os.close(one.control)
        code = os.waitstatus_to_exitcode(status)
        how = f"exit code {code}" if code >= 0 else f"signal {-code}"
        self._stopping |= not self._served  # it never worked: an operator should see that at once
        self.log.error(f"worker {one.pid} died ({how})" + ("" if self._stopping else "; starting another"))
        if self._stopping:
            return
        if time.monotonic() - one.born < _MIN_LIFE_SECONDS:
            self._delay = min(_MAX_DELAY_SECONDS, self._delay * 2 or 1.0)
            self._spawn_at = time.monotonic() + self._delay
        else:
            self._delay = 0.0

    def _drain(self, one: _Worker, *, replaced: bool = False) -> None:
        if not one.draining_until:
            if replaced:
                with contextlib.suppress(BrokenPipeError):  # it has died, and we have yet to hear of it
                    os.write(one.control, worker.REPLACED)
            os.close(one.control)
            one.control = -1
            one.draining_until = time.monotonic() + self.configuration.milter.drain_seconds + _GRACE_SECONDS

    def _kill_overdue(self) -> None:
        for one in self._workers.values():
            if one.draining_until and time.monotonic() >= one.draining_until:
                os.kill(one.pid, signal.SIGKILL)

    def _kill_all(self) -> None:
        for one in self._workers.values():
            os.kill(one.pid, signal.SIGKILL)
