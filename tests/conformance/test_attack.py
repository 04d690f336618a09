# SPDX-License-Identifier: GPL-3.0-or-later
"""The published attacks, each message through a real daemon: no pass for the victim's domain, ever.

A reader behind us may be sloppier than we are. So it is not enough that no result passes *for* the victim's domain:
no passing result may so much as mention it.
"""

from __future__ import annotations

import pytest

from conformance.answer_whole import Filter
from conformance.cases import Case, parameters


@pytest.mark.parametrize("case", parameters("attack"))
def test_published_case(case: Case, whole_filter: Filter) -> None:
    expect = case["expect"]
    answer = whole_filter.answer(case)
    assert answer.outcome.code == 250
    assert "bug=" not in answer.log
    for one in answer.results:
        if one.result == "pass":
            said = " ".join((one.reason, one.comment, *(each.value for each in one.properties))).lower()
            assert not [domain for domain in expect["no_pass_for"] if domain in said], one
    assert answer.word("dmarc") not in expect.get("dmarc_not", ())
    assert answer.word("dmarc") in expect.get("dmarc", answer.word("dmarc"))
