# SPDX-License-Identifier: GPL-3.0-or-later
"""The outcomes of each method: every configuration key can be reached, and every local override has a name."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from assay.config import Configuration
from assay.config.build import make_policy
from assay.policy import Action, Decision, Facts, Stage, decide
from assay.policy.outcomes import OUTCOMES
from assay.protocol import arc, dkim, dmarc, iprev, senderid, spf
from factual import facts_of

CLIENT = {"client": {"address": "192.0.2.1"}}
FROM = {"mail_from": {"domain": "sender.example", "address": "joe@sender.example"}}


def policy(**sections: Any) -> Any:
    return make_policy(msgspec.convert(sections, Configuration))


def judged(facts: Facts, stage: Stage = Stage.EOM, **sections: Any) -> Decision:
    return decide(facts, policy(**sections), stage)


def keys_of(method: str) -> list[str]:
    """The keys of a method's section that set the action for an outcome."""
    section: Any = Configuration()
    for name in method.split("."):
        section = getattr(section, name)
    hints = {field.name: str(field.type) for field in msgspec.structs.fields(section)}
    return [name for name, hint in hints.items() if "Action" in hint and name != "list_traffic"]


@pytest.mark.parametrize("method", OUTCOMES)
def test_the_table_of_outcomes_matches_the_configuration(method: str) -> None:
    assert sorted(OUTCOMES[method]) == sorted(keys_of(method))


def spf_facts(identity: str, result: str, *, by_all: bool = False) -> Facts:
    one = {"result": result, "by_all": by_all, "domain": "sender.example", "reason": "the reason"}
    return facts_of(spf={identity: one}, **CLIENT)


def dkim_facts(*signatures: dict[str, Any]) -> Facts:
    """Signatures as facts, with a DMARC result, which marks the message as complete."""
    defaults = {"reason": "the reason", "fields": ["from", "subject"], "domain": "a.example"}
    return facts_of(dkim=[defaults | one for one in signatures], dmarc={"result": "none"}, **CLIENT)


def dmarc_facts(result: str, disposition: str = "none", **more: Any) -> Facts:
    judged = {"result": result, "disposition": disposition, "domain": "author.example", "reason": "the reason"}
    return facts_of(dmarc=judged, **(CLIENT | more))


PASSING = {"result": "pass", "aligned": True}
REACHED = [
    *(("iprev", key, facts_of(iprev={"result": key, "reason": "x"}, **CLIENT)) for key in ("fail", "permerror")),
    ("iprev", "temperror", facts_of(iprev={"result": "temperror", "reason": "x"}, **CLIENT)),
    ("iprev", "name_mismatch", facts_of(iprev={"result": "pass", "names": ["x.example"]}, **CLIENT, **FROM)),
    *(
        (f"spf.{identity}", key, spf_facts(identity, key.removesuffix("_all"), by_all=key.endswith("_all")))
        for identity in ("helo", "mailfrom")
        for key in OUTCOMES["spf.helo"]
    ),
    ("dkim", "none", dkim_facts()),
    *(("dkim", key, dkim_facts({"result": key})) for key in ("fail", "policy", "neutral", "temperror", "permerror")),
    ("dkim", "unsigned_fields", dkim_facts(PASSING | {"fields": ["from"]})),
    ("dkim", "unaligned", dkim_facts(PASSING | {"aligned": False})),
    *(("arc", key, facts_of(arc={"result": key, "reason": "x"}, **CLIENT)) for key in OUTCOMES["arc"]),
    *(("senderid", key, facts_of(senderid={"result": key, "reason": "x"}, **CLIENT)) for key in OUTCOMES["senderid"]),
    *(("dmarc", key, dmarc_facts("fail", key)) for key in ("none", "quarantine", "reject")),
    ("dmarc", "no_policy", dmarc_facts("none")),
    ("dmarc", "temperror", dmarc_facts("temperror")),
    ("dmarc", "permerror", dmarc_facts("permerror")),
    ("dmarc", "malformed_from", dmarc_facts("permerror", **{"from": {"fault": "two From fields"}})),
]


def section_of(method: str, settings: dict[str, Any]) -> dict[str, Any]:
    top, _, below = method.partition(".")
    return {top: {below: settings} if below else settings}


