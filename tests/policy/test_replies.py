# SPDX-License-Identifier: GPL-3.0-or-later
"""Replies to a refused client: the codes of RFC 7372, the operator's texts, and never a stranger's text unmarked."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from assay.policy import Action, Reply, ReplyTexts, check_reply, split_reply
from assay.policy.outcomes import OUTCOMES, MethodOutcome
from assay.policy.replies import FIELDS, MAX_LINE_LENGTH
from assay.policy.vocabulary import SenderFacts, SpfFacts, SpfIdentityFacts
from factual import facts_of

R, T = Action.REJECT, Action.TEMPFAIL
FACTS = facts_of(
    client={"address": "192.0.2.1"},
    helo="helo.example",
    mail_from={"address": "joe@sender.example", "domain": "sender.example"},
    spf={
        "helo": {"domain": "helo.example", "explanation": "no such host"},
        "mailfrom": {"domain": "sender.example", "explanation": "see http://why.example/"},
    },
    **{"from": {"domain": "author.example"}},
)

CODES = [
    ("iprev", "fail", "7.25"),  # RFC 7372, 3.3
    ("iprev", "name_mismatch", "7.25"),
    ("iprev", "permerror", "7.25"),
    ("iprev", "temperror", "7.25"),
    *((f"spf.{one}", key, "7.23") for one in ("helo", "mailfrom") for key in ("fail", "fail_all")),  # RFC 7372, 3.2
    *(
        (f"spf.{one}", key, "7.1")
        for one in ("helo", "mailfrom")
        for key in ("softfail", "softfail_all", "none", "neutral")
    ),
    *((f"spf.{one}", key, "7.24") for one in ("helo", "mailfrom") for key in ("temperror", "permerror")),
    ("dkim", "none", "7.20"),  # RFC 7372, 3.1
    ("dkim", "fail", "7.20"),
    ("dkim", "temperror", "7.5"),  # RFC 6376, 6.3
    ("dkim", "policy", "7.21"),
    ("dkim", "unsigned_fields", "7.21"),
    ("dkim", "unaligned", "7.22"),
    ("arc", "fail", "7.29"),  # RFC 8617, 10.4
    ("senderid", "fail", "7.1"),
    ("dmarc", "reject", "7.1"),  # RFC 9989, 7.2
    ("dmarc", "malformed_from", "6.0"),
]


@pytest.mark.parametrize(("method", "key", "code"), CODES)
@pytest.mark.parametrize(("action", "begins"), [(R, "550 5."), (T, "451 4.")])
def test_each_failure_has_its_reply_code(method: str, key: str, code: str, action: Action, begins: str) -> None:
    reply = ReplyTexts(explain=False).of_methods(action, [(method, MethodOutcome(key, "the reason"))], FACTS)
    assert str(reply).startswith(f"{begins}{code} ")
    assert "the reason" in reply.lines[0]


def test_several_failed_methods_have_a_common_code() -> None:
    """RFC 7372, 4: instead of the code of the first method."""
    deciding = [("iprev", MethodOutcome("fail", "one")), ("dmarc", MethodOutcome("reject", "two"))]
    assert str(ReplyTexts().of_methods(R, deciding, FACTS)) == "550 5.7.26 reverse DNS of 192.0.2.1: one; DMARC: two"


@pytest.mark.parametrize("method", OUTCOMES)
def test_every_method_has_a_text(method: str) -> None:
    (line,) = ReplyTexts(explain=False).of_methods(R, [(method, MethodOutcome("x", "the reason"))], FACTS).lines
    assert line.endswith("the reason")


VALUES = {
    "address": "192.0.2.1",
    "helo": "helo.example",
    "sender": "joe@sender.example",
    "sender_domain": "sender.example",
    "author_domain": "author.example",
    "reason": "the reason",
}


@pytest.mark.parametrize("field", FIELDS)
def test_each_field_may_be_used_in_a_text(field: str) -> None:
    replies = ReplyTexts({"dmarc": f"a {{{field}}} b {{{{c}}}}"})
    reply = replies.of_methods(R, [("dmarc", MethodOutcome("reject", "the reason"))], FACTS)
    assert reply.lines == (f"a {VALUES[field]} b {{c}}",)


TEXTS = [
    pytest.param({"spf.mailfrom": "M"}, "fail_all", "M", id="by method"),
    pytest.param({"spf.mailfrom": "M", "spf.mailfrom.fail": "F"}, "fail", "F", id="by outcome"),
    pytest.param(
        {"spf.mailfrom": "M", "spf.mailfrom.fail": "F"}, "fail_all", "F", id="the text for fail applies to fail_all"
    ),
    pytest.param(
        {"spf.mailfrom.fail": "F", "spf.mailfrom.fail_all": "A"}, "fail_all", "A", id="fail_all has its own text"
    ),
    pytest.param(
        {"spf.mailfrom.fail_all": "A"},
        "fail",
        "SPF of MAIL FROM: why",
        id="the text for fail_all does not apply to fail",
    ),
    pytest.param({"spf.helo": "H"}, "fail", "SPF of MAIL FROM: why", id="another method's is not used"),
]


@pytest.mark.parametrize(("texts", "key", "line"), TEXTS)
def test_the_most_specific_text_is_used(texts: dict[str, str], key: str, line: str) -> None:
    replies = ReplyTexts(texts, explain=False)
    assert replies.of_methods(R, [("spf.mailfrom", MethodOutcome(key, "why"))], FACTS).lines == (line,)


@pytest.mark.parametrize(
    ("action", "key", "explanation", "reply"),
    [
        (R, "fail", "", "550 5.7.1 Sender ID (PRA) 192.0.2.1 may not"),
        (R, "fail", "ask us", "550 5.7.1 Sender ID (PRA) 192.0.2.1 may not - sender.example explains: ask us"),
        (R, "softfail", "ask us", "550 5.7.1 Sender ID (PRA) 192.0.2.1 may not"),
        (T, "temperror", "", "450 4.4.3 Sender ID check is temporarily unavailable: 192.0.2.1 may not"),
        (R, "temperror", "", "550 5.4.3 Sender ID check is temporarily unavailable: 192.0.2.1 may not"),
        (T, "fail", "", "451 4.7.1 Sender ID (PRA) 192.0.2.1 may not"),
    ],
)
def test_the_replies_of_sender_id(action: Action, key: str, explanation: str, reply: str) -> None:
    """RFC 4406, 5.3 and 5.4; the explanation is also marked as the sender's (RFC 7208, 6.2)."""
    facts = facts_of(senderid={"domain": "sender.example", "explanation": explanation})
    deciding = [("senderid", MethodOutcome(key, "192.0.2.1 may not"))]
    assert str(ReplyTexts().of_methods(action, deciding, facts)) == reply
    assert "explains" not in str(ReplyTexts(explain=False).of_methods(action, deciding, facts))


