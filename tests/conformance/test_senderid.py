# SPDX-License-Identifier: GPL-3.0-or-later
"""The published Sender ID cases. No public suite looks at the PRA algorithm."""

from __future__ import annotations

import pytest

from conformance.answer_spf import answer
from conformance.cases import Case, parameters


@pytest.mark.parametrize("case", parameters("senderid"))
def test_published_case(case: Case) -> None:
    result, reason = answer(case)
    assert result in case["expect"]["result"], reason
