# SPDX-License-Identifier: GPL-3.0-or-later
"""The operator's rules: which outcomes act, which action wins, and what the client is told."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from assay.assessment import Assessment
from assay.model.name import Domain, ReversePath
from assay.model.smtp import Client, Envelope
from assay.policy import Action, Decision, Policy, Stage, facts
from assay.policy import decide as decide_at
from assay.protocol import dmarc, iprev, spf
from talking import policy_of

ADDRESS = ip_address("192.0.2.1")
AUTHOR, SENDER = Domain("author.example"), Domain("sender.example")
A, Q, T, R = "accept", "quarantine", "tempfail", "reject"


def assessment(
    iprev_result: str | None = None, spf_result: str | None = None, dmarc_result: str | None = None, asks: str = "none"
) -> Assessment:
    return Assessment(
        Client(ADDRESS),
        Envelope(ReversePath.parse("a@sender.example")),
        iprev=None
        if iprev_result is None
        else iprev.Evaluation(iprev.Result(iprev_result), ADDRESS, "", (), (), "hostile\r\ntext"),
        spf_helo=spf.Evaluation(spf.Result.FAIL, spf.Identity.HELO, SENDER, "postmaster@sender.example"),
        spf_mail_from=None
        if spf_result is None
        else spf.Evaluation(spf.Result(spf_result), spf.Identity.MAILFROM, SENDER, "a@sender.example"),
        dmarc=None
        if dmarc_result is None
        else dmarc.Evaluation(
            dmarc.Result(dmarc_result), "because", AUTHOR, dmarc.DmarcPolicy(asks), disposition=dmarc.DmarcPolicy(asks)
        ),
    )


def rules(of_iprev: str = A, of_spf: str = A, none: str = A, quarantine: str = A, reject: str = A) -> Policy:
    return policy_of(
        {
            "iprev": {"fail": of_iprev},
            "spf": {"mailfrom": {"fail": of_spf}},
            "dmarc": {"none": none, "quarantine": quarantine, "reject": reject},
        }
    )


def decide(of: Assessment, policy: Policy) -> Decision:
    return decide_at(facts(of), policy, Stage.EOM)


HARD = rules(R, R, R, R, R)


def test_the_defaults_accept_everything() -> None:
    assert decide(assessment("fail", "fail", "fail", "reject"), rules()) == Decision()


@pytest.mark.parametrize("result", [one.value for one in iprev.Result if one is not iprev.Result.FAIL])
def test_only_fail_of_iprev_acts(result: str) -> None:
    assert decide(assessment(result), HARD) == Decision()


@pytest.mark.parametrize("result", [one.value for one in spf.Result if one is not spf.Result.FAIL])
def test_only_fail_of_spf_acts(result: str) -> None:
    assert decide(assessment(None, result), HARD) == Decision()


@pytest.mark.parametrize("result", ["none", "pass", "permerror"])
def test_only_fail_of_dmarc_acts(result: str) -> None:
    assert decide(assessment(None, None, result, "reject"), HARD) == Decision()


def test_a_temporary_error_of_dmarc_defers_where_a_failure_is_rejected() -> None:
    assert decide(assessment(None, None, "temperror", "reject"), HARD).action is Action.TEMPFAIL


def test_the_helo_identity_never_acts() -> None:
    assert decide(assessment(), HARD) == Decision()


@pytest.mark.parametrize(
    ("asks", "action"), [("none", Action.QUARANTINE), ("quarantine", Action.TEMPFAIL), ("reject", Action.REJECT)]
)
def test_dmarc_acts_by_what_the_domain_asks_for(asks: str, action: Action) -> None:
    policy = rules(none=Q, quarantine=T, reject=R)
    decision = decide(assessment(None, None, "fail", asks), policy)
    assert decision.action is action
    assert decision.by == f"dmarc.{asks}"
    assert decision.reason == "message fails the policy of author.example"


BOTH = "iprev.fail, spf.mailfrom.fail"
ROWS = [
    pytest.param("fail", None, None, rules(of_iprev=R), "550 5.7.25", "iprev.fail", id="IPREV: RFC 7372, 3.2"),
    pytest.param(None, "fail", None, rules(of_spf=R), "550 5.7.23", "spf.mailfrom.fail", id="SPF: RFC 7372, 3.2"),
    pytest.param(None, None, "fail", rules(reject=R), "550 5.7.1", "dmarc.reject", id="DMARC: RFC 9989, 7.2"),
    pytest.param(None, "fail", None, rules(of_spf=T), "451 4.7.23", "spf.mailfrom.fail", id="a 4yz code for tempfail"),
    pytest.param("fail", "fail", None, rules(R, R), "550 5.7.26", BOTH, id="two: RFC 7372, 4"),
    pytest.param("fail", "fail", "fail", HARD, "550 5.7.26", "iprev.fail, spf.mailfrom.fail, dmarc.reject", id="three"),
    pytest.param("fail", "fail", None, rules(T, T), "451 4.7.26", BOTH, id="two that are deferred"),
    pytest.param("fail", "fail", None, rules(T, R), "550 5.7.23", "spf.mailfrom.fail", id="reject before tempfail"),
    pytest.param("fail", "fail", None, rules(Q, T), "451 4.7.23", "spf.mailfrom.fail", id="tempfail before quarantine"),
    pytest.param("fail", "fail", "fail", rules(A, Q, R, R, A), "", "spf.mailfrom.fail", id="what accepts has no say"),
]


@pytest.mark.parametrize(("of_iprev", "of_spf", "of_dmarc", "policy", "reply", "key"), ROWS)
def test_the_hardest_action_wins_and_its_methods_are_reported(
    of_iprev: str | None, of_spf: str | None, of_dmarc: str | None, policy: Policy, reply: str, key: str
) -> None:
    decision = decide(assessment(of_iprev, of_spf, of_dmarc, "reject"), policy)
    assert decision.by == key
    assert str(decision.reply or "").startswith(reply)
    if decision.reply is None:
        assert decision.action in (Action.ACCEPT, Action.QUARANTINE)
    else:
        # libmilter ignores a 4yz text with REJECT and a 5yz text with TEMPFAIL.
        assert decision.reply.code // 100 == {Action.TEMPFAIL: 4, Action.REJECT: 5}[decision.action]
        assert decision.reply.status[0] == str(decision.reply.code)[0]
        text = " ".join(decision.reply.lines)
        assert text.isascii()
        assert text.isprintable()
        assert "hostile" not in text or "hostile??text" in text, "what does not print is masked"
        assert len(str(decision.reply)) < 980


def test_the_longest_names_fit_into_a_reply() -> None:
    long = Domain(".".join(["x" * 63] * 3 + ["y" * 61]))
    full = assessment("fail", "fail", "fail", "reject")
    evaluation = spf.Evaluation(spf.Result.FAIL, spf.Identity.MAILFROM, long, f"a@{long}")
    judged = dmarc.Evaluation(
        dmarc.Result.FAIL, "", long, dmarc.DmarcPolicy.REJECT, disposition=dmarc.DmarcPolicy.REJECT
    )
    client = Client(ip_address("2001:db8:1111:2222:3333:4444:5555:6666"))
    worst = Assessment(client, full.envelope, iprev=full.iprev, spf_mail_from=evaluation, dmarc=judged)
    assert all(len(line) < 500 for line in decide(worst, HARD).reply.lines)  # type: ignore[union-attr]  # it refuses
