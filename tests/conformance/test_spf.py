# SPDX-License-Identifier: GPL-3.0-or-later
"""The published SPF suites, whole: every case that is not disputed."""

from __future__ import annotations

import re
import tomllib
from ipaddress import ip_address
from pathlib import Path

import pytest

from assay.protocol import spf
from conformance.answer_spf import answer, evaluate
from conformance.cases import Case, load, parameters


@pytest.mark.parametrize("case", parameters("spf"))
def test_published_case(case: Case) -> None:
    evaluation = evaluate(case, ip_address(case["ip"]))
    expect = case["expect"]
    assert evaluation.result in expect["result"], evaluation.reason
    if expect.get("explanation") is not None:
        # The suites' default stands for "nothing usable came from the sender".
        assert (evaluation.explanation or case["default_explanation"]) == expect["explanation"]


PAIR = re.compile(r'([a-z-]+)=([^";]+|"(?:[^"\\]|\\.)*")')


@pytest.mark.parametrize(
    "case", [case for case in load("spf") if "received_spf" in case["expect"]], ids=lambda c: c["id"]
)
def test_published_trace_field(case: Case) -> None:
    """The same result word and values; the comment and the words for a problem are each implementation's own."""
    address = ip_address(case["ip"])
    value = spf.render(
        evaluate(case, address),
        client_address=address,
        helo=case["helo"],
        envelope_from=case["mailfrom"],
        receiver=case["expect"]["receiver"],
    )
    theirs = case["expect"]["received_spf"]
    assert value.partition(" ")[0] == theirs.partition(" ")[0].lower()
    wanted, found = dict(PAIR.findall(theirs)), dict(PAIR.findall(value))
    for pairs in (wanted, found):
        pairs.pop("problem", None)
    assert found == wanted


DISPUTED = Path(__file__).with_name("disputed-spf.toml")


def test_every_disputed_case_has_the_answer_we_wrote_down() -> None:
    cases = {case["id"]: case for case in load("spf", "senderid") if case.get("disputed")}
    if not cases:
        pytest.skip("no published cases")
    written = tomllib.loads(DISPUTED.read_text())
    assert {key: answer(case)[0] for key, case in cases.items()} == {
        key: entry["answer"] for key, entry in written.items()
    }
    assert all("RFC " in entry["why"] for entry in written.values())
