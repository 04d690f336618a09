# SPDX-License-Identifier: GPL-3.0-or-later
"""Looks up the records of our domains in the background. A page shows what is known, and waits a moment at most."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from msgspec import Struct

from assay.inquiry import Driver
from assay.keyring import Directory, KeyringError
from assay.log import Log
from assay.model.name import Domain
from assay.web.records import Checked, OurKey, checks

FRESH_SECONDS = 300.0  # our choice: a corrected record is seen soon, and resolvers keep it longer anyway
MAX_REPORTS = 1000  # domains whose records are kept
_AT_A_TIME = 4  # domains


class DomainReport(Struct, frozen=True):
    """The records of a domain.

    :ivar at: when they were looked up, in Unix seconds.
    """

    domain: str
    at: float
    checked: tuple[Checked, ...]


class DomainLookups:
    """What is known of domains."""

    def __init__(
        self,
        new_driver: Callable[[], Driver],
        host: str,
        keys_of: Callable[[str], Sequence[OurKey]],
        log: Log,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """
        :param new_driver: answers the questions about one domain.
        :param host: the name of this host.
        :param keys_of: the keys of a domain.
        """
        self._new_driver = new_driver
        self._host = host
        self._keys_of = keys_of
        self._log = log
        self._clock = clock
        self._pool = ThreadPoolExecutor(_AT_A_TIME, "lookup")
        self._reports: dict[str, DomainReport] = {}
        self._under_way: dict[str, threading.Event] = {}
        self._lock = threading.Lock()

    def reports(self, domains: Sequence[str], patience: float) -> dict[str, DomainReport]:
        """What is known of domains, after a look that takes no longer than the patience in seconds.

        What is old is looked up again, and stays until that has ended.
        """
        deadline = time.monotonic() + patience
        for ended in [self._look(domain) for domain in domains]:
            if ended is not None:
                ended.wait(max(0.0, deadline - time.monotonic()))
        with self._lock:
            return {domain: self._reports[domain] for domain in domains if domain in self._reports}

    def close(self) -> None:
        """Start no further look."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _look(self, domain: str) -> threading.Event | None:
        """Have a domain looked up if that is due; what tells the end, None if nothing is due."""
        with self._lock:
            report = self._reports.get(domain)
            # One of the future is from before the clock was put back.
            if report is not None and 0 <= self._clock() - report.at < FRESH_SECONDS:
                return None
            if domain not in self._under_way:
                self._under_way[domain] = threading.Event()
                self._pool.submit(self._run, domain)
            return self._under_way[domain]

    def _run(self, domain: str) -> None:
        try:
            report = self._ask(domain)
            with self._lock:
                self._reports.pop(domain, None)
                self._reports[domain] = report
                if len(self._reports) > MAX_REPORTS:
                    del self._reports[next(iter(self._reports))]
        except Exception as error:  # no caller asks the pool for it, and the page says "being looked up"
            self._log.error(f"page: the records of {domain} cannot be looked up: {error!r}")
        finally:
            with self._lock:
                self._under_way.pop(domain).set()

    def _ask(self, domain: str) -> DomainReport:
        now = self._clock()
        driver = self._new_driver()
        pending = [driver.start(check) for check in checks(Domain(domain), self._keys_of(domain), self._host, int(now))]
        return DomainReport(domain, now, tuple(checked for each in pending for checked in each.result()))


def keys_in(directory: Directory, listed: Sequence[OurKey]) -> tuple[OurKey, ...]:
    """The keys of a domain: those of its ring with their states, and those that only the configuration names.

    :param directory: of the ring, which may not exist or be readable.
    :param listed: what the configuration names.
    """
    try:
        ring = directory.load()
    except KeyringError:
        return tuple(listed)
    below = {key.selector for key in listed if key.below}
    known = tuple(
        OurKey(ring.domain, key.selector, key.record, key.state, key.selector in below)
        for key in ring.keys
        if not key.gone
    )
    return (*known, *(key for key in listed if ring.find(key.selector) is None))
