# SPDX-License-Identifier: GPL-3.0-or-later
"""The table of bounds in docs/reliability.md: each name exists, and has the value that the table says."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

from assay.config import Configuration

PAGE = Path(__file__).parents[1] / "docs" / "reliability.md"
SECTION = PAGE.read_text().partition("## What is bounded, and where")[2]
ROWS = [line.strip("| ").split(" | ") for line in SECTION.splitlines() if line.startswith("| ")][1:]
NAMED = [
    (name, value) for row in ROWS for name, value in re.findall(r"`([a-z][a-z_.]*\.[A-Za-z_]+)` \(([^()]*)\)", row[1])
]


@pytest.mark.parametrize(("name", "value"), NAMED)
def test_a_bound_has_the_documented_value(name: str, value: str) -> None:
    owner, _, last = name.rpartition(".")
    if last.isupper():
        found = getattr(importlib.import_module(f"assay.{owner}"), last)
    else:
        found = Configuration()
        for part in name.split("."):
            found = getattr(found, part)
    assert f"{found:,}" == value if isinstance(found, int) else f"{found:g}" == value


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_each_row_has_a_bound_its_value_and_what_happens_there(row: list[str]) -> None:
    assert len(row) == 3
    assert len(re.findall(r"`[^`]+` \(", row[1])) == row[1].count("`") // 2, "each name has its value"
    assert row[2].endswith(".")


def test_what_a_message_may_consist_of_is_in_the_table() -> None:
    names = {name for name, _ in NAMED}
    modules = ("session.fields", "session.transaction", "session.signatures", "protocol.dkim.key")
    for module in modules:
        bounds = {
            f"{module}.{one}" for one in vars(importlib.import_module(f"assay.{module}")) if one.startswith("MAX_")
        }
        assert bounds - {"protocol.dkim.key.MAX_EXPONENT_BITS"} <= names
