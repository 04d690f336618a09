# SPDX-License-Identifier: GPL-3.0-or-later
"""How many messages with aggregate reports may still be sent today: in all, and to one organizational domain."""

from __future__ import annotations

from collections import Counter

from assay.config.reports import ReportsSection
from assay.policy.addresses import Entries
from assay.store import report_deliveries
from assay.store.outbox import DAY_SECONDS, Connection


class Quota:
    """What is allowed is counted here, so that not each report has to count all that were sent before it."""

    def __init__(self, section: ReportsSection) -> None:
        self._section = section
        self._taken: Counter[str] | None = None

    def forget(self) -> None:
        """Count anew: another process may have sent, or the day be over."""
        self._taken = None

    def take(self, connection: Connection, host: str, organization: str, messages: int, now: int) -> str:
        """Count further messages to a host, or say why a limit forbids them, in one clause; then none is counted.

        :param organization: the organizational domain of the host.
        """
        if self._taken is None:
            self._taken = report_deliveries.taken_by_organization(connection, now - now % DAY_SECONDS)
        if self._taken.total() + messages > self._section.max_a_day:
            return "reports.max_a_day is reached"
        large = Entries.parse(self._section.large_destinations).hold(host)
        if not large and self._taken[organization] + messages > self._section.max_per_destination:
            return f"reports.max_per_destination is reached for {organization}"
        self._taken[organization] += messages
        return ""
