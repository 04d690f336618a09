# SPDX-License-Identifier: GPL-3.0-or-later
"""The table in docs/reliability.md has a row for each scenario, in the form that contrib/run-faults.py writes."""

from __future__ import annotations

import re

from faults.account import NEVER, is_forged, outcome
from faults.page import CELL, HEAD, PAGE, replaced, table
from faults.scenarios import SCENARIOS

AR = b"Authentication-Results: mx.example.org; dmarc=%s header.from=%s\n\n"


def test_it_is_in_the_generated_form() -> None:
    lines = table(PAGE.read_text())
    assert lines[:2] == HEAD
    assert [line.split(" | ")[0] for line in lines[2:]] == [f"| {one.text}" for one in SCENARIOS.values()]
    for line in lines[2:]:
        _, *cells = line.strip("| ").split(" | ")
        assert len(cells) == HEAD[0].count("|") - 2
        assert all(CELL.fullmatch(cell) for cell in cells), line
        assert not any(re.search(rf"\b{name}\b", line) for name in NEVER), line


def test_it_is_replaced_and_nothing_else() -> None:
    page = PAGE.read_text()
    assert replaced(page, table(page)) == page
    assert table(replaced(page, ["x"])) == ["x"]


def test_each_outcome_is_recognized() -> None:
    good = AR % (b"pass", b"d1.example")
    assert is_forged(5)
    assert [
        outcome(1, 250, [good]),
        outcome(5, 550, []),
        outcome(1, 451, []),
        outcome(5, 0, []),
        outcome(1, 250, [b"Subject: x\n\n"]),
        outcome(5, 250, [AR % (b"fail", b"strict.example")]),
        outcome(1, 250, []),
        outcome(1, 250, [good, good]),
        outcome(2, 250, [good]),
        outcome(1, 250, [AR % (b"fail", b"d1.example")]),
        outcome(1, 550, []),
    ] == [
        *("right", "refused", "deferred", "deferred", "unstamped", "let in", "lost", "doubled"),
        *("mis-stamped", "mis-stamped", "wrongly refused"),
    ]