def test_sender_id_together_with_another_method() -> None:
    deciding = [("senderid", MethodOutcome("temperror", "one")), ("dmarc", MethodOutcome("temperror", "two"))]
    reply = str(ReplyTexts().of_methods(T, deciding, FACTS))
    assert reply == "451 4.7.26 Sender ID check is temporarily unavailable: one; DMARC: two"


def test_an_operators_text_for_sender_id_applies_to_all_its_outcomes() -> None:
    replies = ReplyTexts({"senderid": "S {reason}"})
    assert replies.of_methods(T, [("senderid", MethodOutcome("temperror", "why"))], FACTS).lines == ("S why",)


HOSTILE = [
    "a\r\n250 OK",
    "a\nb",
    "a\0b",
    "\x1b[2J",
    "caf\u00e9",
    "a\udce9",
    "\u202e",
    "\x7f",
    "{reason}",
    "%s%n",
    "x" * 5000,
]


@pytest.mark.parametrize("hostile", HOSTILE, ids=repr)
@pytest.mark.parametrize("place", ["helo", "reason", "rule"])
def test_text_from_strangers_is_printable_and_bounded(hostile: str, place: str) -> None:
    facts = replace(FACTS, helo=hostile if place == "helo" else "h")
    outcome = MethodOutcome("fail", hostile if place == "reason" else "why")
    if place == "rule":
        facts = replace(facts, mail_from=SenderFacts(address=hostile))
        reply = ReplyTexts().of_rule(R, "550 5.7.1 no {sender}", "", facts)
    else:
        reply = ReplyTexts().of_methods(R, [("spf.helo", outcome)], facts)
    for line in reply.lines:
        assert line.isascii()
        assert line.isprintable()
        assert len(line) <= MAX_LINE_LENGTH
    assert hostile not in ("{reason}", "%s%n") or hostile in reply.lines[0], "a value is not a template"


