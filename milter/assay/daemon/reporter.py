# SPDX-License-Identifier: GPL-3.0-or-later
"""The child that sends DMARC reports. Of several hosts on one database, one sends at a time."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from assay import files
from assay.config import Configuration, make_resolver
from assay.config.build import public_suffix
from assay.config.correspondence import reports_redactor, reports_signing, reports_suppressed
from assay.config.database import open_store, read_password
from assay.daemon.child import Kind, Tether
from assay.daemon.meter import LogMeter
from assay.keys import Signing
from assay.log import Log
from assay.metrics import Page
from assay.metrics.page import name_of
from assay.policy.addresses import Entries
from assay.protocol.report import Redactor
from assay.resolver import Resolver
from assay.store.feeding import UnavailableError

if TYPE_CHECKING:  # the libraries for it are loaded in the process of the reporter only
    from assay.reports.aggregate_dispatch import AggregateDispatch
    from assay.reports.failure_dispatch import FailureDispatch
    from assay.reports.figures import ReportFigures
    from assay.reports.relay import Relay
    from assay.store.database import Database
    from assay.store.leadership import Leadership
    from assay.store.outbox import ReportKind

_TURN_SECONDS = 20.0  # between two looks whether something is due
_REMIND_SECONDS = 600.0
_DIRECTORY_MODE = 0o750


def kind(configuration: Configuration, log: Log) -> tuple[Kind, ...]:
    """The reporter, if the configuration asks for one.

    :raises ValueError: a key or file of it cannot be used.
    """
    if not configuration.reports.enabled:
        return ()
    signing = reports_signing(configuration)
    listed = reports_suppressed(configuration.reports.suppress)
    redactor = reports_redactor(configuration.reports.failure)
    return (Kind("reporter", lambda tether: run(tether, configuration, signing, listed, redactor, log)),)


def run(
    tether: Tether,
    configuration: Configuration,
    signing: Signing,
    listed: Entries,
    redactor: Redactor | None,
    log: Log,
) -> int:
    """Send reports until the order to drain. Call it in a new child process.

    :returns: the exit code.
    """
    ending = threading.Event()
    log_meter = LogMeter(tether.page, "reporter", log)

    with make_resolver(configuration, log.warning) as resolver:

        def wait() -> None:
            tether.wait(log_meter.publish)
            ending.set()
            resolver.close()  # no report waits for the DNS any more

        threading.Thread(target=wait, name="control", daemon=True).start()
        tether.ready()
        meter = ReportMeter(tether.page)
        turns = ReportTurns(configuration, signing, listed, resolver, log, ending.is_set, meter, redactor)
        while not ending.is_set():
            turns.turn(int(time.time()))
            ending.wait(_TURN_SECONDS)
        turns.close()
    return os.EX_OK


class ReportMeter:
    """Counts what a reporter does."""

    def __init__(self, page: Page) -> None:
        from assay.reports.figures import Tried, Withheld
        from assay.store.outbox import ReportKind

        self._page = page
        page.add("reports_planned", 0)  # a rate does not see the first event if nothing was there before
        for kind in ReportKind:
            for reason in Withheld:
                page.add(name_of("reports_withheld", kind, reason), 0)
            for outcome in Tried:
                page.add(name_of("reports_tried", kind, outcome), 0)

    def count(self, kind: ReportKind, figures: ReportFigures) -> None:
        """Take what was counted of a kind of report."""
        self._page.add("reports_planned", figures.planned)
        for reason, count in figures.withheld.items():
            self._page.add(name_of("reports_withheld", kind, reason), count)
        for outcome, count in figures.tried.items():
            self._page.add(name_of("reports_tried", kind, outcome), count)
        figures.clear()

    def leads(self, now: int, waiting: int, oldest: int) -> None:
        """This is the host that sends.

        :param waiting: how many reports wait, of which the oldest was planned at a time.
        """
        self._set(now, 1, waiting, max(0, now - oldest) if waiting else 0)

    def rests(self, now: int) -> None:
        """Another host sends, or none can now."""
        self._set(now, 0, 0, 0)

    def _set(self, now: int, leads: int, waiting: int, seconds: int) -> None:
        self._page.set("reports_looked_seconds", now)
        self._page.set("reports_sender", leads)
        self._page.set("reports_waiting", waiting)
        self._page.set("reports_waiting_seconds", seconds)


class ReportTurns:
    """Looks again and again whether there is something to plan or to send. The database may be away in between."""

    def __init__(
        self,
        configuration: Configuration,
        signing: Signing,
        listed: Entries,
        resolver: Resolver,
        log: Log,
        ending: Callable[[], bool] = lambda: False,
        meter: ReportMeter | None = None,
        redactor: Redactor | None = None,
        *,
        once: bool = False,
    ) -> None:
        """
        :param ending: whether to stop early.
        :param meter: counts what is done; by default, in a page that no other process reads.
        :param redactor: of failure reports; None if there are none.
        :param once: there is a single turn.
        """
        from assay.reports.correspondence import Correspondence

        section = configuration.reports
        directory = Path(configuration.store.directory) / "reports"
        host = configuration.identity.authserv_id or socket.gethostname()

        self._store = configuration.store
        self._directory = directory
        self._log = log
        self._ending = ending
        self._once = once
        self._meter = meter or ReportMeter(Page.private())
        self._remind_at = 0.0
        self._redactor = redactor
        self._open: tuple[AggregateDispatch, FailureDispatch, Leadership, Database] | None = None
        self.leads = False  #: this process is the one that sends
        self._correspondence = Correspondence(
            section,
            signing,
            listed,
            directory,
            host if "://" not in self._store.database else "",
            lambda: resolver.driver(configuration.dns.budget_seconds),
            lambda: _relay(configuration, host),
            public_suffix(configuration.dmarc.organizational_domain),
        )

    def turn(self, now: int) -> int:
        """Plan and send what is due.

        :param now: Unix time in seconds.
        :returns: how many reports were dealt with.
        """
        from assay.store.outbox import ReportKind, waiting_reports

        try:
            aggregates, failures, leadership, database = self._opened()
            self.leads = leadership.held()
            if not self.leads:
                self._meter.rests(now)
                return 0

            # Asked before each report: a process that lost its connection to the database may have a successor.
            def ending() -> bool:
                return self._ending() or not leadership.held()

            try:
                aggregates.plan(now)
                # Failure reports first: they are for now, and a day of aggregate reports takes a while.
                return failures.send_due(now, ending) + aggregates.send_due(now, ending)
            finally:
                self._meter.count(ReportKind.AGGREGATE, aggregates.deliveries.figures)
                self._meter.count(ReportKind.FAILURE, failures.deliveries.figures)
                with database.reading() as connection:
                    self._meter.leads(now, *waiting_reports(connection))
        except (UnavailableError, OSError) as error:
            self.leads = False
            self._meter.rests(now)
            if time.monotonic() >= self._remind_at:
                self._remind_at = time.monotonic() + _REMIND_SECONDS
                why = files.fault(error)
                if self._once:
                    self._log.warning(f"reports: {why}; nothing more was done")
                else:
                    self._log.warning(f"reports: {why}; trying again")
            self.close()
            return 0

    def _opened(self) -> tuple[AggregateDispatch, FailureDispatch, Leadership, Database]:
        from assay.reports.aggregate_dispatch import AggregateDispatch
        from assay.reports.failure_dispatch import FailureDispatch
        from assay.store.leadership import Leadership

        if self._open is None:
            self._make_directory()
            database = open_store(self._store)
            dispatch = AggregateDispatch(database, self._correspondence, self._log.warning)
            failures = FailureDispatch(database, self._correspondence, self._redactor, self._log.warning)
            self._open = dispatch, failures, Leadership(database, Path(self._store.directory)), database
        return self._open

    def _make_directory(self) -> None:
        """Make the directory. If root does so, it gets the owner of the directory above, the daemon's user."""
        if not self._directory.is_dir():
            self._directory.mkdir(mode=_DIRECTORY_MODE)
            above = self._directory.parent.stat()
            if os.geteuid() == 0 and (above.st_uid, above.st_gid) != (0, 0):  # chown(2) may be forbidden
                os.chown(self._directory, above.st_uid, above.st_gid)

    def close(self) -> None:
        """Close the database."""
        if self._open is not None:
            _, _, leadership, database = self._open
            leadership.release()
            database.close()
            self._open = None


def _relay(configuration: Configuration, host: str) -> Relay:
    from assay.reports.relay import Relay

    section = configuration.reports
    name, port, implicit = section.relay_endpoint
    password = read_password(section.relay_password_file)
    return Relay(
        name, port, implicit_tls=implicit, tls=section.relay_tls, user=section.relay_user, password=password, name=host
    )
