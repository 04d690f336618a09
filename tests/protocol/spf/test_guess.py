# SPDX-License-Identifier: GPL-3.0-or-later
"""A best guess for domains without a record: when it is made, and that nobody can take it for the domain's word."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from assay.model.name import ReversePath
from assay.protocol import spf
from zone import Zone

GUESS = b"v=spf1 a/24 mx -all exp=why.guess.example"
CLIENT = ip_address("192.0.2.1")
ZONE = {
    "guess.example": [["A", "192.0.2.77"]],
    "far.example": [["A", "198.51.100.1"]],
    "published.example": [["A", "192.0.2.77"], ["TXT", ["v=spf1 -all"]]],
    "neutral.example": [["TXT", ["v=spf1"]]],
    "two.example": [["TXT", ["v=spf1 -all"]], ["TXT", ["v=spf1 +all"]]],
    "failing.example": [["SERVFAIL", "TXT"], ["A", "192.0.2.77"]],
    "broken.example": [["SERVFAIL", "A"]],
    "why.guess.example": [["TXT", ["the receiver's own words"]]],
    "other.example": [["TXT", ["something else"]], ["MX", [10, "mail.other.example"]]],
    "mail.other.example": [["A", "192.0.2.1"]],
}

CASES = [
    pytest.param("joe@guess.example", "pass", True, id="no record: the guess passes"),
    pytest.param("joe@far.example", "fail", True, id="no record: the guess fails"),
    pytest.param("joe@other.example", "pass", True, id="other TXT records are none"),
    pytest.param("joe@broken.example", "temperror", True, id="the guess cannot be evaluated now"),
    pytest.param("", "pass", True, id="a bounce, whose identity is the HELO name"),
    pytest.param("joe@published.example", "fail", False, id="a published record counts"),
    pytest.param("joe@neutral.example", "neutral", False, id="even one that says nothing"),
    pytest.param("joe@two.example", "permerror", False, id="a broken one is no reason to guess"),
    pytest.param("joe@failing.example", "temperror", False, id="nor is a DNS that does not answer"),
    pytest.param("joe@missing.example", "none", False, id="a domain that does not exist has no mail servers"),
    pytest.param("joe@[192.0.2.1]", "none", False, id="no domain"),
    pytest.param("joe", "none", False, id="no domain at all"),
]


def evaluate(path: str, guess: bytes = GUESS, narrator: spf.Narrator | None = None) -> spf.Evaluation:
    request = spf.Request(CLIENT, "guess.example", best_guess=guess, receiver="mx.example.net")
    return Zone(ZONE).solve(spf.check(request.of_mail_from(ReversePath.parse(path)), narrator))


@pytest.mark.parametrize(("path", "result", "guessed"), CASES)
def test_it_is_made_only_for_a_domain_that_exists_and_has_no_record(path: str, result: str, guessed: bool) -> None:
    evaluation = evaluate(path)
    assert (evaluation.result, evaluation.guessed) == (result, guessed)
    assert evaluation.reason.startswith("best guess, because ") is guessed
    assert evaluation.identity is spf.Identity.MAILFROM


@pytest.mark.parametrize("path", [case.values[0] for case in CASES])
def test_it_is_off_where_none_is_configured(path: str) -> None:
    without = evaluate(path, b"")
    assert not without.guessed
    request = spf.Request(CLIENT, "guess.example").of_mail_from(ReversePath.parse(path))
    assert without == Zone(ZONE).solve(spf.check_host(request))


def test_our_words_are_not_reported_as_the_domains() -> None:
    assert evaluate("joe@far.example").explanation == ""


def test_received_spf_says_so() -> None:
    value = spf.render(
        evaluate("joe@guess.example"), client_address=CLIENT, helo="h", envelope_from="joe@guess.example", receiver="mx"
    )
    assert "best guess" in " ".join(value.split())
    assert "identity=mailfrom" in value


def test_the_narration_has_both() -> None:
    narrator = spf.Narrator()
    evaluate("joe@guess.example", narrator=narrator)
    texts = [step.text for step in narrator.steps if step.event is spf.Event.RECORD]
    assert [text for text in texts if "mx -all" in text]


def test_helo_is_never_guessed() -> None:
    evaluation = Zone(ZONE).solve(spf.check(spf.Request(CLIENT, "guess.example", best_guess=GUESS).of_helo()))
    assert (evaluation.result, evaluation.guessed) == ("none", False)