def test_an_explanation_is_marked_as_the_senders() -> None:
    """RFC 7208, 6.2."""
    reply = ReplyTexts().of_methods(R, [("spf.mailfrom", MethodOutcome("fail_all", "why"))], FACTS)
    assert reply.lines == ("SPF of MAIL FROM: why", "sender.example explains: see http://why.example/")


NO_EXPLANATION = [
    pytest.param(ReplyTexts(explain=False), "spf.mailfrom", "fail", id="switched off"),
    pytest.param(ReplyTexts(), "spf.mailfrom", "softfail", id="no explanation for softfail"),
    pytest.param(ReplyTexts(), "dmarc", "reject", id="no explanation for DMARC"),
    pytest.param(ReplyTexts(generic=True), "spf.mailfrom", "fail", id="no explanation in generic replies"),
]


@pytest.mark.parametrize(("replies", "method", "key"), NO_EXPLANATION)
def test_only_spf_fail_has_an_explanation(replies: ReplyTexts, method: str, key: str) -> None:
    assert len(replies.of_methods(R, [(method, MethodOutcome(key, "why"))], FACTS).lines) == 1


def test_both_identities_may_explain() -> None:
    deciding = [("spf.helo", MethodOutcome("fail", "one")), ("spf.mailfrom", MethodOutcome("fail", "two"))]
    reply = ReplyTexts().of_methods(R, deciding, FACTS)
    assert reply.lines[1:] == (
        "helo.example explains: no such host",
        "sender.example explains: see http://why.example/",
    )


def test_a_hostile_explanation_is_harmless() -> None:
    spf = SpfIdentityFacts("fail", "s.example", explanation="x\r\n250 OK " + "y" * 1000)
    facts = replace(FACTS, spf=SpfFacts(mailfrom=spf))
    reply = ReplyTexts().of_methods(R, [("spf.mailfrom", MethodOutcome("fail", "why"))], facts)
    assert reply.lines[1].startswith("s.example explains: x??250 OK y")
    assert len(reply.lines[1]) == MAX_LINE_LENGTH


@pytest.mark.parametrize(
    "deciding", [[("dmarc", MethodOutcome("reject", "secret"))], [("iprev", MethodOutcome("fail", "secret"))] * 2]
)
def test_generic_replies_disclose_nothing(deciding: list[tuple[str, MethodOutcome]]) -> None:
    assert str(ReplyTexts(generic=True).of_methods(R, deciding, FACTS)) == "550 5.7.1 Refused by local policy"
    assert str(ReplyTexts(generic=True).of_methods(T, deciding, FACTS)) == "451 4.7.1 Refused by local policy"


def test_the_operator_may_replace_the_generic_text() -> None:
    replies = ReplyTexts({"generic": "ask postmaster about {address} {reason}"}, generic=True)
    reply = replies.of_methods(R, [("dmarc", MethodOutcome("reject", "secret"))], FACTS)
    assert reply.lines == ("ask postmaster about 192.0.2.1 ",)
    assert replies.of_rule(R, "554 5.7.0 secret", "secret", FACTS) == Reply(554, "5.7.0", reply.lines)


