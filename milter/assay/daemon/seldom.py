# SPDX-License-Identifier: GPL-3.0-or-later
"""Lines of the log that would be repeated for each message."""

from __future__ import annotations

#: Seconds between two of them: each message from a relay that is not configured well has one.
SELDOM = 60.0


class Seldom:
    """Lets something happen once in `SELDOM` seconds."""

    __slots__ = ("_next",)

    def __init__(self) -> None:
        self._next = float("-inf")

    def due(self, now: float) -> bool:
        """Whether it may happen now.

        :param now: seconds that never go back.
        """
        if now < self._next:
            return False
        self._next = now + SELDOM
        return True
