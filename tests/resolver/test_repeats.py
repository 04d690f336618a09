# SPDX-License-Identifier: GPL-3.0-or-later
"""Lookups that pause before they are sent again are bounded."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from assay.resolver import repeats
from assay.resolver.repeats import Repeats
from assay.resolver.transport import Cause


def test_lookups_beyond_the_room_fail_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repeats, "ROOM", 2)
    pausing: list[Callable[[], None]] = []
    flight: Any = SimpleNamespace(faults={"a server": Cause.FAILURE}, repeats=0)
    health: Any = SimpleNamespace(fail_briefly=True)
    failures: Any = None
    again = Repeats(health, failures, lambda: 0.0, lambda _, end: pausing.append(end))
    assert [again.wait(flight, lambda _: None) for _ in range(3)] == [True, True, False]
    pausing[0]()
    assert again.wait(flight, lambda _: None)