def test_every_key_is_in_the_table_below() -> None:
    assert {(method, key) for method, key, _ in REACHED} == {(m, key) for m, keys in OUTCOMES.items() for key in keys}


@pytest.mark.parametrize(("method", "key", "facts"), REACHED, ids=[f"{method}.{key}" for method, key, _ in REACHED])
def test_each_outcome_has_its_own_action(method: str, key: str, facts: Facts) -> None:
    extra = {"names_in_mail_from": "any"} if key == "name_mismatch" else {}
    extra |= {"required_fields": ("Subject",)} if key == "unsigned_fields" else {}
    decision = judged(facts, **section_of(method, {key: "reject"} | extra))
    assert decision.action is Action.REJECT
    assert decision.by == f"{method}.{key}"
    assert decision.reason
    others = {other: "reject" for other in OUTCOMES[method] if other != key}
    if (method, key) in (("dmarc", "temperror"), ("dmarc", "malformed_from")):
        others[key] = "accept"  # if left out, it would follow dmarc.reject
    if not key.endswith("_all"):
        others = {other: action for other, action in others.items() if other != f"{key}_all"}
        assert judged(facts, **section_of(method, others | extra)).action is Action.ACCEPT


@pytest.mark.parametrize("method", OUTCOMES)
def test_a_pass_is_accepted_under_any_configuration(method: str) -> None:
    passing = facts_of(
        iprev={"result": "pass", "confirmed": ["mail.sender.example"]},
        spf={"helo": {"result": "pass"}, "mailfrom": {"result": "pass"}},
        dkim=[PASSING | {"fields": ["from", "subject"]}],
        arc={"result": "pass"},
        senderid={"result": "pass"},
        dmarc={"result": "pass"},
        **CLIENT,
        **FROM,
    )
    extra = {"iprev": {"names_in_mail_from": "first"}, "dkim": {"required_fields": ("FROM", "Subject")}}
    everything = dict.fromkeys(OUTCOMES[method], "reject") | extra.get(method, {})
    assert judged(passing, **section_of(method, everything)) == Decision()


@pytest.mark.parametrize("method", OUTCOMES)
def test_a_method_that_was_not_evaluated_has_no_outcome(method: str) -> None:
    assert judged(facts_of(), **section_of(method, dict.fromkeys(OUTCOMES[method], "reject"))) == Decision()


RESULTS = [
    *(("iprev", facts_of(iprev={"result": str(one)})) for one in iprev.Result),
    *(("spf.mailfrom", spf_facts("mailfrom", str(one))) for one in spf.Result),
    *(("dkim", dkim_facts({"result": str(one)})) for one in dkim.Result if one is not dkim.Result.NONE),
    *(("arc", facts_of(arc={"result": str(one)})) for one in arc.Result),
    *(("senderid", facts_of(senderid={"result": str(one)})) for one in senderid.Result),
    *(("dmarc", dmarc_facts(str(one), str(asks))) for one in dmarc.Result for asks in dmarc.DmarcPolicy),
]


@pytest.mark.parametrize(("method", "facts"), RESULTS)
def test_every_protocol_result_has_an_outcome(method: str, facts: Facts) -> None:
    decision = judged(facts, **section_of(method, dict.fromkeys(OUTCOMES[method], "quarantine")))
    top = method.partition(".")[0]
    result = facts.spf.mailfrom.result if top == "spf" else None
    result = result or (facts.dkim[0].result if top == "dkim" else getattr(facts, top).result)
    wanted = Action.ACCEPT if result == "pass" and method != "dkim" else Action.QUARANTINE
    assert decision.action is wanted


ALL = [
    pytest.param("fail", {"fail": "reject"}, "fail", id="fail_all defaults to fail"),
    pytest.param("fail", {"fail": "reject", "fail_all": "accept"}, "", id="fail_all may be milder"),
    pytest.param("fail", {"fail_all": "reject"}, "fail_all", id="fail_all may be set alone"),
    pytest.param("softfail", {"softfail": "reject"}, "softfail", id="softfail_all defaults to softfail"),
    pytest.param("softfail", {"softfail": "reject", "softfail_all": "accept"}, "", id="softfail_all may be milder"),
    pytest.param("softfail", {"fail": "reject", "fail_all": "reject"}, "", id="softfail is not fail"),
]


