# SPDX-License-Identifier: GPL-3.0-or-later
"""The published ARC signing suite: every tag as expected, the signatures included, in whatever order."""

from __future__ import annotations

import pytest

from conformance.answer_arc import answer_sign
from conformance.cases import Case, parameters


@pytest.mark.parametrize("case", parameters("arc-sign"))
def test_arc_sign(case: Case) -> None:
    fields = answer_sign(case)
    assert {name: tags(field.value.decode()) for name, field in fields.items()} == {
        name: tags(expected) for name, expected in case["expect"].items() if expected
    }


def tags(text: str) -> set[str]:
    """The parts between semicolons, without white space."""
    return {"".join(part.split()) for part in text.split(";")}