RULES = [
    ("", R, "550 5.7.1 Refused by local policy: the reason"),
    ("", T, "451 4.7.1 Refused by local policy: the reason"),
    ("go away", R, "550 5.7.1 go away"),
    ("554 go away", R, "554 5.7.1 go away"),
    ("554", R, "554 5.7.1 Refused by local policy: the reason"),
    ("554 5.3.4", R, "554 5.3.4 Refused by local policy: the reason"),
    ("550 5.7.1 no mail from {helo}: {reason}", R, "550 5.7.1 no mail from helo.example: the reason"),
    ("5.7.0 no", R, "550 5.7.0 no"),
    ("421 4.7.0 slow down", T, "421 4.7.0 slow down"),
    ("1.2.3.4 is blocked", R, "550 5.7.1 1.2.3.4 is blocked"),
    ("5..7 odd", R, "550 5.7.1 5..7 odd"),
    ("55 is a number", R, "550 5.7.1 55 is a number"),
    ("५५० digits of another script", R, "550 5.7.1 ??? digits of another script"),
]


@pytest.mark.parametrize(("text", "action", "reply"), RULES)
def test_a_rules_reply(text: str, action: Action, reply: str) -> None:
    assert str(ReplyTexts().of_rule(action, text, "the reason", FACTS)) == reply


def test_a_rule_without_a_reason_gives_none() -> None:
    assert str(ReplyTexts().of_rule(R, "", "", FACTS)) == "550 5.7.1 Refused by local policy"
    assert str(ReplyTexts({"rule": "no, {helo}"}).of_rule(R, "", "", FACTS)) == "550 5.7.1 no, helo.example"


WRONG_CODES = [
    ("451 later", R, "write a code that begins with 5"),
    ("550 never", T, "write a code that begins with 4"),
    ("250 fine", R, "write a code that begins with 5"),
    ("550 4.7.1 later", R, "write an enhanced status code that begins with 5"),
    ("451 5.7.1 never", T, "write an enhanced status code that begins with 4"),
    ("2.0.0 fine", R, "write an enhanced status code that begins with 5"),
]


@pytest.mark.parametrize(("text", "action", "message"), WRONG_CODES)
def test_a_code_that_does_not_fit_the_action_is_an_error(text: str, action: Action, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        split_reply(text, action)


GOOD_TEXTS = ["rule", "generic", *OUTCOMES, *(f"{method}.{key}" for method, keys in OUTCOMES.items() for key in keys)]


@pytest.mark.parametrize("key", GOOD_TEXTS)
def test_a_text_for_every_method_and_outcome(key: str) -> None:
    check_reply(key, "{address} {{}} {reason}")


BAD_TEXTS = [
    ("spf", "x", "is not one of the methods: iprev, spf.helo"),
    ("dmarcc", "x", "is not one of the methods:"),
    ("rule.x", "x", "is not one of the methods:"),
    ("dmarc.fail", "x", "outcomes of dmarc: none, quarantine"),
    ("spf.mailfrom.failed", "x", "outcomes of spf.mailfrom:"),
    ("dmarc", "{from}", "is not one of the fields {address}"),
    ("dmarc", "{}", "is not one of the fields"),
    ("dmarc", "{reason!r}", "is not one of the fields"),
    ("dmarc", "{reason:>9}", "is not one of the fields"),
    ("dmarc", "{reason.x}", "is not one of the fields"),
    ("dmarc", "{reason[0]}", "is not one of the fields"),
    ("dmarc", "{reason", "has an unbalanced brace"),
    ("dmarc", "reason}", "has an unbalanced brace"),
]


@pytest.mark.parametrize(("key", "text", "message"), BAD_TEXTS)
def test_an_unusable_text_is_an_error(key: str, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_reply(key, text)