@pytest.mark.parametrize(("result", "actions", "key"), ALL)
def test_a_result_decided_by_all_may_have_its_own_action(result: str, actions: dict[str, str], key: str) -> None:
    decision = judged(spf_facts("mailfrom", result, by_all=True), spf={"mailfrom": actions})
    assert decision.by == (f"spf.mailfrom.{key}" if key else "")


def test_a_specific_mechanism_is_not_all() -> None:
    assert judged(spf_facts("mailfrom", "fail"), spf={"mailfrom": {"fail_all": "reject"}}) == Decision()


STRICT = [
    ("softfail", "sender.example", True),
    ("neutral", "sender.example", True),
    ("softfail", "example", True),
    ("none", "sender.example", False),
    ("temperror", "sender.example", False),
    ("softfail", "other.example", False),
    ("softfail", "x.sender.example", False),
]


@pytest.mark.parametrize(("result", "strict", "counts"), STRICT)
def test_strict_domains_count_softfail_and_neutral_as_fail(result: str, strict: str, counts: bool) -> None:
    settings = {"strict_domains": (strict,), "mailfrom": {"fail": "reject"}}
    decision = judged(spf_facts("mailfrom", result), spf=settings)
    assert decision.by == ("spf.mailfrom.fail" if counts else "")
    assert decision.override == ("stricter than published" if counts else "")


def test_softfail_by_all_of_a_strict_domain_counts_as_fail_by_all() -> None:
    settings = {"strict_domains": ("sender.example",), "mailfrom": {"fail_all": "reject"}}
    assert judged(spf_facts("mailfrom", "softfail", by_all=True), spf=settings).by == "spf.mailfrom.fail_all"


NAMES = [
    ("first", ["mail.sender.example", "x.example"], False),
    ("first", ["x.example", "mail.sender.example"], True),
    ("any", ["x.example", "mail.sender.example"], False),
    ("any", ["SENDER.example"], False),
    ("any", ["notsender.example"], True),
    ("any", [], True),
    ("", ["x.example"], False),
]


@pytest.mark.parametrize(("which", "names", "mismatch"), NAMES)
def test_a_client_name_must_be_in_the_mail_from_domain(which: str, names: list[str], mismatch: bool) -> None:
    settings = {"names_in_mail_from": which, "name_mismatch": "reject"}
    iprev = {"result": "pass", "names": ["sender.example", *names], "confirmed": names}
    decision = judged(facts_of(iprev=iprev, **CLIENT, **FROM), iprev=settings)
    assert (decision.by == "iprev.name_mismatch") is mismatch


def test_a_bounce_has_no_mail_from_domain_to_match() -> None:
    settings = {"names_in_mail_from": "any", "name_mismatch": "reject"}
    assert judged(facts_of(iprev={"result": "pass", "names": ["x.example"]}), iprev=settings) == Decision()


def test_names_that_could_not_be_looked_up_are_not_a_mismatch() -> None:
    settings = {"names_in_mail_from": "any", "name_mismatch": "reject"}
    assert judged(facts_of(iprev={"result": "temperror"}, **FROM), iprev=settings) == Decision()


@pytest.mark.parametrize("mismatch", ["accept", "tempfail"])
def test_a_mismatch_does_not_hide_that_iprev_failed(mismatch: str) -> None:
    settings = {"names_in_mail_from": "any", "name_mismatch": mismatch, "fail": "reject"}
    facts = facts_of(iprev={"result": "fail", "names": ["x.example"], "reason": "no"}, **CLIENT, **FROM)
    decision = judged(facts, iprev=settings)
    assert decision.by == "iprev.fail"
    assert str(decision.reply).startswith("550 5.7.25")


def test_two_outcomes_of_one_method_are_not_several_methods() -> None:
    settings = {"names_in_mail_from": "any", "name_mismatch": "reject", "fail": "reject"}
    facts = facts_of(iprev={"result": "fail", "names": ["x.example"], "reason": "no"}, **CLIENT, **FROM)
    decision = judged(facts, iprev=settings)
    assert decision.by == "iprev.fail, iprev.name_mismatch"
    assert str(decision.reply).startswith("550 5.7.25")


