# SPDX-License-Identifier: GPL-3.0-or-later
"""The child that keeps results: takes rows from the workers, spools them, and writes them to the database and broker.

The main thread only moves rows from the socket to the spool, and each backend has a thread. Nothing here can delay
mail: workers do not wait for this process, and it may die at any time.
"""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from assay.config import Configuration
from assay.config.database import StoreBackend, read_password
from assay.config.store import StoreSection
from assay.daemon.child import Kind, Order, Tether
from assay.daemon.meter import Copies, LogMeter
from assay.daemon.worker import collect_garbage_seldom
from assay.log import Log
from assay.metrics.page import name_of
from assay.model.wording import counted
from assay.store.channel import MAX_LOOK, Receiver, RowChannel
from assay.store.feeding import Backend, Feeder
from assay.store.spool import Spool, SpoolFullError, take

_PAUSE_SECONDS = 0.02  # between two looks under load, so that rows are taken by the dozen
_IDLE_SECONDS = 1.0
_FULL_SECONDS = 0.5  # between attempts while the disk takes nothing
_LAST_SECONDS = 10.0  # for such a disk, when no other process has the rows
_ADOPT_SECONDS = 5.0
_REMIND_SECONDS = 600.0


def kind(configuration: Configuration, channel: RowChannel, log: Log) -> tuple[Kind, ...]:
    """The recorder, if the configuration asks for one."""
    section = configuration.store
    if not section.directory:
        return ()
    return (
        Kind(
            "recorder",
            lambda tether: run(tether, configuration, channel, log),
            drain_seconds=configuration.milter.drain_seconds,
            lingers=True,
        ),
    )


_FIXES = {
    errno.ENOENT: "; create the directory, writable for the daemon's user",
    errno.ENOTDIR: "; write the path of a directory",
    errno.EACCES: "; make the directory writable for the daemon's user",
    errno.EROFS: "; write a directory on a file system that can be written",
}


def run(tether: Tether, configuration: Configuration, channel: RowChannel, log: Log) -> int:
    """Record until the order to drain. Call it in a new child process.

    :returns: the exit code.
    """
    section = configuration.store
    receiver = channel.receiver()
    connects = backends(configuration)
    try:
        spool = take(Path(section.directory) / "spool", section.spool_octets, tuple(connects))
    except OSError as error:
        why = f"{error.strerror}{_FIXES.get(error.errno or 0, '')}"
        log.error(f"store.directory: {section.directory}/spool: {why}; results are lost if this lasts")
        return os.EX_CANTCREAT
    feeders = [Feeder(reader, spool, connects[reader.name], log) for reader in spool.readers]
    for feeder in feeders:
        feeder.start()
    intake = Intake(receiver, spool, log)
    collect_garbage_seldom()  # rows make no cycles either
    publish = _publisher(tether, intake, spool, feeders, log)
    drain = _Drain(tether, publish)
    tether.ready()
    intake.run(drain)
    receiver.close()
    for feeder in feeders:
        feeder.end()
    publish()
    log.flush(1.0)
    return os.EX_OK


def backends(configuration: Configuration) -> Mapping[str, Callable[[], Backend]]:
    """What opens each backend, by name. The libraries are loaded in this process only."""
    section = configuration.store
    found: dict[str, Callable[[], Backend]] = {}
    if section.database:
        found["database"] = lambda: StoreBackend(configuration)
    if section.broker:
        found["broker"] = lambda: _broker(section)
    return found


def _broker(section: StoreSection) -> Backend:
    from assay.store.broker import RowPublisher

    return RowPublisher(section.broker, read_password(section.broker_password_file), section.exchange)


class _Drain:
    """The order to drain, awaited by a thread of its own."""

    def __init__(self, tether: Tether, tick: Callable[[], None]) -> None:
        self.ordered = threading.Event()
        self.alone = False  #: the supervisor ends or has died, and workers have not: rows may still come
        threading.Thread(target=self._wait, args=(tether, tick), name="control", daemon=True).start()

    def _wait(self, tether: Tether, tick: Callable[[], None]) -> None:
        self.alone = tether.wait(tick) is not Order.END
        self.ordered.set()


