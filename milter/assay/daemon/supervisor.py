# SPDX-License-Identifier: GPL-3.0-or-later
"""The supervisor: keeps the socket and the children, and handles signals. A single thread that never reads a message.

`kinds` lists its children, and `child` defines a kind. Signals: TERM and INT drain and end; a second one ends at once.
HUP reads the configuration. If it is valid, new workers start with it, and once they serve, the old ones drain. CHLD
replaces a child that died. Handlers only note the signal; the loop acts. No system error and no lack of memory ends the
supervisor while children serve: it logs the error and tries again.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field

from assay import files
from assay.config import ConfigError, Configuration
from assay.daemon import kinds
from assay.daemon.child import BackOff, Child, Kind, Tether, fork, wait_for_killed
from assay.daemon.held import HeldSockets
from assay.daemon.listener import Listener
from assay.daemon.meter import DaemonMeter
from assay.daemon.notify import Manager
from assay.daemon.pulse import HANGS, LOOK, Pulse
from assay.log import Log
from assay.model.wording import counted
from assay.store.channel import RowChannel
from assay.store.stand_in import StandIn

_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)
_STOPS = (signal.SIGTERM, signal.SIGINT)  # counted: a second one means end at once
_START_SECONDS = 30.0  # how long a worker may take to start; it needs less than one
_GRACE_SECONDS = 5.0  # beyond drain_seconds, before a child that should have ended is killed
_LOG_SECONDS = 1.0  # between attempts to write what waits for a reader of the log
_LAST_LINES_SECONDS = 1.0  # at most, for lines that the log has not taken at the end
_LAST_ROWS_SECONDS = 1.0  # at most, for results that a recorder takes at this moment
_KILLED_SECONDS = 1.0  # at most, for children to end
_PAUSE_SECONDS = 1.0  # after a system error in the loop itself


@dataclass(slots=True)
class Supervisor:
    """Runs the daemon in the foreground."""

    listener: Listener
    configuration: Configuration
    reload: Callable[[], tuple[Configuration, Log]]  #: reads the configuration again; raises ConfigError
    log: Log
    source: str = ""  #: the configuration, as `assay status` names it
    manager: Manager = field(default_factory=Manager)
    _pulse: Pulse = field(default_factory=Pulse)
    _channel: RowChannel = field(default_factory=RowChannel)  # what it holds outlives a reload
    _held: HeldSockets = field(default_factory=HeldSockets)  # likewise
    _meter: DaemonMeter = field(init=False)
    _kinds: tuple[Kind, ...] = ()
    _children: dict[int, Child] = field(default_factory=dict)
    _back_off: defaultdict[str, BackOff] = field(default_factory=lambda: defaultdict(BackOff))  # by name of the kind
    _noted: list[int] = field(default_factory=list)
    _stopping: bool = False
    _served: bool = False
    _last: bool = False  # no child of ours serves mail any more, and none is started

    def __post_init__(self) -> None:
        """Read what the children need, before the process becomes another user.

        :raises ConfigError, ValueError: a file cannot be used: it changed since the configuration was checked, or only
            a child needs it.
        """
        self._kinds = kinds.kinds(self.configuration, self.listener, self._channel, self.log)

    def run(self) -> int:
        """Serve until a signal ends it.

        :returns: the exit code: ``EX_OK``, or ``EX_SOFTWARE`` if no worker could start.
        """
        wake, wake_end = os.pipe()
        for end in (wake, wake_end):
            os.set_blocking(end, False)
        previous = signal.set_wakeup_fd(wake_end)
        handlers = {number: signal.signal(number, lambda n, _: self._noted.append(n)) for number in _SIGNALS}
        self._meter = DaemonMeter(self.configuration.milter.worker_count, self.log, self.source)
        try:
            return self._loop(wake)
        finally:
            self._kill_all()
            wait_for_killed(self._children, _KILLED_SECONDS)
            for number, handler in handlers.items():
                signal.signal(number, handler)
            signal.set_wakeup_fd(previous)
            os.close(wake)
            os.close(wake_end)
            self._held.keep(())
            self.listener.remove()
            section = self.configuration.store
            if loss := StandIn(self._channel, section.directory, section.spool_octets).settle(_LAST_ROWS_SECONDS):
                self.log.error(f"store: {loss}")
            self.log.flush(_LAST_LINES_SECONDS)

    def _loop(self, wake: int) -> int:
        while self._children or not self._stopping:
            try:
                self._turn(wake)
            except (OSError, MemoryError) as error:  # the children serve, and need us
                self.log.error(f"supervisor: {_why(error)}; continuing")
                time.sleep(_PAUSE_SECONDS)
            if self._stopping and not self._served:
                return os.EX_SOFTWARE
        return os.EX_OK

    def _turn(self, wake: int) -> None:
        """Collect the dead, start what is missing, sleep until something happens, and act on it."""
        self._reap()
        if self._stopping:  # where nobody answers any more, clients are refused
            self._held.keep(child.kind for child in self._children.values())
        if self._stopping and self._served and not any(child.kind.serves_mail for child in self._children.values()):
            if not (self._last or any(each.kind.lingers and each.draining_until for each in self._children.values())):
                self._last = True
                self._start_what_lingers()  # what the workers left behind has to be taken
            # Until then its successor waits for the one that still drains.
            self._drain([child for child in self._children.values() if self._last or not child.kind.lingers])
        if self._stopping and not (self._children and self._served):
            return
        self._keep_children()
        self._look_at_workers()
        readers = [wake, *(child.readiness for child in self._children.values() if child.readiness >= 0)]
        readable, _, _ = select.select(readers, [], [], self._patience())
        if wake in readable:
            os.read(wake, 512)
        for child in self._children.values():
            if child.readiness in readable:
                self._on_ready(child)
        while self._noted:
            number = self._noted.pop(0)
            if number not in self._noted or number in _STOPS:  # repeated signals of one kind count once
                self._on_signal(number)
        for child in self._children.values():
            if child.draining_until and time.monotonic() >= child.draining_until:
                child.kill()

    def _wanted(self, kind: Kind) -> bool:
        """Whether children of a kind that are missing are to be started."""
        return not self._stopping or (kind.lingers and not self._last)

    def _look_at_workers(self) -> None:
        """Publish how many workers serve, and replace those that hang."""
        serving = [child for child in self._children.values() if child.serves]
        self._meter.publish(len(serving))
        for child in (hanging := self._pulse.hanging(serving, time.monotonic())):
            self.log.error(f"{child.kind.name} {child.pid} hangs: no sign of life for {HANGS:g} s; killing it")
            child.kill()
        if len(serving) > len(hanging) or not self._served:
            self.manager.alive()
        if not self._stopping:
            wanted = sum(kind.count for kind in self._kinds if kind.serves_mail)
            self.manager.status(f"{len(serving)} of {wanted} workers serve on {self.listener.endpoint}")

    def _patience(self) -> float | None:
        """How long the loop may sleep, in seconds; None until something happens."""
        times = [child.draining_until for child in self._children.values() if child.draining_until]
        times += [self._due(kind) for kind in self._kinds if self._wanted(kind) and self._missing(kind)]
        if not self._stopping and self._served:
            times.append(time.monotonic() + LOOK)
        if not self.log.flush():
            times.append(time.monotonic() + _LOG_SECONDS)
        return max(0.0, min(times) - time.monotonic()) if times else None

    def _on_signal(self, number: int) -> None:
        match number:
            case signal.SIGCHLD:
                pass  # it has ended the sleep
            case signal.SIGHUP:
                self._on_reload()
            case _ if self._stopping:
                self.log.warning("second signal to end: closing all sessions")
                self._kill_all()
            case _:
                self._on_stop()

    def _on_stop(self) -> None:
        """Drain and end. Close our own descriptor first, so that MTAs are refused at once and do not wait.

        If the socket is lent, the next daemon serves on it as soon as we have ended, so the workers drain without us.
        """
        self._start_what_lingers()
        self._stopping = True
        self.manager.stopping()
        os.close(self.listener.descriptor)
        serving = [child for child in self._children.values() if child.kind.serves_mail]
        if not self.listener.lent:
            self.log.info("ending: no new sessions, waiting for open ones")
            self._drain(serving)
            return
        self.log.info("ending: the service manager keeps the socket, and the workers end with their sessions")
        self._last = True
        staying = [child for child in self._children.values() if child.kind.serves_mail or child.kind.lingers]
        self._drain(staying, replaced=True)
        for child in staying:
            child.close()
            del self._children[child.pid]

    def _start_what_lingers(self) -> None:
        """Start helpers that are missing, wait or not, and whether or not a predecessor still drains: it does not take
        what workers send it from here on."""
        for kind in self._kinds:
            if kind.lingers and not any(child.kind is kind for child in self._children.values()):
                with contextlib.suppress(OSError):  # no process left: nothing can be done about it
                    self._spawn(kind)

    def _on_reload(self) -> None:
        if not self._stopping:
            self.manager.reloading()
            try:
                self._reload()
            finally:
                self.manager.ready()

    def _reload(self) -> None:
        try:
            configuration, log = self.reload()
            new = kinds.kinds(configuration, self.listener, self._channel, log)
        except Exception as error:  # a bug and a lack of memory included: what serves goes on
            fault = _why(error)
            self._meter.reloaded(fault)
            self.log.error(f"not reloaded, the old configuration stays: {fault}")
            return
        if configuration.milter.socket != self.configuration.milter.socket:
            self.log.warning("milter.socket has changed: this needs a restart, the old socket stays")
        old = [child for child in self._children.values() if not child.draining_until]
        wanted = [kind for kind in new if kind.serves_mail for _ in range(kind.count)]
        fresh: list[Child] = []
        try:
            for kind in wanted:
                fresh.append(self._spawn(kind))
            self._await(fresh)
        except (OSError, MemoryError) as error:
            fault = f"cannot start a worker: {_why(error)}"
        else:
            fault = "" if all(child.serving for child in fresh) else "a worker with the new configuration cannot serve"
        if fault:
            self._drain(fresh, replaced=True)
            self._meter.reloaded(fault)
            self.log.error(f"not reloaded, the old configuration stays: {fault}")
            return
        self.log.replace_by(log)
        self.configuration, self.log, self._kinds = configuration, log, new
        self._held.keep(new)
        for child in old:
            child.drain(_GRACE_SECONDS, replaced=child.kind.serves_mail)
        self._meter.reloaded("", log)
        self.log.info("reloaded")

    def _await(self, fresh: list[Child]) -> None:
        """Wait until new workers serve, have died or take too long, so that there is no gap in service."""
        deadline = time.monotonic() + _START_SECONDS
        while waiting := [child for child in fresh if child.readiness >= 0]:
            ends = [child.readiness for child in waiting]
            readable, _, _ = select.select(ends, [], [], max(0.0, deadline - time.monotonic()))
            if not readable:
                return
            for child in waiting:
                if child.readiness in readable:
                    self._on_ready(child)

    def _missing(self, kind: Kind) -> int:
        """How many of a kind are to be started. A helper starts only after its predecessor has ended."""
        namesakes = [child for child in self._children.values() if child.kind.name == kind.name]
        if not kind.serves_mail and any(child.kind is not kind for child in namesakes):
            return 0
        return kind.count - sum(not child.draining_until for child in namesakes)

    def _due(self, kind: Kind) -> float:
        """The earliest start of the next of a kind. Mail does not depend on helpers."""
        none_serves = kind.serves_mail and not any(child.serves for child in self._children.values())
        return self._back_off[kind.name].until(none_serves=none_serves)

    def _keep_children(self) -> None:
        """Start missing children, except during a wait after a failure."""
        for kind in self._kinds:
            if not self._wanted(kind) or time.monotonic() < self._due(kind):
                continue
            try:
                for _ in range(self._missing(kind)):
                    self._spawn(kind)
            except OSError as error:
                self._back_off[kind.name].on_failure(0.0, waiting=False)
                which = f"{'a' if kind.serves_mail else 'the'} {kind.name}"
                self.log.error(f"cannot start {which}: {error.strerror}; trying again {self._wait(kind)}")

    def _wait(self, kind: Kind) -> str:
        """The wait for the next of a kind, in words."""
        seconds = self._due(kind) - time.monotonic()
        return f"in {seconds:.1f} s" if seconds > 0 else "at once"

    def _spawn(self, kind: Kind) -> Child:
        """Start one child.

        :raises OSError: no process or descriptor left, or a socket cannot be opened.
        """
        sockets = self._held.opened(kind)
        page = self._meter.pages.take()
        taken = {child.slot for child in self._children.values() if child.kind is kind and not child.draining_until}
        slot = next(number for number in range(kind.count) if number not in taken)
        try:
            pid, (control, control_end, readiness, readiness_end) = fork()
        except OSError:
            self._meter.pages.release(page)
            raise
        if pid == 0:
            tether = Tether(control, readiness_end, slot, page, self._meter.pages, sockets)
            self._become(kind, tether, (control_end, readiness))
        os.close(control)
        os.close(readiness_end)
        child = self._children[pid] = Child(kind, pid, slot, control_end, readiness, page)
        self.log.debug(f"{kind.name} {pid} started")
        return child

    def _become(self, kind: Kind, tether: Tether, ours: tuple[int, int]) -> None:
        """The child's side of the fork; does not return."""
        code = os.EX_SOFTWARE
        try:
            signal.set_wakeup_fd(-1)
            for number in _SIGNALS:
                signal.signal(number, signal.SIG_DFL)
            os.setpgid(0, 0)  # Ctrl-C at a terminal is for the supervisor
            # If a sibling's pipe stayed open here, that sibling would not see its end-of-file.
            for child in self._children.values():
                child.close()
            for end in ours:
                os.close(end)
            if not kind.serves_mail:  # if it stayed open, sessions would wait here in vain
                if not self._stopping:  # else it is closed, and another descriptor may have its number
                    os.close(self.listener.descriptor)
                if not kind.lingers:
                    self._channel.close()
            self._held.leave(kind)
            code = kind.run(tether)
        except Exception as error:  # the child must not continue as a second supervisor
            self.log.error(f"{kind.name} cannot serve: {error!r}")
            self.log.flush()
        finally:
            os._exit(code)

    def _on_ready(self, child: Child) -> None:
        child.read_readiness()
        if child.serving and child.kind.serves_mail and not self._served:
            self._served = True
            self.manager.ready()
            self.log.info(f"serving on {self.listener.endpoint} with {counted(child.kind.count, child.kind.name)}")

    def _reap(self) -> None:
        """Collect all dead children before handling any: the wait depends on whether one is left."""
        dead: list[tuple[Child, int]] = []
        with contextlib.suppress(ChildProcessError):  # no children
            while (found := os.waitpid(-1, os.WNOHANG))[0]:
                if child := self._children.pop(found[0], None):
                    self._meter.pages.release(child.page)
                    dead.append((child, os.waitstatus_to_exitcode(found[1])))
        for child, code in dead:
            self._on_death(child, code)

    def _on_death(self, child: Child, code: int) -> None:
        kind = child.kind
        if child.readiness >= 0:
            self._on_ready(child)
        child.close()
        if child.draining_until:
            self.log.debug(f"{kind.name} {child.pid} drained")
            return
        self._stopping |= kind.serves_mail and not self._served  # it never worked: the operator should see this at once
        how = f"exit code {code}" if code >= 0 else f"signal {-code}"
        line = f"{kind.name} {child.pid} died ({how})"
        if not self._wanted(kind):
            self.log.error(line)
            return
        now = time.monotonic()
        self._meter.died(kind.name)
        self._back_off[kind.name].on_failure(now - child.born, waiting=now < self._due(kind))
        self.log.error(f"{line}; starting another {self._wait(kind)}")

    def _drain(self, children: list[Child], *, replaced: bool = False) -> None:
        for child in children:
            child.drain(_GRACE_SECONDS, replaced=replaced)

    def _kill_all(self) -> None:
        for child in self._children.values():
            child.kill()


def _why(error: Exception) -> str:
    """An error in words; one that nobody has foreseen as Python shows it."""
    words = files.fault(error) if isinstance(error, (ConfigError, ValueError, OSError)) else repr(error)
    return "no memory is left" if isinstance(error, MemoryError) else words
