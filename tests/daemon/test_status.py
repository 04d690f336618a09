# SPDX-License-Identifier: GPL-3.0-or-later
"""The figures of the last minute and the last hour, with clocks that are not right."""

from __future__ import annotations

import pytest

from assay.daemon import status as module
from assay.daemon.status import HOUR, MINUTE, History
from assay.metrics import Pages, read
from assay.metrics.page import name_of


def test_a_clock_that_is_put_back_stops_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """As at a start with a wrong clock, until the time is known."""
    now = [10_000.0]
    monkeypatch.setattr(module.time, "time", lambda: now[0])
    pages = Pages(1)
    history = History(pages)

    def pass_by(seconds: int) -> None:
        for _ in range(seconds):
            now[0] += 1
            pages.all[0].add(name_of("dns_questions", "asked"), 1)
            history.tick()

    def counted(seconds: float) -> tuple[float, int]:
        period = history.last(seconds, now[0], read(pages.all))
        return period.seconds, period.questions.get("asked", 0)

    pass_by(200)
    assert counted(HOUR) == (200.0, 200)
    now[0] -= 5000
    history.tick()
    assert counted(HOUR) == counted(MINUTE) == (0.0, 0)
    pass_by(200)
    assert counted(HOUR) == (200.0, 200)
    assert counted(MINUTE) == (60.0, 60)
