# SPDX-License-Identifier: GPL-3.0-or-later
"""Which workers hang: each replaces the note of its page once a second, as long as its threads can run.

A worker that hangs still has the listening socket and takes connections that nobody answers.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from assay.daemon.child import Child

#: Seconds without a new note after which a worker hangs. No Python code of ours runs for a second without a switch; a
#: machine that is out of memory may stop a process for longer.
HANGS = 60.0
#: Seconds between two looks.
LOOK = 5.0


@dataclass(slots=True)
class Pulse:
    """What the supervisor has seen, by process id: the number of the last note, and when it was new."""

    _seen: dict[int, tuple[int, float]] = field(default_factory=dict)
    _looked: float = 0.0

    def hanging(self, children: Collection[Child], now: float) -> list[Child]:
        """The serving workers that have written no note for `HANGS` seconds while we looked.

        :param now: on the monotonic clock.
        """
        paused = now - self._looked > 2 * LOOK  # we were stopped ourselves, and so perhaps were they
        self._looked = now
        seen, self._seen = self._seen, {}
        for child in children:
            if child.serves and child.page.taken:  # others write where only they can read
                last = child.page.turns
                known = seen.get(child.pid)
                self._seen[child.pid] = known if known and known[0] == last and not paused else (last, now)
        return [child for child in children if child.pid in self._seen and now - self._seen[child.pid][1] >= HANGS]
