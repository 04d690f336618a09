# SPDX-License-Identifier: GPL-3.0-or-later
"""The published IPREV cases."""

from __future__ import annotations

import pytest

from conformance.answer_iprev import evaluate
from conformance.cases import Case, parameters


@pytest.mark.parametrize("case", parameters("iprev"))
def test_case(case: Case) -> None:
    expected = case["expect"]
    evaluation = evaluate(case)
    assert evaluation.result in expected["result"], evaluation.reason
    assert evaluation.reason
    if expected.get("name"):
        assert evaluation.name == expected["name"]
