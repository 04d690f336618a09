# SPDX-License-Identifier: GPL-3.0-or-later
"""IPREV (RFC 8601, 3): which lookups decide, and which failures matter."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

import pytest

from assay.inquiry import Question, RecordType
from assay.protocol import iprev
from zone import Zone

PTR4, PTR6 = "1.2.0.192.in-addr.arpa", "1" + ".0" * 23 + ".8.b.d.0.1.0.0.2.ip6.arpa"
V4, V6 = "192.0.2.1", "2001:db8::1"
OWN, OTHER = ["A", V4], ["A", "192.0.2.9"]

CASES: dict[str, tuple[str, dict[str, Any], str, str, str]] = {
    "name leads back": (V4, {PTR4: [["PTR", "a.example"]], "a.example": [OWN]}, "pass", "a.example", "has the address"),
    "one address of several": (V4, {PTR4: [["PTR", "a.example"]], "a.example": [OTHER, OWN]}, "pass", "a.example", ""),
    "second name leads back": (
        V4,
        {PTR4: [["PTR", "a.example"], ["PTR", "b.example"]], "a.example": [OTHER], "b.example": [OWN]},
        "pass",
        "b.example",
        "",
    ),
    "a pass outweighs a failure": (
        V4,
        {PTR4: [["PTR", "a.example"], ["PTR", "b.example"]], "a.example": [["SERVFAIL", "*"]], "b.example": [OWN]},
        "pass",
        "b.example",
        "",
    ),
    "IPv6 by AAAA": (V6, {PTR6: [["PTR", "a.example"]], "a.example": [["AAAA", V6]]}, "pass", "a.example", ""),
    "IPv4-mapped is IPv4": (
        "::ffff:" + V4,
        {PTR4: [["PTR", "a.example"]], "a.example": [OWN]},
        "pass",
        "a.example",
        "",
    ),
    "delegated by CNAME": (
        V4,
        {PTR4: [["CNAME", "1.0-7.example"]], "1.0-7.example": [["PTR", "a.example"]], "a.example": [OWN]},
        "pass",
        "a.example",
        "",
    ),
    "name leads elsewhere": (
        V4,
        {PTR4: [["PTR", "a.example"]], "a.example": [OTHER]},
        "fail",
        "a.example",
        "a.example, the name of 192.0.2.1, has no A record with that address",
    ),
    "names lead elsewhere": (
        V4,
        {PTR4: [["PTR", "a.example"], ["PTR", "b.example"]], "a.example": [OTHER]},
        "fail",
        "a.example",
        "none of the 2 names",
    ),
    "name does not exist": (V4, {PTR4: [["PTR", "a.example"]]}, "fail", "a.example", ""),
    "name of the other family": (
        V4,
        {PTR4: [["PTR", "a.example"]], "a.example": [["AAAA", V6]]},
        "fail",
        "a.example",
        "",
    ),
    "no PTR record": (V4, {PTR4: [["TXT", "x"]]}, "permerror", "", "192.0.2.1 has no PTR record"),
    "no such name": (V4, {}, "permerror", "", "192.0.2.1 has no PTR record"),
    "the root as name": (V4, {PTR4: [["PTR", "."]]}, "permerror", "", "192.0.2.1 has no PTR record"),
    "PTR lookup fails": (V4, {PTR4: [["SERVFAIL", "*"]]}, "temperror", "", "PTR lookup of 192.0.2.1 failed: SERVFAIL"),
    "forward lookup fails": (
        V4,
        {PTR4: [["PTR", "a.example"]], "a.example": [["SERVFAIL", "A"]]},
        "temperror",
        "a.example",
        "A lookup of a.example failed: SERVFAIL",
    ),
    "a failure outweighs a mismatch": (
        V4,
        {PTR4: [["PTR", "a.example"], ["PTR", "b.example"]], "a.example": [OTHER], "b.example": [["SERVFAIL", "A"]]},
        "temperror",
        "a.example",
        "A lookup of b.example failed: SERVFAIL",
    ),
}


@pytest.mark.parametrize(("address", "rows", "result", "name", "reason"), CASES.values(), ids=CASES)
def test_evaluate(address: str, rows: dict[str, Any], result: str, name: str, reason: str) -> None:
    evaluation = Zone(rows).solve(iprev.evaluate(ip_address(address)))
    assert (evaluation.result.value, evaluation.name) == (result, name)
    assert reason in evaluation.reason
    assert evaluation.reason


def test_a_name_is_confirmed_only_by_its_own_address() -> None:
    names = ["victim.example", "a.example", "b.example", "failing.example"]
    zone = Zone(
        {
            PTR4: [["PTR", name] for name in names],
            "victim.example": [OTHER],
            "a.example": [OWN],
            "b.example": [OTHER, OWN],
            "failing.example": [["SERVFAIL", "*"]],
        }
    )
    evaluation = zone.solve(iprev.evaluate(ip_address(V4)))
    assert evaluation.names == tuple(names)
    assert evaluation.confirmed == ("a.example", "b.example")


def test_forward_lookups_are_one_batch_of_bounded_size() -> None:
    names = [f"{number}.example" for number in range(iprev.MAX_PTR_NAMES + 1)]
    zone = Zone({PTR4: [["PTR", name] for name in [names[0], *names]], names[-1]: [OWN]})
    inquiry = iprev.evaluate(ip_address(V4))
    first = next(inquiry)
    assert first == [Question(PTR4, RecordType.PTR)]
    second = inquiry.send([zone.answer(one) for one in first])
    assert list(second) == [Question(name, RecordType.A) for name in names[: iprev.MAX_PTR_NAMES]]
    with pytest.raises(StopIteration) as end:
        inquiry.send([zone.answer(one) for one in second])
    assert end.value.value.result is iprev.Result.FAIL  # only the name beyond the bound leads back
    assert end.value.value.names == tuple(names[: iprev.MAX_PTR_NAMES])
