# SPDX-License-Identifier: GPL-3.0-or-later
"""The published cases for the whole filter, each message through a real daemon."""

from __future__ import annotations

import pytest

from conformance.answer_whole import Filter
from conformance.cases import Case, parameters


@pytest.mark.parametrize("case", parameters("e2e"))
def test_published_case(case: Case, whole_filter: Filter) -> None:
    answer = whole_filter.answer(case)
    assert answer.outcome.code == 250
    for key, expected in case["expect"].items():
        assert answer.word(key) in ([expected] if isinstance(expected, str) else expected), f"{key}: {answer.log}"