def _publisher(tether: Tether, intake: Intake, spool: Spool, feeders: Sequence[Feeder], log: Log) -> Callable[[], None]:
    """What counts in the page of this process, once a second."""
    page, copies, log_meter = tether.page, Copies(tether.page), LogMeter(tether.page, "recorder", log)

    def publish() -> None:
        copies.copy(name_of("store_rows", "spooled"), intake.spooled)
        copies.copy(name_of("store_rows", "dropped"), intake.dropped)
        page.set("store_spool_octets", spool.octets)
        waiting = [feeder.oldest for feeder in feeders if feeder.oldest]
        page.set("store_spool_seconds", max(0, int(time.time() - min(waiting))) if waiting else 0)
        for feeder in feeders:
            copies.copy(name_of("store_rows_taken", feeder.name), feeder.taken)
            copies.copy(name_of("store_rows_refused", feeder.name), feeder.refused)
            page.set(name_of("store_up", feeder.name), int(feeder.up))
        log_meter.publish()

    return publish


class Intake:
    """From the socket to the spool."""

    def __init__(self, receiver: Receiver, spool: Spool, log: Log) -> None:
        self.spooled = 0  #: rows
        self.dropped = 0  #: rows for which the spool had no place
        self._receiver = receiver
        self._spool = spool
        self._log = log
        self._fault = ""  # why the disk did not take a row last
        self._remind_at = 0.0
        self._adopt_at = 0.0

    def run(self, drain: _Drain) -> None:
        """Take rows until the order to drain, and then what is left."""
        while True:
            # Before the look: a row that comes after it stays.
            ended = self._receiver.ended
            last = ended or (drain.ordered.is_set() and not drain.alone)
            if not last:
                self._adopt()  # also under load, when rows come without a pause
            if self._take_all():
                time.sleep(_PAUSE_SECONDS)
                continue
            if last:
                break
            self._receiver.wait(_IDLE_SECONDS)
        if ended:
            self._take_last()

    def _take_last(self) -> None:
        """Wait a while for a disk that takes nothing: no other process is left for these rows."""
        deadline = time.monotonic() + _LAST_SECONDS
        while self._receiver.look(1) and time.monotonic() < deadline:
            self._take_all()
        if lost := self._receiver.discard():
            self._log.error(f"store: {counted(lost, 'result')} lost: {self._fault}")

    def _take_all(self) -> int:
        """Take what is there. Returns how many rows that were."""
        taken, most = 0, MAX_LOOK
        while rows := self._receiver.look(most):
            try:
                self._spool.append(*rows)
                self.spooled += len(rows)
            except SpoolFullError:
                if len(rows) > 1:
                    most = 1  # there may be a place for the first of them
                    continue
                self.dropped += 1
                self._remind(f"{self._spool.directory} has reached store.spool_octets; the newest results are dropped")
            except OSError as error:  # the rows stay in the socket, and then with the workers
                self._fault = f"{self._spool.directory}: {error.strerror}"
                self._remind(f"{self._fault}; results wait with the workers")
                time.sleep(_FULL_SECONDS)
                return taken
            self._receiver.take(len(rows))
            taken += len(rows)
        return taken

    def _adopt(self) -> None:
        if time.monotonic() < self._adopt_at:
            return
        self._adopt_at = time.monotonic() + _ADOPT_SECONDS
        try:
            adopted = self._spool.adopt()
        except OSError as error:
            self._remind(f"spools of ended processes: {error.strerror}")
            return
        if adopted:
            self._log.info(f"store: took over {counted(adopted, 'file')} of rows from processes that have ended")

    def _remind(self, line: str) -> None:
        now = time.monotonic()
        if now >= self._remind_at:
            self._remind_at = now + _REMIND_SECONDS
            self._log.error(f"store: {line}")
