# SPDX-License-Identifier: GPL-3.0-or-later
"""What a worker counts about its messages and its resolver, into the page that `assay.metrics` reads.

Messages are counted as they end. What the resolver and the log count themselves is copied once a second (`publish`).
"""

from __future__ import annotations

import os
import time

import msgspec

from assay import __version__
from assay.log import Log
from assay.metrics import Histogram, Page, Pages
from assay.metrics.page import name_of
from assay.policy import Stage
from assay.resolver import Resolver
from assay.session import Verdict

MIN_PAGES = 32  # of the daemon's processes, at 210 KB of address space; memory is taken as they are used
SETS_OF_WORKERS = 6  # that count at the same time: one serves, the others drain. Further ones are not counted.
#: Stages at which a refusal ends a message, and not only one recipient.
_ENDS = frozenset((Stage.CONNECT, Stage.HELO, Stage.MAIL))


class Meter:
    """Counts for one worker. Any thread may call it."""

    def __init__(self, page: Page) -> None:
        self._page = page
        self._waits: dict[str, Histogram] = {}  # by stage
        self._message_wait = Histogram(page, "message_wait_seconds")
        self._queries: dict[str, Histogram] = {}  # by server
        self._copies = Copies(page)

    def verdict(self, verdict: Verdict) -> None:
        """Count a verdict, what decided it, and the results of a message that it ends."""
        add = self._page.add
        decision, stage = verdict.decision, verdict.stage
        add(f"verdicts\x1f{stage}\x1f{verdict.action}")
        if decision.by:
            add(f"decisions\x1f{decision.by}\x1f{verdict.action}")
        for watched in decision.watched:
            add(f"dry_run_decisions\x1f{watched.by}\x1f{watched.action}")
        if verdict.signed is not None:
            add(f"outgoing\x1f{'yes' if verdict.signed.signers else 'no'}")
        if verdict.rewritten is not None and verdict.rewritten.sender:
            add(f"forwarded\x1f{'unhelped' if verdict.rewritten.warning else 'rewritten'}")
        for _ in verdict.turned_back:
            add("forwarded\x1fturned_back")
        if verdict.sealed is not None and verdict.sealed.by:
            add("forwarded\x1fsealed")
        if stage is Stage.EOM or (verdict.action.refuses and stage in _ENDS):
            for finding in verdict.findings:
                add(f"results\x1f{finding.key}\x1f{finding.result}")

    def waited(self, stage: str, seconds: float) -> None:
        """Count how long the MTA waited at a stage."""
        waits = self._waits.get(stage)
        if waits is None:
            waits = self._waits[stage] = Histogram(self._page, name_of("wait_seconds", stage))
        waits.observe(seconds)

    def message_waited(self, seconds: float) -> None:
        """Count how long the MTA waited for a message, all stages together."""
        self._message_wait.observe(seconds)

    def exception(self) -> None:
        """Count a bug."""
        self._page.add("exceptions")

    def query(self, server: str, transport: str, outcome: str, seconds: float) -> None:
        """Count a query to a nameserver that has ended."""
        self._page.add(f"dns_queries\x1f{server}\x1f{transport}\x1f{outcome}")
        waits = self._queries.get(server)
        if waits is None:
            waits = self._queries[server] = Histogram(self._page, name_of("dns_query_seconds", server))
        waits.observe(seconds)

    def publish(self, sessions: int, resolver: Resolver) -> None:
        """Copy what is counted elsewhere."""
        statistics = resolver.statistics
        self._page.set("sessions", sessions)
        state = resolver.state
        self._page.set("dns_slow_names", state.slow_domains)
        for server, up in state.nameservers.items():
            self._page.set(name_of("dns_nameserver_up", server), up)
        asked = statistics.misses - statistics.shared
        sources = {
            "local": statistics.local,
            "cache": statistics.hits,
            "shared": statistics.shared,
            "asked": asked,
            "refused": statistics.refused,
            "spent": statistics.spent,
        }
        for source, value in sources.items():
            self._copies.copy(name_of("dns_questions", source), value)
        self._copies.copy("dns_stale", statistics.stale)


class Copies:
    """Counters that are kept elsewhere since the start of a process, and that a page adds up over several processes."""

    def __init__(self, page: Page) -> None:
        self._page = page
        self._last: dict[str, int] = {}

    def copy(self, name: str, value: int) -> None:
        """Add what is new. A value that shrinks for a moment counts when it has grown again."""
        new = value - self._last.get(name, 0)
        if new > 0:
            self._page.add(name, new)
            self._last[name] = value


class Note(msgspec.Struct, frozen=True, array_like=True):
    """What a page says besides numbers: the process, when it wrote this, its last warnings, and its slowest names."""

    kind: str
    pid: int
    time: float
    warnings: tuple[tuple[float, str], ...] = ()
    slow: tuple[tuple[str, float, int], ...] = ()
    fault: str = ""  #: why the last reload failed; of the supervisor only
    source: str = ""  #: the configuration; of the supervisor only


class LogMeter:
    """Copies what a log keeps to a page: the number of lost lines, and the last warnings."""

    def __init__(self, page: Page, kind: str, log: Log) -> None:
        """:param kind: of the process."""
        self._page = page
        self._kind = kind
        self._outlet = log.outlet
        self._copies = Copies(page)

    def publish(self, slow: tuple[tuple[str, float, int], ...] = (), fault: str = "", source: str = "") -> None:
        """Copy it now.

        :param slow: the slowest names: domain, seconds and number of queries.
        :param fault: why the last reload failed.
        :param source: the configuration.
        """
        warnings: tuple[tuple[float, str], ...] = ()
        if self._outlet is not None:
            self._copies.copy("log_lines_lost", self._outlet.lost)
            warnings = tuple(self._outlet.warnings)
        self._page.note(msgspec.json.encode(Note(self._kind, os.getpid(), time.time(), warnings, slow, fault, source)))


class DaemonMeter:
    """What the supervisor counts, and the pages of all processes. Make it before the first fork."""

    def __init__(self, workers: int, log: Log, source: str) -> None:
        """
        :param workers: how many there are; while they drain after reloads, there are several times as many.
        :param source: the configuration.
        """
        self._source = source
        self.pages = Pages(max(MIN_PAGES, SETS_OF_WORKERS * workers))
        self._own = self.pages.take()
        self._log_meter = LogMeter(self._own, "supervisor", log)
        self._fault = ""
        self._own.set(name_of("info", __version__), 1)
        self._own.set("configuration_generation", 1)
        for name in (name_of("deaths", "worker"), name_of("reloads", "done"), name_of("reloads", "failed")):
            self._own.add(name, 0)  # a rate does not see the first event if nothing was there before
        self._own.set("start_time_seconds", int(time.time()))

    def died(self, kind: str) -> None:
        """A process died and is replaced."""
        self._own.add(name_of("deaths", kind))

    def reloaded(self, fault: str, log: Log | None = None) -> None:
        """The configuration was reloaded, or was not.

        :param fault: why not; empty if it was.
        :param log: the log of the new configuration.
        """
        if log is not None:
            self._log_meter = LogMeter(self._own, "supervisor", log)
        if not fault:
            self._own.add("configuration_generation")
        self._fault = fault
        self._log_meter.publish(fault=fault, source=self._source)
        self._own.add(name_of("reloads", "failed" if fault else "done"))  # last: `assay reload` waits for it

    def publish(self, workers: int) -> None:
        """Copy what is known otherwise.

        :param workers: how many serve new connections.
        """
        self._own.set("workers", workers)
        self._log_meter.publish(fault=self._fault, source=self._source)
