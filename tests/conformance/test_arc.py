# SPDX-License-Identifier: GPL-3.0-or-later
"""The published ARC validation suites."""

from __future__ import annotations

import pytest

from conformance.answer_arc import answer
from conformance.cases import Case, parameters


@pytest.mark.parametrize("case", parameters("arc"))
def test_arc(case: Case) -> None:
    result, reason = answer(case)
    assert result in case["expect"]["result"], reason
