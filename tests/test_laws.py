# SPDX-License-Identifier: GPL-3.0-or-later
"""No input breaks the law of a parser: arbitrary octets, its grammar's words in any order, and damaged good inputs."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import whole  # noqa: F401 - it registers the law of a session
from laws import LAWS, Law

#: Seconds of processor time for one small input: hundreds of times what the slowest takes on a slow machine.
MAX_SECONDS = 2.0


def inputs(law: Law) -> st.SearchStrategy[bytes]:
    """Inputs that get some way into a parser."""
    seed = st.sampled_from([seed for seed in law.seeds if seed])
    cut = st.builds(
        lambda text, start, length: text[start : start + length], seed, st.integers(0, 60), st.integers(0, 60)
    )
    word = st.sampled_from([token.encode() for token in law.tokens] or [b" "])
    piece = st.one_of(st.binary(max_size=6), st.sampled_from([b" ", b"\r\n ", b"\0", "é".encode()]), word, cut)
    pieces = st.lists(piece, max_size=12).map(b"".join)
    damaged = st.builds(
        lambda text, at, new: text[: at % len(text)] + new + text[at % len(text) :], seed, st.integers(0), pieces
    )
    return st.one_of(st.binary(max_size=200), pieces, damaged)


def check(law: Law, data: bytes) -> None:
    begun = time.process_time()
    law.check(data)
    assert time.process_time() - begun < MAX_SECONDS


@pytest.mark.parametrize("law", LAWS.values(), ids=LAWS)
def test_the_law_holds_for_every_seed_and_finding(law: Law) -> None:
    for seed in (b"", *law.seeds):
        check(law, seed)


@pytest.mark.parametrize("law", LAWS.values(), ids=LAWS)
def test_the_law_holds_for_any_input(law: Law) -> None:
    @settings(deadline=None)  # a shared machine may pause anywhere
    @given(inputs(law))
    def holds(data: bytes) -> None:
        check(law, data)

    holds()
