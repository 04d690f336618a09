# SPDX-License-Identifier: GPL-3.0-or-later
"""Rules and methods together: who decides, what waits for the end of the message, what only watches."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import pytest

from assay.config import Configuration
from assay.config.build import make_policy, make_trust
from assay.policy import ACCEPTED, Action, Decision, Edits, Facts, Policy, Stage, decide
from assay.policy.addresses import Entries
from factual import facts_of

FAILING = facts_of(
    client={"address": "192.0.2.1"},
    helo="helo.example",
    mail_from={"address": "joe@sender.example", "domain": "sender.example"},
    iprev={"result": "fail", "reason": "no name"},
    spf={"helo": {"result": "fail", "reason": "not h"}, "mailfrom": {"result": "fail", "reason": "not m"}},
    dmarc={"result": "fail", "disposition": "reject", "domain": "author.example"},
    **{"from": {"domain": "author.example"}},
)


def policy(*rules: Mapping[str, Any], **sections: Any) -> Policy:
    named = [{"name": f"r{number}", "when": "true"} | rule for number, rule in enumerate(rules, 1)]
    return make_policy(msgspec.convert(sections | {"rule": named}, Configuration))


def at(made: Policy, stage: Stage = Stage.EOM, facts: Facts = FAILING) -> Decision:
    return decide(facts, made, stage)


R = {"action": "reject"}
ALL = {
    "iprev": {"fail": "reject", "stage": "connect"},
    "spf": {"helo": {"fail": "tempfail", "stage": "helo"}, "mailfrom": {"fail": "quarantine", "stage": "mail"}},
    "dmarc": {"reject": "reject"},
}


# -- methods


def test_without_configuration_nothing_is_decided() -> None:
    assert at(policy()) is ACCEPTED


STAGES = [
    (Stage.CONNECT, Action.REJECT, "iprev.fail"),
    (Stage.HELO, Action.TEMPFAIL, "spf.helo.fail"),
    (Stage.MAIL, Action.ACCEPT, ""),
    (Stage.RCPT, Action.ACCEPT, ""),
    (Stage.EOM, Action.REJECT, "iprev.fail, dmarc.reject"),
]


@pytest.mark.parametrize(("stage", "action", "by"), STAGES)
def test_each_stage_refuses_for_its_own_methods_and_the_last_for_all(stage: Stage, action: Action, by: str) -> None:
    decision = at(policy(**ALL), stage)
    assert (decision.action, decision.by) == (action, by)


def test_only_stages_that_act_are_waited_for() -> None:
    assert [stage for stage in Stage if policy(**ALL).acts_at(stage)] == [
        Stage.CONNECT,
        Stage.HELO,
        Stage.MAIL,
        Stage.EOM,
    ]
    assert not [stage for stage in Stage if policy().acts_at(stage)]
    assert [stage for stage in Stage if policy(R | {"stage": "rcpt"}).acts_at(stage)] == [Stage.RCPT, Stage.EOM]
    gentle = policy(iprev={"fail": "accept", "stage": "connect"})
    assert not [stage for stage in Stage if gentle.acts_at(stage)], "a method that accepts everything costs nothing"


@pytest.mark.parametrize("gentle", ["tag", "quarantine", "discard"])
def test_actions_milder_than_a_refusal_wait_for_the_end(gentle: str) -> None:
    made = policy(spf={"mailfrom": {"fail": gentle, "stage": "mail"}})
    assert at(made, Stage.MAIL) == ACCEPTED
    assert at(made).action == gentle


HARDEST = ["accept", "tag", "quarantine", "tempfail", "discard", "reject"]


@pytest.mark.parametrize("one", HARDEST)
@pytest.mark.parametrize("other", HARDEST)
def test_the_most_severe_action_wins(one: str, other: str) -> None:
    decision = at(policy(iprev={"fail": one}, dmarc={"reject": other}))
    assert decision.action == max(one, other, key=HARDEST.index)
    asked = {"iprev.fail": one, "dmarc.reject": other}
    deciding = [key for key, action in asked.items() if action == decision.action and action != "accept"]
    assert decision.by == ", ".join(deciding)
    if decision.action.refuses:
        status = "7.26" if len(deciding) == 2 else {"iprev.fail": "7.25", "dmarc.reject": "7.1"}[deciding[0]]
        assert decision.reply is not None
        assert decision.reply.status == f"{'5' if decision.action is Action.REJECT else '4'}.{status}"
    else:
        assert decision.reply is None


def test_the_tag_comes_from_the_headers_section() -> None:
    made = policy(iprev={"fail": "tag"}, headers={"tag_field": "X-Bad: yes", "tag_subject": "[bad] "})
    assert at(made).edits == Edits(add=(("X-Bad", "yes"),), subject_tag="[bad] ")
    assert at(policy(iprev={"fail": "quarantine"})).edits == Edits()


# -- dry runs


def test_a_method_in_dry_run_only_watches_and_the_others_decide() -> None:
    made = policy(iprev={"fail": "reject", "dry_run": True}, dmarc={"reject": "quarantine"})
    decision = at(made)
    assert (decision.action, decision.by) == (Action.QUARANTINE, "dmarc.reject")
    assert [(one.action, one.by) for one in decision.watched] == [(Action.REJECT, "iprev.fail")]
    assert decision.watched[0].reply is not None


def test_a_dry_run_of_one_spf_identity_does_not_affect_the_other() -> None:
    made = policy(spf={"helo": {"fail": "reject", "dry_run": True}, "mailfrom": {"fail": "reject"}})
    decision = at(made)
    assert decision.by == "spf.mailfrom.fail"
    assert [one.by for one in decision.watched] == ["spf.helo.fail"]


def test_a_method_in_dry_run_that_accepts_is_not_mentioned() -> None:
    assert at(policy(iprev={"permerror": "reject", "dry_run": True})) == ACCEPTED


def test_a_rule_in_dry_run_only_watches_and_the_next_decides() -> None:
    decision = at(policy(R | {"dry_run": True, "reason": "why"}, {"action": "tempfail"}))
    assert (decision.action, decision.by) == (Action.TEMPFAIL, "rule r2")
    assert [(one.action, one.by, one.reason) for one in decision.watched] == [(Action.REJECT, "rule r1", "why")]


def test_a_changing_rule_in_dry_run_changes_nothing() -> None:
    decision = at(policy({"tag_subject": "[x] ", "dry_run": True}))
    assert decision.edits == Edits()
    assert [one.by for one in decision.watched] == ["rule r1"]


# -- rules


def test_the_first_rule_that_matches_decides() -> None:
    rules = ({"when": "false"} | R, {"when": 'helo == "helo.example"', "action": "quarantine"}, R)
    decision = at(policy(*rules, dmarc={"reject": "reject"}))
    assert (decision.action, decision.by, decision.final) == (Action.QUARANTINE, "rule r2", False)


def test_accept_ends_evaluation() -> None:
    decision = at(policy({"action": "accept", "reason": "a friend"}, R, dmarc={"reject": "reject"}))
    assert (decision.action, decision.by, decision.final) == (Action.ACCEPT, "rule r1", True)
    assert decision.override == "rule r1: a friend"


def test_after_a_rule_without_an_action_evaluation_continues() -> None:
    changing = {
        "add_fields": ["X-A: 1"],
        "remove_fields": ["X-B"],
        "tag_subject": "[a] ",
        "add_recipients": ["a@b.example"],
    }
    decision = at(policy(changing, {"add_fields": ["X-C: 2"], "tag_subject": "[c] "}, dmarc={"reject": "quarantine"}))
    assert (decision.action, decision.by) == (Action.QUARANTINE, "dmarc.reject")
    assert decision.edits == Edits((("X-A", "1"), ("X-C", "2")), ("X-B",), "[a] ", ("a@b.example",))


def test_changes_accumulate_up_to_the_rule_that_decides() -> None:
    decision = at(policy({"add_fields": ["X-A: 1"]}, {"action": "accept", "add_fields": ["X-B: 2"]}))
    assert decision.edits.add == (("X-A", "1"), ("X-B", "2"))


def test_an_exempt_message_keeps_changes_unrelated_to_the_decision() -> None:
    decision = at(policy({"add_fields": ["X-A: 1"]}, {"action": "tag", "add_fields": ["X-B: 2"]}))
    assert decision.edits.add == (("X-A", "1"), ("X-B", "2"), ("X-Assay-Tag", "suspicious"))
    spared = decision.spared("exempt sender")
    assert (spared.action, spared.edits.add) == (Action.ACCEPT, (("X-A", "1"),))
    assert spared.watched == (decision,)


def test_a_tagging_rule_adds_the_tag_to_its_own_changes() -> None:
    decision = at(policy({"action": "tag", "tag_subject": "[mine] ", "add_fields": ["X-A: 1"]}))
    assert decision.edits == Edits((("X-A", "1"), ("X-Assay-Tag", "suspicious")), subject_tag="[mine] ")


REPLIES = [
    ({}, "550 5.7.1 Refused by local policy"),
    ({"reason": "bad helo"}, "550 5.7.1 Refused by local policy: bad helo"),
    ({"reply": "554 5.7.0 no {helo}"}, "554 5.7.0 no helo.example"),
    ({"action": "tempfail", "reply": "421 4.7.0 later"}, "421 4.7.0 later"),
]


@pytest.mark.parametrize(("more", "reply"), REPLIES)
def test_a_rules_reply(more: dict[str, str], reply: str) -> None:
    assert str(at(policy(R | more)).reply) == reply


def test_rules_are_tried_only_at_their_stage() -> None:
    made = policy(R | {"stage": "mail"}, R | {"stage": "rcpt"})
    assert {stage: at(made, stage).by for stage in Stage} == {
        Stage.CONNECT: "",
        Stage.HELO: "",
        Stage.MAIL: "rule r1",
        Stage.RCPT: "rule r2",
        Stage.EOM: "",
    }


def test_rules_of_stages_without_a_known_client_are_tried_later() -> None:
    made = policy(R | {"stage": "connect", "when": 'client.address == "192.0.2.9"'}, R | {"stage": "mail"})
    assert decide(FAILING, made, Stage.EOM, late=True).by == "rule r2"


def test_a_rule_that_cannot_be_evaluated_does_not_match_and_is_reported() -> None:
    made = policy({"when": "size(helo) < 5 || rcpt[9] == ''"} | R, dmarc={"reject": "quarantine"})
    decision = at(made)
    assert decision.action is Action.QUARANTINE
    (watched,) = decision.watched
    assert (watched.action, watched.by) == (Action.ACCEPT, "rule r1")
    assert watched.reason.startswith("rule 'r1' cannot be evaluated: ")


def test_lists_are_read_from_files(tmp_path: Any) -> None:
    file = tmp_path / "bad"
    file.write_text("# known\nSender.Example # ours\n\n.below.example\n", "utf-8")
    made = policy({"when": 'listed(mail_from.domain, "bad")'} | R, lists={"bad": str(file)})
    assert made.lists == {"bad": Entries.parse(("sender.example", "below.example"))}
    assert at(made).by == "rule r1"


def test_the_error_for_an_entry_that_could_never_match_names_file_and_line(tmp_path: Any) -> None:
    file = tmp_path / "bad"
    file.write_text("# known\nsender.example\n\n192.0.2.0/24  # a network\n", "utf-8")
    with pytest.raises(ValueError, match=rf"^lists\.bad: {file}:4: '192\.0\.2\.0/24' is not an address"):
        policy({"when": 'listed(mail_from.domain, "bad")'} | R, lists={"bad": str(file)})


@pytest.mark.parametrize(
    ("section", "key", "entry", "message"),
    [
        ("spf", "strict_domains", "joe@example.org", "'joe@example.org' is not a domain"),
        ("dmarc", "stricter_domains", "a b", "'a b' is not an address, a domain"),
        ("clients", "exempt_senders", "192.0.2.1", "'192.0.2.1' is an IP address"),
        ("clients", "exempt_recipients", "joe@", "'joe@' is not an address, a domain"),
    ],
)
def test_a_key_that_could_never_match_is_an_error(section: str, key: str, entry: str, message: str) -> None:
    configuration = msgspec.convert({section: {key: (entry,)}}, Configuration)
    with pytest.raises(ValueError, match=f"^{section}.{key}: {message}"):
        make_policy(configuration), make_trust(configuration)


FAULTS = [
    ({"when": "heloo == ''"} | R, "rule 'r1': when: line 1, column 1: unknown fact heloo; did you mean helo?"),
    ({"reply": "451 later"} | R, "rule 'r1': reply: '451 later' does not fit reject; write a code that begins with 5"),
    ({"reply": "{foo}"} | R, "rule 'r1': reply: '{foo}': {foo} is not one of the fields {address}"),
    ({"action": "quarantine", "reply": "550 x"}, "rule 'r1': reply: '550 x' is never sent; write action = "),
    ({"action": "quarantine", "stage": "mail"}, "rule 'r1': stage: 'mail' is too early for quarantine"),
    ({"tag_subject": "x", "stage": "mail"} | R, "rule 'r1': stage: 'mail' is too early to change a message"),
    ({}, "rule 'r1': action: missing; write an action, or a change"),
    ({"add_fields": ["no field"]}, "'no field' is not a header field"),
    ({"add_fields": ["X: a\r\nBcc: b"]}, "is not a header field"),
    ({"remove_fields": ["X:"]}, "remove_fields: 'X:' is not a header field name"),
    ({"tag_subject": "a\r\nBcc: b"}, "write printable ASCII on one line"),
    ({"reason": "a\nb"} | R, "write printable ASCII on one line"),
    ({"add_recipients": ["<a@b.example>"]}, "add_recipients: '<a@b.example>' is not an address"),
    ({"add_recipients": ["a"]}, "add_recipients: 'a' is not an address"),
]


@pytest.mark.parametrize(("rule", "message"), FAULTS)
def test_an_invalid_rule_is_an_error_at_startup(rule: dict[str, Any], message: str) -> None:
    with pytest.raises((ValueError, msgspec.ValidationError)) as error:
        policy(rule)
    assert message in str(error.value)


# -- what it costs


class Counting:
    """Facts that count how often they are read."""

    def __init__(self) -> None:
        self.looks: list[str] = []

    def __getattr__(self, name: str) -> Any:
        self.looks.append(name)
        return getattr(FAILING, name)


@pytest.mark.parametrize("stage", [Stage.CONNECT, Stage.HELO, Stage.RCPT])
def test_a_stage_that_does_not_act_reads_no_facts(stage: Stage) -> None:
    facts: Any = Counting()
    made = policy(R | {"stage": "mail"}, dmarc={"reject": "reject"})
    assert not made.acts_at(stage)
    assert decide(facts, made, stage) is ACCEPTED
    assert not facts.looks


def test_rules_read_only_the_facts_they_name() -> None:
    facts: Any = Counting()
    decide(facts, policy({"when": 'helo == "x"'} | R, {"when": 'helo == "y"'} | R), Stage.EOM)
    assert facts.looks == ["helo"]
