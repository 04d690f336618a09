# SPDX-License-Identifier: GPL-3.0-or-later
"""A result is secure if all answers behind it are, and stale if one of them is, whatever else was asked and in
whatever order the answers came."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from ipaddress import ip_address
from random import Random
from typing import Any

import pytest
from msgspec.structs import replace

from assay.inquiry import Answer, Grounds, Inquiry, Outcome, Question, grounds, joined
from assay.model.name import Domain, ReversePath
from assay.protocol import dmarc, iprev, spf
from zone import Zone

CLIENT = ip_address("192.0.2.1")
PTR = "1.2.0.192.in-addr.arpa"
ROWS: dict[str, list[Any]] = {
    PTR: [["PTR", "mail.example.com"]],
    "mail.example.com": [["A", "192.0.2.1"]],
    "other.example.com": [["A", "192.0.2.7"]],
    "example.com": [
        ["TXT", "v=spf1 include:a.example.com a:other.example.com include:b.example.com -all exp=e.example.com"]
    ],
    "a.example.com": [["TXT", "v=spf1 a:mail.example.com ?all"]],
    "b.example.com": [["TXT", "v=spf1 ?all"]],
    "e.example.com": [["TXT", "no"]],
    "no.example.com": [["TXT", "v=spf1 a:other.example.com exists:gone.example.com -all exp=e.example.com"]],
    "macro.example.com": [["TXT", "v=spf1 exists:%{h}.example.com ?all"]],
    "_dmarc.example.com": [["TXT", "v=DMARC1; p=reject"]],
    "_dmarc.org.example": [["TXT", "v=DMARC1; p=reject; sp=none; np=reject"]],
    "sub.org.example": [["A", "192.0.2.1"]],
}


@dataclass
class Worth(Zone):
    """A zone of which all answers are secure except those about some names."""

    unproven: Collection[str] = ()
    stale: Collection[str] = ()

    def answer(self, question: Question) -> Answer:
        stale = question.name in self.stale
        secure = not stale and question.name not in self.unproven
        return replace(super().answer(question), secure=secure, stale=stale)


def of_spf(domain: str, helo: str = "mail.example.com") -> Callable[[], Inquiry[spf.Evaluation]]:
    request = spf.Request(CLIENT, helo).of_mail_from(ReversePath.parse(f"<a@{domain}>"))
    return lambda: spf.check(request)


def of_dmarc(domain: str, *identifiers: dmarc.Identifier, list_of_suffixes: bool = False) -> Callable[[], Inquiry[Any]]:
    def evaluate() -> Inquiry[dmarc.Evaluation]:
        public_suffix = (lambda _: "example") if list_of_suffixes else None
        discovery = yield from dmarc.discover(Domain(domain), public_suffix=public_suffix)
        return (yield from dmarc.evaluate(discovery, None, identifiers))

    return evaluate


def passed(name: str, rests_on: Grounds = Grounds.SECURE, result: str = "pass") -> dmarc.Identifier:
    return dmarc.Identifier(Domain(name), result, rests_on)


A, B, M, E = "a.example.com", "b.example.com", "mail.example.com", "e.example.com"
WALK = "_dmarc.sub.org.example", "_dmarc.org.example", "_dmarc.example"
#: An evaluation, and the names whose answers it rests on.
CASES: dict[str, tuple[Callable[[], Inquiry[Any]], str, set[str]]] = {
    "IPREV": (lambda: iprev.evaluate(CLIENT), "pass", {PTR, M}),
    "IPREV without a name": (lambda: iprev.evaluate(ip_address("192.0.2.9")), "permerror", {"9.2.0.192.in-addr.arpa"}),
    "SPF up to the term that matches": (of_spf("example.com"), "pass", {"example.com", A, M}),
    "SPF to its end, without the explanation": (
        of_spf("no.example.com"),
        "fail",
        {"no.example.com", "other.example.com", "gone.example.com"},
    ),
    "SPF of none": (of_spf("none.example.com"), "none", {"none.example.com"}),
    "SPF with a name that cannot be asked for": (
        of_spf("macro.example.com", f"{'x' * 64}"),
        "neutral",
        {"macro.example.com"},
    ),
    "DMARC of the domain itself": (of_dmarc("example.com", passed("example.com")), "pass", {"_dmarc.example.com"}),
    "DMARC with another domain": (
        of_dmarc("example.com", passed("x.example.com")),
        "pass",
        {"_dmarc.example.com", "_dmarc.com", "_dmarc.x.example.com"},
    ),
    "DMARC from above": (
        of_dmarc("sub.org.example", passed("sub.org.example")),
        "pass",
        {*WALK, "sub.org.example"},
    ),
    "DMARC by a list": (
        of_dmarc("org.example", passed("org.example"), list_of_suffixes=True),
        "pass",
        {"_dmarc.org.example"},
    ),
    "no DMARC": (of_dmarc("none.example"), "none", {"_dmarc.none.example", "_dmarc.example"}),
    "failed DMARC": (of_dmarc("example.com"), "fail", {"_dmarc.example.com"}),
}


def outcomes(make: Callable[[], Inquiry[Any]], zone: Zone) -> set[tuple[str, Grounds]]:
    found = [zone.solve(make())] + [zone.solve_piecemeal(make(), Random(seed)) for seed in range(30)]  # noqa: S311  # not a secret
    return {(each.result, each.grounds) for each in found}


@pytest.mark.parametrize(("make", "result", "names"), CASES.values(), ids=CASES)
def test_each_answer_counts_that_a_result_rests_on_and_no_other(
    make: Callable[[], Inquiry[Any]], result: str, names: set[str]
) -> None:
    assert outcomes(make, Worth(ROWS)) == {(result, Grounds.SECURE)}
    everything = Worth(ROWS)
    everything.solve(make())
    asked = {question.name for question in everything.asked} | set(ROWS) | {E, B}
    for name in asked:
        used = name in names
        unproven, stale = outcomes(make, Worth(ROWS, unproven={name})), outcomes(make, Worth(ROWS, stale={name}))
        assert unproven == {(result, Grounds.UNPROVEN if used else Grounds.SECURE)}, name
        assert stale == {(result, Grounds.STALE if used else Grounds.SECURE)}, name


def test_a_name_that_may_not_exist_counts() -> None:
    make = of_dmarc("gone.org.example", passed("gone.org.example", result="fail"))
    assert outcomes(make, Worth(ROWS)) == {("fail", Grounds.SECURE)}
    assert outcomes(make, Worth(ROWS, unproven={"gone.org.example"})) == {("fail", Grounds.UNPROVEN)}


SECURE, UNPROVEN, STALE = Grounds.SECURE, Grounds.UNPROVEN, Grounds.STALE
MECHANISMS = {
    "one that passes is enough": ((("pass", UNPROVEN), ("pass", SECURE)), "pass", SECURE),
    "the best one that passes": ((("pass", STALE), ("pass", UNPROVEN)), "pass", UNPROVEN),
    "one that fails does not matter for a pass": ((("fail", STALE), ("pass", SECURE)), "pass", SECURE),
    "none is better": ((("pass", STALE),), "pass", STALE),
    "a fail takes all": ((("fail", SECURE), ("fail", UNPROVEN)), "fail", UNPROVEN),
    "a fail takes all, stale ones too": ((("fail", SECURE), ("fail", STALE)), "fail", STALE),
    "a fail of all": ((("fail", SECURE), ("none", SECURE)), "fail", SECURE),
}


@pytest.mark.parametrize(("identifiers", "result", "expected"), MECHANISMS.values(), ids=MECHANISMS)
def test_dmarc_rests_on_mechanisms(identifiers: Any, result: str, expected: Grounds) -> None:
    make = of_dmarc("example.com", *(passed("example.com", each, word) for word, each in identifiers))
    assert outcomes(make, Worth(ROWS)) == {(result, expected)}


def test_a_best_guess_is_never_secure() -> None:
    request = spf.Request(CLIENT, M, best_guess=b"v=spf1 a:mail.example.com -all")
    request = request.of_mail_from(ReversePath.parse("<a@mail.example.com>"))
    assert outcomes(lambda: spf.check(request), Worth(ROWS)) == {("pass", Grounds.UNPROVEN)}


def test_without_an_answer_nothing_is_secure() -> None:
    assert grounds(()) is joined(()) is Grounds.UNPROVEN
    assert grounds((Answer(Outcome.FOUND, secure=True),)) is Grounds.SECURE
