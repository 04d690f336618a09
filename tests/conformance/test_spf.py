# SPDX-License-Identifier: GPL-3.0-or-later
"""The published SPF suites, whole: every case that is not disputed."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from conformance.answer_spf import evaluate
from conformance.cases import Case, parameters


@pytest.mark.parametrize("case", parameters("spf"))
def test_published_case(case: Case) -> None:
    evaluation = evaluate(case, ip_address(case["ip"]))
    expect = case["expect"]
    assert evaluation.result in expect["result"], evaluation.reason
    if expect.get("explanation") is not None:
        # The suites' default stands for "nothing usable came from the sender".
        assert (evaluation.explanation or case["default_explanation"]) == expect["explanation"]
