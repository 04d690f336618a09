# SPDX-License-Identifier: GPL-3.0-or-later
"""The page with the answers to the published cases is the one that this code would write."""

from __future__ import annotations

import pytest

from conformance.answer_whole import Filter
from conformance.cases import FOLDER, load
from conformance.page import KINDS, PAGE, reasons, render

DISPUTED = [case["id"] for case in load(*KINDS) if case.get("disputed")]

pytestmark = pytest.mark.skipif(not load(*KINDS), reason=f"no published cases in {FOLDER}")


def test_page_is_current(whole_filter: Filter) -> None:
    assert PAGE.read_text().splitlines() == render(whole_filter).splitlines(), "run contrib/write-conformance.py"


def test_every_reason_is_of_a_disputed_case_and_cites_an_rfc() -> None:
    why = reasons()
    assert sorted(why) == sorted(DISPUTED)
    assert [name for name, reason in why.items() if "RFC " not in reason] == []
