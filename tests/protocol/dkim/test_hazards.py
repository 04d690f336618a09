# SPDX-License-Identifier: GPL-3.0-or-later
"""What a body shows of changes that an MTA will make, however it is cut into chunks."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assay.protocol.dkim import BodyHazards

LINES = [b"", b"x", b"x" * 997, b"x" * 998, b"x" * 999, b"x" * 3000, b"\xe9"]


def found(octets: bytes, size: int) -> list[str]:
    one = BodyHazards()
    for start in range(0, len(octets), size):
        one.update(octets[start : start + size])
    return [str(hazard) for hazard in one.found]


@given(lines=st.lists(st.sampled_from(LINES), max_size=8), size=st.sampled_from([1, 7, 998, 999, 1000, 1001, 65_535]))
def test_every_cut_finds_the_same(lines: list[bytes], size: int) -> None:
    expected = ["8bit"] * (b"\xe9" in lines) + ["long-line"] * any(len(line) > 998 for line in lines)
    assert found(b"".join(line + b"\r\n" for line in lines), size) == expected


@pytest.mark.parametrize(("octets", "expected"), [(b"x" * 998, []), (b"x" * 999, ["long-line"]), (b"", [])])
def test_a_line_that_is_still_open(octets: bytes, expected: list[str]) -> None:
    assert found(octets, 100) == expected
