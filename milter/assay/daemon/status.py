# SPDX-License-Identifier: GPL-3.0-or-later
"""What ``assay status`` shows: the figures of the last minute and the last hour, and what the processes note."""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Iterator

import msgspec
from msgspec import Struct

from assay import __version__
from assay.daemon.meter import Note
from assay.metrics import Figures, Pages, read
from assay.metrics.page import SEPARATOR

MINUTE, HOUR = 60.0, 3600.0
_FINE_SECONDS = 10.0  # between two snapshots of the last minute
_COARSE_SECONDS = 60.0  # between two of the last hour
#: The families of which snapshots are kept. The others would only take memory.
_KEPT = frozenset(("verdicts", "results", "decisions", "message_wait_seconds", "dns_queries", "dns_questions"))
_MAX_WARNINGS = 10
_MAX_SLOW = 10


class Period(Struct, frozen=True):
    """What happened in some time.

    :ivar seconds: how long it was: less than asked for if the daemon is younger.
    :ivar actions: number of messages by action, refusals before the end of the message included.
    :ivar results: number of messages by method and result.
    :ivar decisions: number of verdicts by key or rule, and action.
    :ivar half, most: the time that half of the messages, and 99 of 100, waited at most, in seconds.
    :ivar queries: number of queries to nameservers by outcome.
    :ivar questions: number of questions by source of the answer.
    """

    seconds: float
    messages: int
    actions: dict[str, int]
    results: dict[str, dict[str, int]]
    decisions: dict[str, dict[str, int]]
    half: float
    most: float
    queries: dict[str, int]
    questions: dict[str, int]


class Process(Struct, frozen=True):
    """A process that counts."""

    kind: str
    pid: int
    sessions: int


class Status(Struct, frozen=True):
    """All of it. Times are seconds since 1970.

    :ivar fault: why the last reload failed; empty if it did not.
    :ivar nameservers: by how many workers each is believed to answer.
    :ivar slowest: domain, seconds and number of queries, of the last minute in which some were slow.
    :ivar warnings: time and line.
    """

    version: str
    now: float
    since: float
    configuration: str
    generation: int
    fault: str
    workers: int
    deaths: int
    sessions: int
    exceptions: int
    log_lines_lost: int
    processes: tuple[Process, ...]
    minute: Period
    hour: Period
    nameservers: dict[str, int]
    slowest: tuple[tuple[str, float, int], ...]
    warnings: tuple[tuple[float, str], ...]


class _Snapshot(Struct, frozen=True, array_like=True):
    time: float
    values: dict[str, int]


_LEFT = msgspec.msgpack.Decoder(tuple[list[_Snapshot], list[_Snapshot]])


class History:
    """Snapshots of the figures of the last hour. They survive the process: the next endpoint goes on with them."""

    def __init__(self, pages: Pages, *, leaves: bool = True) -> None:
        """
        :param leaves: whether it leaves them for the next one, which only the endpoint does.
        """
        self._pages = pages
        self._leaves = leaves
        self._fine: deque[_Snapshot] = deque(maxlen=int(MINUTE / _FINE_SECONDS) + 1)
        self._coarse: deque[_Snapshot] = deque(maxlen=int(HOUR / _COARSE_SECONDS) + 1)
        with contextlib.suppress(msgspec.MsgspecError):
            for snapshots, left in zip((self._fine, self._coarse), _LEFT.decode(pages.archive), strict=True):
                snapshots.extend(left)
        self.tick()

    def tick(self) -> None:
        """Take the snapshots that are due. Call it once a second."""
        now = time.time()
        for snapshots, seconds in ((self._fine, _FINE_SECONDS), (self._coarse, _COARSE_SECONDS)):
            if snapshots and now < snapshots[-1].time:  # the clock was put back: their times say nothing
                snapshots.clear()
            if not snapshots or now - snapshots[-1].time >= seconds:
                snapshots.append(_Snapshot(now, _kept(read(self._pages.all))))
                if snapshots is self._coarse:
                    self.close()

    def close(self) -> None:
        """Leave the snapshots for the next endpoint."""
        if self._leaves:
            self._pages.archive = msgspec.msgpack.encode((tuple(self._fine), tuple(self._coarse)))

    def last(self, seconds: float, now: float, figures: Figures) -> Period:
        """What happened in the last so many seconds, or since the first snapshot."""
        snapshots = self._fine if seconds <= MINUTE else self._coarse
        before = next(
            (snapshot for snapshot in snapshots if now - snapshot.time <= seconds + 1), _Snapshot(now, figures.values)
        )
        return _period(figures.since(Figures(before.values)), now - before.time)


def status(pages: Pages, history: History) -> Status:
    """The status now."""
    now = time.time()
    figures = read(pages.all)
    notes = tuple(_notes(pages))
    supervisor = next((note for note, _ in notes if note.kind == "supervisor"), Note("supervisor", 0, now))
    warnings = sorted({warning for note, _ in notes for warning in note.warnings})
    slowest = sorted((name for note, _ in notes for name in note.slow), key=lambda name: -name[1])
    return Status(
        version=__version__,
        now=now,
        since=float(figures.total("start_time_seconds")),
        configuration=supervisor.source,
        generation=figures.total("configuration_generation"),
        fault=supervisor.fault,
        workers=figures.total("workers"),
        deaths=figures.total("deaths"),
        sessions=figures.total("sessions"),
        exceptions=figures.total("exceptions"),
        log_lines_lost=figures.total("log_lines_lost"),
        processes=tuple(Process(note.kind, note.pid, sessions) for note, sessions in notes),
        minute=history.last(MINUTE, now, figures),
        hour=history.last(HOUR, now, figures),
        nameservers={labels[0]: value for labels, value in figures.of("dns_nameserver_up").items()},
        slowest=tuple(slowest[:_MAX_SLOW]),
        warnings=tuple(warnings[-_MAX_WARNINGS:]),
    )


def _notes(pages: Pages) -> Iterator[tuple[Note, int]]:
    """The notes of the processes, and their sessions."""
    for page in pages.all:
        with contextlib.suppress(msgspec.MsgspecError):
            yield msgspec.json.decode(page.noted, type=Note), dict(page.entries()).get("sessions", 0)


def _kept(figures: Figures) -> dict[str, int]:
    return {name: value for name, value in figures.values.items() if name.partition(SEPARATOR)[0] in _KEPT}


def _period(figures: Figures, seconds: float) -> Period:
    waits = figures.waits("message_wait_seconds").get(())
    return Period(
        seconds=round(seconds, 1),
        messages=figures.total("verdicts", stage="eom"),
        actions=_by(figures, "verdicts", 1),
        results=_by_two(figures, "results"),
        decisions=_by_two(figures, "decisions"),
        half=waits.quantile(0.5) if waits else 0.0,
        most=waits.quantile(0.99) if waits else 0.0,
        queries=_by(figures, "dns_queries", 2),
        questions=_by(figures, "dns_questions", 0),
    )


def _by(figures: Figures, family: str, place: int) -> dict[str, int]:
    """The sums by one label."""
    found: dict[str, int] = {}
    for labels, value in figures.of(family).items():
        if value:
            found[labels[place]] = found.get(labels[place], 0) + value
    return found


def _by_two(figures: Figures, family: str) -> dict[str, dict[str, int]]:
    """The figures of a family with two labels."""
    found: dict[str, dict[str, int]] = {}
    for (first, second), value in figures.of(family).items():
        if value:
            found.setdefault(first, {})[second] = value
    return found
