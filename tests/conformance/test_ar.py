# SPDX-License-Identifier: GPL-3.0-or-later
"""The published Authentication-Results fields, whole, and our word on each disputed one."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

from assay.protocol import authres
from conformance.answer_ar import answer, read
from conformance.cases import Case, load, parameters

DISPUTED = tomllib.loads(Path(__file__).with_name("disputed-ar.toml").read_text())


@pytest.mark.parametrize("case", parameters("ar"))
def test_published_case(case: Case) -> None:
    expect = case["expect"]
    parsed = read(case)
    if not expect["valid"]:
        assert isinstance(parsed, authres.FieldFault)
        return
    assert isinstance(parsed, authres.AuthenticationResults), parsed
    assert parsed.authserv_id == expect["authserv_id"]
    assert parsed.version == expect.get("version", 1)
    expected = expect.get("results", [])
    assert len(parsed.results) == expect.get("count", len(expected))
    if len(expected) == len(parsed.results):
        for one, each in zip(expected, parsed.results, strict=True):
            _check(one, each)
    elif expected:  # a case about the field's last results
        for one, each in zip(expected, parsed.results[-len(expected) :], strict=True):
            _check(one, each)


def _check(expected: dict[str, Any], result: authres.MethodResult) -> None:
    assert (result.method, result.result) == (expected["method"], expected["result"])
    assert expected.get("method_version", 1) == 1  # no other is ever handed out
    assert result.reason == expected.get("reason", result.reason)
    properties = {f"{one.ptype}.{one.name}": one.value for one in result.properties}
    assert properties == expected.get("props", properties)


@pytest.mark.parametrize("case", [pytest.param(case, id=case["id"]) for case in load("ar") if case.get("disputed")])
def test_disputed_case_is_answered_as_we_say(case: Case) -> None:
    assert answer(case)[0] == DISPUTED[case["id"]]["answer"]


def test_every_disputed_case_has_our_word() -> None:
    cases = {case["id"] for case in load("ar") if case.get("disputed")}
    if not cases:
        pytest.skip("no published cases")
    assert set(DISPUTED) == cases