def test_a_mismatch_requires_a_known_mail_from() -> None:
    settings = {"names_in_mail_from": "any", "name_mismatch": "reject", "stage": "connect"}
    made = policy(iprev=settings)
    assert [stage for stage in Stage if made.acts_at(stage)] == [Stage.MAIL, Stage.EOM]
    made = policy(iprev=settings | {"fail": "reject"})
    assert [stage for stage in Stage if made.acts_at(stage)] == [Stage.CONNECT, Stage.MAIL, Stage.EOM]


SIGNATURES = [
    pytest.param([{"result": "fail"}, PASSING], "", id="one pass is enough"),
    pytest.param([{"result": "permerror"}, {"result": "temperror"}], "temperror", id="the best result decides"),
    pytest.param([{"result": "permerror"}, {"result": "fail"}], "fail", id="fail ranks above permerror"),
    pytest.param(
        [{"result": "fail", "testing": True}], "none", id="a signature in test mode counts as none: RFC 6376, 3.6.1"
    ),
    pytest.param([{"result": "policy", "testing": True}], "none", id="also where a pass in test mode does not count"),
    pytest.param(
        [{"result": "fail", "testing": True}, {"result": "permerror"}], "permerror", id="other signatures still count"
    ),
    pytest.param([PASSING | {"testing": True}], "", id="a pass in test mode is a pass"),
    pytest.param([PASSING | {"fields": ["from"]}, PASSING], "", id="one signature covers the required fields"),
    pytest.param([PASSING | {"fields": ["from"]}], "unsigned_fields", id="no signature covers the required fields"),
    pytest.param(
        [PASSING | {"aligned": False}, {"result": "fail", "aligned": True}],
        "unaligned",
        id="only signatures of other domains pass",
    ),
]


@pytest.mark.parametrize(("signatures", "key"), SIGNATURES)
def test_the_best_result_of_the_signatures_counts(signatures: list[dict[str, Any]], key: str) -> None:
    settings = dict.fromkeys(OUTCOMES["dkim"], "reject") | {"required_fields": ("Subject",)}
    assert judged(dkim_facts(*signatures), dkim=settings).by == (f"dkim.{key}" if key else "")


STRICTER = [
    ("none", "author.example", "reject", "stricter than published"),
    ("quarantine", "example", "reject", "stricter than published"),
    ("reject", "author.example", "reject", ""),
    ("none", "other.example", "none", ""),
]


@pytest.mark.parametrize(("asks", "listed", "key", "override"), STRICTER)
def test_stricter_domains_are_treated_as_p_reject(asks: str, listed: str, key: str, override: str) -> None:
    settings = {"stricter_domains": (listed,), "reject": "reject", "none": "quarantine"}
    decision = judged(dmarc_facts("fail", asks), dmarc=settings)
    assert (decision.by, decision.override) == (f"dmarc.{key}", override)


def test_a_stricter_domain_counts_among_several_possible_authors() -> None:
    settings = {"stricter_domains": ("shy.example",), "reject": "reject", "quarantine": "quarantine"}
    several = {"from": {"domains": ["author.example", "mail.shy.example"], "fault": "2 author domains"}}
    assert judged(dmarc_facts("fail", "quarantine", **several), dmarc=settings).by == "dmarc.reject"


LEFT_OUT = [
    ("reject", "tempfail", "reject"),
    ("tempfail", "tempfail", "tempfail"),
    ("discard", "tempfail", "discard"),
    ("quarantine", "tempfail", "quarantine"),
    ("tag", "tag", "tag"),
    ("accept", "accept", "accept"),
]


@pytest.mark.parametrize("key", ["reject", "quarantine", "none", "no_policy", "permerror"])
@pytest.mark.parametrize(("action", "temperror", "malformed_from"), LEFT_OUT)
def test_omitted_actions_follow_the_strictest(key: str, action: str, temperror: str, malformed_from: str) -> None:
    malformed = dmarc_facts("permerror", **{"from": {"fault": "no From field"}})
    assert judged(dmarc_facts("temperror"), dmarc={key: action}).action == temperror
    assert judged(malformed, dmarc={key: action}).action == malformed_from
    spared = {key: action, "temperror": "accept", "malformed_from": "accept"}
    assert judged(dmarc_facts("temperror"), dmarc=spared).action is Action.ACCEPT
    assert judged(malformed, dmarc=spared).action is Action.ACCEPT


