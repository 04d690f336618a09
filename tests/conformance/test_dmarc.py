# SPDX-License-Identifier: GPL-3.0-or-later
"""The published DMARC cases, all of them by RFC 9989's tree walk, and our answers to the disputed ones."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from conformance.answer_dmarc import answer, evaluate
from conformance.cases import Case, load, parameters

DISPUTED = tomllib.loads(Path(__file__).with_name("disputed-dmarc.toml").read_text())
disputed = {case["id"]: case for case in load("dmarc") if case.get("disputed")}


@pytest.mark.parametrize("case", parameters("dmarc"))
def test_case(case: Case) -> None:
    discovery, evaluation = evaluate(case)
    assert discovery is not None, evaluation.reason
    actual = {
        "result": evaluation.result.value,
        "policy": evaluation.policy and evaluation.policy.value,
        "disposition": evaluation.disposition.value,
        "domain": str(evaluation.policy_domain),
        "org_domain": str(evaluation.organizational_domain),
        "spf_aligned": evaluation.spf_aligned,
        "dkim_aligned": evaluation.dkim_aligned,
        "queries": list(discovery.queries),
    }
    for key, expected in case["expect"].items():
        if key == "result":
            assert actual[key] in expected, evaluation.reason
        else:
            assert actual[key] == expected, f"{key}: {evaluation.reason}"
    assert evaluation.reason


def test_every_disputed_case_has_an_answer() -> None:
    assert set(DISPUTED) == set(disputed) or not disputed


@pytest.mark.parametrize("name", DISPUTED)
def test_disputed_case(name: str) -> None:
    if name not in disputed:
        pytest.skip("the published cases are not here")
    assert answer(disputed[name])[0] == DISPUTED[name]["answer"]
    assert DISPUTED[name]["why"]
