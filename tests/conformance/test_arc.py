# SPDX-License-Identifier: GPL-3.0-or-later
"""The published ARC validation suites, and our answers to the disputed cases."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from conformance.answer_arc import answer
from conformance.cases import Case, load, parameters

DISPUTED = tomllib.loads(Path(__file__).with_name("disputed-arc.toml").read_text())
disputed = {case["id"]: case for case in load("arc") if case.get("disputed")}


@pytest.mark.parametrize("case", parameters("arc"))
def test_arc(case: Case) -> None:
    result, reason = answer(case)
    assert result in case["expect"]["result"], reason


def test_every_disputed_case_has_an_answer() -> None:
    assert not disputed or disputed.keys() == DISPUTED.keys()


@pytest.mark.parametrize("case", [pytest.param(case, id=name) for name, case in disputed.items()])
def test_disputed(case: Case) -> None:
    result, reason = answer(case)
    assert result == DISPUTED[case["id"]]["answer"], reason
