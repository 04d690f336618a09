# SPDX-License-Identifier: GPL-3.0-or-later
"""The published DKIM suites."""

from __future__ import annotations

import pytest

from conformance.answer_dkim import answer
from conformance.cases import Case, parameters


@pytest.mark.parametrize("case", parameters("dkim"))
def test_dkim(case: Case) -> None:
    result, reason = answer(case)
    assert result in case["expect"]["result"], reason
