# SPDX-License-Identifier: GPL-3.0-or-later
"""The short way to read an address gives what the whole grammar gives."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from assay.protocol.syntax.address import parse_addresses

PIECES = (
    "a",
    "B",
    ".",
    " ",
    "<",
    ">",
    "@",
    '"',
    "=?u?q?x?=",
    "\\",
    ",",
    "-",
    "=",
    "?",
    "[",
    "x.example",
    "J. Q. Public",
)


@given(st.lists(st.sampled_from(PIECES), max_size=8).map("".join))
def test_a_comment_changes_nothing(value: str) -> None:
    # A comment at the end may stand behind any address-list and belongs to no mailbox, but the short way has none.
    assert parse_addresses(value.encode()) == parse_addresses(value.encode() + b"()")