def test_of_several_actions_the_strictest_is_followed() -> None:
    settings = {"reject": "quarantine", "quarantine": "tag", "none": "reject"}
    malformed = dmarc_facts("permerror", **{"from": {"fault": "no From field"}})
    assert judged(malformed, dmarc=settings).action is Action.REJECT
    assert judged(dmarc_facts("temperror"), dmarc=settings).action is Action.TEMPFAIL


def test_a_pass_of_a_stricter_domain_is_unaffected() -> None:
    settings = {"stricter_domains": ("author.example",), "reject": "reject"}
    assert judged(dmarc_facts("pass"), dmarc=settings) == Decision()


LISTED = {"list": {"id": "<l.example>"}}
SEALED = {"arc": {"result": "pass", "sealers": ["l.example"]}}
TRAFFIC = [
    pytest.param("reject", LISTED, "reject", "reject", "", id="unchanged by default"),
    pytest.param("quarantine", LISTED, "reject", "quarantine", "mailing list", id="lowered for a list"),
    pytest.param("quarantine", SEALED, "reject", "quarantine", "mailing list", id="lowered for a sealer"),
    pytest.param("quarantine", {}, "reject", "reject", "", id="not lowered for other mail"),
    pytest.param("quarantine", LISTED, "quarantine", "quarantine", "", id="quarantine needs no lowering"),
    pytest.param("quarantine", LISTED, "none", "tag", "", id="none stays none"),
    pytest.param("accept", LISTED, "reject", "accept", "mailing list", id="recorded only"),
    pytest.param("accept", LISTED, "quarantine", "quarantine", "", id="only reject is overridden"),
]


@pytest.mark.parametrize(("traffic", "more", "asks", "action", "override"), TRAFFIC)
def test_list_traffic_may_be_treated_more_leniently(
    traffic: str, more: dict[str, Any], asks: str, action: str, override: str
) -> None:
    settings = {"list_traffic": traffic, "reject": "reject", "quarantine": "quarantine", "none": "tag"}
    decision = judged(dmarc_facts("fail", asks, **more), dmarc=settings)
    assert (decision.action, decision.override) == (action, override)
    if action == "accept":
        assert decision.reason == "dmarc.quarantine not acted on: mailing list"


def test_stricter_domains_apply_to_list_traffic() -> None:
    settings = {"list_traffic": "accept", "stricter_domains": ("author.example",), "reject": "reject"}
    assert judged(dmarc_facts("fail", "none", **LISTED), dmarc=settings).by == "dmarc.reject"


def test_trusted_sealers_override_a_failure_and_are_recorded() -> None:
    trusted = {"arc": {"result": "pass", "sealers": ["l.example"], "trusted": True}}
    decision = judged(dmarc_facts("fail", "reject", **trusted), dmarc={"reject": "reject"})
    assert decision.action is Action.ACCEPT
    assert decision.override == "trusted ARC sealers"
    assert decision.reason == "dmarc.reject not acted on: trusted ARC sealers"


FORWARDERS = ["192.0.2.1", "192.0.2.0/24", "10.0.0.0/8, 192.0.2.1", "::ffff:192.0.2.0/120"]


@pytest.mark.parametrize("network", FORWARDERS)
def test_failures_of_trusted_forwarders_are_recorded_but_not_acted_on(network: str) -> None:
    facts = facts_of(
        spf={"mailfrom": {"result": "fail"}, "helo": {"result": "fail"}},
        dmarc={"result": "fail", "disposition": "reject", "domain": "author.example"},
        **CLIENT,
    )
    sections = {"spf": {"mailfrom": {"fail": "reject"}, "helo": {"fail": "reject"}}, "dmarc": {"reject": "reject"}}
    decision = judged(facts, **sections, clients={"trusted_forwarders": (network,)})
    assert decision.action is Action.ACCEPT
    assert decision.override == "trusted forwarder"
    assert decision.reason == "spf.helo.fail, spf.mailfrom.fail, dmarc.reject not acted on: trusted forwarder"
    assert judged(facts, **sections, clients={"trusted_forwarders": ("198.51.100.0/24",)}).action is Action.REJECT


def test_a_forwarder_remains_responsible_for_its_own_name() -> None:
    facts = facts_of(iprev={"result": "fail", "reason": "x"}, **CLIENT)
    decision = judged(facts, iprev={"fail": "reject"}, clients={"trusted_forwarders": ("192.0.2.1",)})
    assert decision.action is Action.REJECT
