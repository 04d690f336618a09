# SPDX-License-Identifier: GPL-3.0-or-later
"""The published cases for the whole filter, each message through a real daemon, and our answers to disputed ones."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from conformance.answer_whole import Filter
from conformance.cases import Case, load, parameters

DISPUTED = tomllib.loads(Path(__file__).with_name("disputed-e2e.toml").read_text())
disputed = {case["id"]: case for case in load("e2e") if case.get("disputed")}


@pytest.mark.parametrize("case", parameters("e2e"))
def test_published_case(case: Case, whole_filter: Filter) -> None:
    answer = whole_filter.answer(case)
    assert answer.outcome.code == 250
    assert "now" not in case  # the daemon's clock is the real one
    for key, expected in case["expect"].items():
        assert answer.word(key) in ([expected] if isinstance(expected, str) else expected), f"{key}: {answer.log}"


def test_every_disputed_case_has_an_answer() -> None:
    assert not disputed or disputed.keys() == DISPUTED.keys()


@pytest.mark.parametrize("case", [pytest.param(case, id=name) for name, case in disputed.items()])
def test_disputed(case: Case, whole_filter: Filter) -> None:
    words, reason = whole_filter.words(case)
    assert words == DISPUTED[case["id"]]["answer"], reason
