# SPDX-License-Identifier: GPL-3.0-or-later
"""The published SRS cases."""

from __future__ import annotations

import pytest

from conformance.answer_srs import answer
from conformance.cases import Case, parameters


@pytest.mark.parametrize("case", parameters("srs"))
def test_case(case: Case) -> None:
    expected = case["expect"]
    address, reason = answer(case)
    assert address == expected.get("address", "error"), reason
    assert (address == "error") == bool(expected.get("error"))
