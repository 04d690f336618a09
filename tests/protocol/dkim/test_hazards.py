# SPDX-License-Identifier: GPL-3.0-or-later
"""What a body shows of changes that an MTA will make, however it is cut into chunks."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assay.model.message import Header, HeaderField
from assay.protocol.dkim import BodyHazards, header_hazards

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


@pytest.mark.parametrize(
    ("value", "incomplete"),
    [
        ("joe", True),
        (" Joe <joe>", True),
        ("ann@a.example, joe", True),
        ("joe (at home)", True),
        ("joe (joe@a.example)", True),
        ('"joe@a.example" <joe>', True),
        ('"joe"', True),
        ("friends: ann@a.example, joe;", True),
        ("ann@a.example", False),
        (" Joe, the third <joe@a.example>", True),
        (' "Joe, the third" <joe@a.example>', False),
        (' "Joe \\", x" <joe@a.example>', False),
        ("joe@a.example (Joe, the third)", False),
        ("undisclosed-recipients:;", False),
        ("friends: ann@a.example, joe@a.example;", False),
        ("<@b.example:joe@a.example>", False),
        ("\r\n ann@a.example,\r\n\tjoe@a.example", False),
        (" ", False),
        ('"open', True),
        ("(open", False),
    ],
)
@pytest.mark.parametrize("name", ["From", "sender", "Reply-To", "TO", "Cc"])
def test_addresses_without_a_domain(name: str, value: str, incomplete: bool) -> None:
    header = Header((HeaderField(b"Subject", b"joe"), HeaderField(name.encode(), value.encode())))
    assert [str(hazard) for hazard in header_hazards(header, ["From"])] == ["incomplete-address"] * incomplete


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b" " + b"x" * (997 - len("Subject:")), []),
        (b" " + b"x" * (998 - len("Subject:")), ["long-line"]),
        (b" " + b"x" * 900 + b"\r\n " + b"x" * 997, []),
        (b" " + b"x" * 900 + b"\r\n " + b"x" * 998 + b"\r\n x", ["long-line"]),
    ],
)
def test_a_line_of_a_signed_field(value: bytes, expected: list[str]) -> None:
    """The MTA breaks lines of the header too. If nothing signs the field, that does no harm."""
    header = Header((HeaderField(b"Subject", value), HeaderField(b"X-Spam", b"x" * 2000)))
    assert [str(hazard) for hazard in header_hazards(header, ["From", "subject"])] == expected
    assert not header_hazards(header, ["From"])
