# SPDX-License-Identifier: GPL-3.0-or-later
"""Lookups that are sent again although every nameserver has answered: SERVFAIL, REFUSED, or that it does not recurse.

A resolver often answers so only for a moment, as while it starts or its own upstream is away. So a name that has not
failed before is asked for twice more. While the servers fail whatever they are asked, it is their fault and not the
name's, and the pauses go on for as long as a restart takes. A message waits no longer than its budget.

A pausing lookup holds no place, and each of its queries needs one of its asker's share. So names that always fail cost
their own messages the pauses, once, and others nothing.
"""

from __future__ import annotations

from collections.abc import Callable

from assay.resolver.failures import Failures
from assay.resolver.flight import Flight
from assay.resolver.health import Health
from assay.resolver.transport import Cause

#: Seconds of the first pause. Each is twice as long as the one before, up to `MAX_PAUSE`.
FIRST_PAUSE = 0.25
#: Seconds from a repair to the next try, at most.
MAX_PAUSE = 1.0
#: Tries besides the first while the servers answer for other names: after 0.25 and 0.75 s.
TIMES = 2
#: Lookups that pause at a time, some 10 MiB. Further ones fail at once.
ROOM = 10_000


class Repeats:
    """The lookups that pause."""

    def __init__(
        self,
        health: Health,
        failures: Failures,
        clock: Callable[[], float],
        later: Callable[[float, Callable[[], None]], object],
    ) -> None:
        """
        :param later: calls a function after so many seconds.
        """
        self._health = health
        self._failures = failures
        self._clock = clock
        self._later = later
        self._pausing = 0

    def wait(self, flight: Flight, then: Callable[[Flight], None]) -> bool:
        """Call `then` with this flight after a pause.

        :returns: False if it is not worth another try.
        """
        if Cause.FAILURE not in flight.faults.values() or self._pausing >= ROOM or not self._may_succeed(flight):
            return False

        def end() -> None:
            self._pausing -= 1
            then(flight)

        self._pausing += 1
        self._later(min(FIRST_PAUSE * 2.0**flight.repeats, MAX_PAUSE), end)
        flight.repeats += 1
        return True

    def _may_succeed(self, flight: Flight) -> bool:
        if self._health.fail_briefly:
            return True
        return flight.repeats < TIMES and not self._failures.has(flight.key, self._clock())
