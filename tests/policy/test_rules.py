# SPDX-License-Identifier: GPL-3.0-or-later
"""The operator's rules: what they may say, what is refused at start, and what they see of a message."""

from __future__ import annotations

from typing import Any

import pytest

from assay.policy import SCHEMA, Action, Edits, Rule, RuleError, Stage, compile_rule
from assay.policy.facts import KNOWN_FROM
from assay.policy.names import BUILT_IN, FUNCTIONS, MACROS
from assay.policy.rules import Reading, below, inside, listed
from factual import facts_of

LISTS = {"partners": frozenset(("partner.example", "joe@friend.example"))}
FACTS = facts_of(
    client={"address": "192.0.2.1", "name": "mail.sender.example", "daemon": "smtpd"},
    helo="helo.example",
    mail_from={"address": "joe@sender.example", "local_part": "joe", "domain": "sender.example", "authenticated": ""},
    rcpt=["ann@example.net", "bob@example.net"],
    iprev={"result": "pass", "names": ["mail.sender.example"]},
    spf={"helo": {"result": "none"}, "mailfrom": {"result": "softfail", "by_all": True, "mechanism": "~all"}},
    dkim=[
        {"result": "pass", "domain": "author.example", "aligned": True, "fields": ["from", "subject"]},
        {"result": "fail", "domain": "list.example"},
    ],
    arc={"result": "pass", "sealers": ["list.example"]},
    dmarc={"result": "fail", "policy": "reject", "disposition": "quarantine"},
    list={"id": "<l.example>"},
    header={"x-spam": ["yes", "no"], "x-none": []},
    **{"from": {"domain": "author.example", "address": "a@author.example"}},
)


def rule(when: str, stage: Stage = Stage.EOM, **more: Any) -> Rule:
    return compile_rule(Rule(**({"name": "r", "stage": stage, "when": when, "action": Action.REJECT} | more)), LISTS)


def matches(when: str, facts: dict[str, Any] = FACTS) -> bool:
    return Reading(facts, LISTS).matches(rule(when))


def leaves(schema: Any, path: str = "") -> list[tuple[str, Any]]:
    """Every fact as a path to write, with its type; inside a list, as seen by a macro."""
    if isinstance(schema, dict):
        return [leaf for name, kind in schema.items() for leaf in leaves(kind, f"{path}.{name}".lstrip("."))]
    if isinstance(schema, list) and isinstance(schema[0], dict):
        return [(f"{path} each {name}", kind) for name, kind in leaves(schema[0])]
    return [(path, schema)]


LEAVES = [leaf for leaf in leaves(SCHEMA) if not leaf[0].startswith("header")]


@pytest.mark.parametrize(("path", "kind"), LEAVES, ids=[path for path, _ in LEAVES])
def test_every_fact_can_be_asked_for(path: str, kind: Any) -> None:
    tree, _, member = path.partition(" each ")
    if member and isinstance(kind, list):
        when = f'{tree}.all(one, !one.{member}.exists(text, text == "x"))'
    elif member:
        when = f"{tree}.all(one, !one.{member})" if kind is bool else f'{tree}.all(one, one.{member} == "")'
    elif isinstance(kind, list):
        when = f'{path}.size() == 0 && !("x" in {path})'
    else:
        when = f"!{path}" if kind is bool else f'{path} == ""'
    assert matches(when, facts_of(dkim=[{}]))


TRUE = [
    'inside(client.address, "192.0.2.0/24")',
    'inside(client.address, "10.0.0.0/8, 192.0.2.77/24")',
    '!inside(client.address, "2001:db8::/32")',
    '!inside("", "0.0.0.0/0")',
    'below(from.domain, "example")',
    "below(client.name, mail_from.domain)",
    '!below(mail_from.domain, "author.example")',
    'listed("partner.example", "partners")',
    '!listed(mail_from.domain, "partners")',
    'rcpt.all(one, !listed(one, "partners"))',
    'header("X-Spam") == "yes"',
    'header("x-spam").startsWith("y")',
    'header("X-None") == ""',
    'spf.mailfrom.result in ["fail", "softfail"]',
    'spf["mailfrom"].result == "softfail"',
    "spf.mailfrom.by_all && !spf.helo.by_all",
    'dkim.exists(one, one.aligned && one.result == "pass")',
    'dkim.exists_one(one, one.result == "fail")',
    '!dkim.all(one, one.result == "pass")',
    "dkim.filter(one, one.aligned).size() == 1",
    "dkim.filter(one, one.aligned).exists(two, two.domain == from.domain)",
    'dkim.map(one, one.domain).exists(domain, domain == "list.example")',
    'dkim.exists(one, one.fields.exists(name, name == "subject"))',
    'size(dkim) > 0 && dkim[0].domain == "author.example"',
    '["helo.example", "x"].exists(name, name == helo)',
    '"bob@example.net" in rcpt',
    "size(rcpt) == 2 && rcpt.size() < 3u + 1u || true",
    "has(client.address)",
    'mail_from.address.matches("^joe@[a-z.]+$")',
    "mail_from.address.matches(r'^joe@[a-z.]+$')",
    'helo.contains(".") && helo.endsWith("example")',
    'helo == """helo.example"""',
    'helo == "helo.example" // from.domian is misspelt only here',
    "size(helo) == 0x0c && 1e1 == 10.0 && string(5) == '5'",
    'int("1") + int(1.5) == 2 && double(1) < 1.5 && uint(1) == 1u && bytes("a") == b"a" && dyn(1) == 1',
    'type(helo) == string && timestamp("2026-01-01T00:00:00Z") > timestamp("2025-01-01T00:00:00Z")',
    'duration("1h") > duration("1m")',
    'dmarc.result == "fail" ? dmarc.policy == "reject" : false',
    'list.id == "<l.example>" && arc.sealers.exists(one, one == "list.example")',
]


@pytest.mark.parametrize("when", TRUE)
def test_what_a_rule_may_say(when: str) -> None:
    assert matches(when)
    assert not matches(f"!({when.partition(' //')[0]})")


def test_the_table_above_has_every_function() -> None:
    said = " ".join(TRUE)
    assert not [name for name in (*FUNCTIONS, *BUILT_IN, *MACROS) if f"{name}(" not in said]


UNKNOWN = [
    ("heloo == ''", "unknown fact heloo; did you mean helo?"),
    ("spf.mailfrm.result == ''", "unknown fact spf.mailfrm; did you mean mailfrom?"),
    ("spf.mailfrom.reslut == ''", "unknown fact spf.mailfrom.reslut; did you mean result?"),
    ('spf["mailfrm"].result == ""', "unknown fact spf.mailfrm; did you mean mailfrom?"),
    ("helo.name == ''", "unknown fact helo.name"),
    ("dkim.exists(one, one.domian == '')", "unknown fact one.domian; did you mean domain?"),
    ("dkim.exists(one, one.fields.exists(name, nam == ''))", "unknown fact nam; did you mean name?"),
    ("dkim.filter(one, one.aligned).all(two, two.resutl == '')", "unknown fact two.resutl; did you mean result?"),
    ("dkim.exists(one, true) && one.result == ''", "unknown fact one"),
    ("size(dkim) > 0 && dkim[0].domian == ''", r"unknown fact dkim\[\].domian; did you mean domain?"),
    ("false && heloo == ''", "unknown fact heloo"),
    ("dkim.domain == ''", "dkim is a list: write dkim.exists"),
    ("helo.endWith('')", "unknown function endWith; did you mean endsWith?"),
    ("bellow(helo, '')", "unknown function bellow; did you mean below?"),
    ("listed(helo, 'partner')", "unknown list 'partner'; did you mean partners?"),
    ("listed(header('X'), \"friends\")", "unknown list 'friends'; known are partners"),
    ("header.x == ''", "header is a function: write header"),
    ("helo.listed('partners')", "listed does not follow a dot"),
    ("exists(one, true)", "exists needs something before it"),
]
UNUSABLE = [
    ("helo", "must be a condition, true or false; this is str"),
    ("size(rcpt)", "must be a condition"),
    ("dkim.map(one, one.aligned)", "must be a condition"),
    ("helo ==", "is no CEL expression"),
    ("(helo == ''", "is no CEL expression"),
    ("", "is no CEL expression"),
    ("helo == 'a", "is no CEL expression"),
    ("helo == 5", "helo == 5: compare it with a text in quotes"),
    ("helo == true", "helo == true: compare it with a text in quotes"),
    ("dmarc.spf_aligned == 'true'", "dmarc.spf_aligned == 'true': compare it with true or false"),
    ("dkim.exists(one, one.aligned != 1)", "one.aligned != 1: compare it with true or false"),
    ("header('X') == 5", "what header gives == 5: compare it with a text"),
    ("helo < 5", "No such overload"),
    ("size(dkim) + helo == from.domain", "(No such overload|Unsupported operation)"),
    ("dkim[0].domain == ''", "a list may be empty: ask for its size"),
    ("helo.matches('(')", "not a valid regex"),
    ("inside(client.address, '192.0.2.0/33')", "'192.0.2.0/33' is no IP address and no network"),
    ("helo != '' && inside(client.address, 'localhost')", "'localhost' is no IP address"),
    ("inside(client.address, helo)", "the last argument of inside must be a plain text in quotes, not helo"),
    ("header(helo) == ''", "the last argument of header must be a plain text"),
    ("header('a' + 'b') == ''", "the last argument of header must be a plain text"),
    ("listed(helo, 'part' + 'ners')", "the last argument of listed must be a plain text"),
    ("below(helo)", "below takes 2 arguments, not 1"),
    ("header() == ''", "header takes 1 arguments, not 0"),
]


@pytest.mark.parametrize(("when", "message"), [*UNKNOWN, *UNUSABLE])
def test_what_a_rule_may_not_say_is_told_at_start(when: str, message: str) -> None:
    with pytest.raises(RuleError, match=message) as error:
        rule(when)
    assert "\n" not in str(error.value)


EARLY = [
    (Stage.CONNECT, 'client.name == "" && iprev.result == "pass"', ""),
    (Stage.CONNECT, 'helo == ""', "helo is not known at stage connect, only from helo on"),
    (Stage.CONNECT, "has(spf.helo.result)", "spf.helo is not known at stage connect, only from helo on"),
    (Stage.HELO, 'helo == "" && spf.helo.result == ""', ""),
    (Stage.HELO, 'spf.mailfrom.result == ""', "spf.mailfrom is not known at stage helo, only from mail on"),
    (Stage.HELO, 'spf["mailfrom"].result == ""', "spf.mailfrom is not known at stage helo"),
    (Stage.HELO, "size(spf) == 2", "spf is not known at stage helo, only from mail on"),
    (Stage.HELO, 'mail_from.domain == ""', "mail_from is not known at stage helo, only from mail on"),
    (Stage.MAIL, 'mail_from.domain == "" && spf.mailfrom.result == ""', ""),
    (Stage.MAIL, 'rcpt.exists(one, one == "")', "rcpt is not known at stage mail, only from rcpt on"),
    (Stage.RCPT, 'rcpt.exists(one, one == "")', ""),
    (Stage.RCPT, 'dkim.exists(one, one.result == "")', "dkim is not known at stage rcpt, only from eom on"),
    (Stage.RCPT, 'size(dkim) == 1 && dkim[0].result == ""', "dkim is not known at stage rcpt"),
    (Stage.RCPT, 'rcpt.exists(one, from.domain == "")', "from is not known at stage rcpt"),
    (Stage.RCPT, 'header("X") == ""', "header is not known at stage rcpt, only from eom on"),
    (Stage.RCPT, 'list.id == ""', "list is not known at stage rcpt"),
    (Stage.RCPT, 'arc.result == "" || senderid.result == ""', "arc is not known"),
]


@pytest.mark.parametrize(("stage", "when", "message"), EARLY)
def test_a_stage_knows_only_what_has_come(stage: Stage, when: str, message: str) -> None:
    action = {"action": Action.TEMPFAIL}
    if not message:
        assert rule(when, stage, **action).program is not None
        return
    with pytest.raises(RuleError, match=message):
        rule(when, stage, **action)


@pytest.mark.parametrize("fact", sorted(KNOWN_FROM))
def test_each_fact_is_refused_just_before_it_is_known(fact: str) -> None:
    when = 'header("x") == ""' if fact == "header" else f"type({fact}) == type({fact})"
    known = KNOWN_FROM[fact]
    rule(when, known, action=Action.REJECT)
    for stage in Stage:
        if stage.rank < known.rank:
            with pytest.raises(RuleError, match=f"{fact} is not known at stage {stage}, only from {known} on"):
                rule(when, stage)


FRUITLESS = [
    (Stage.EOM, {"action": None}, "has neither an action nor a change to make"),
    (Stage.MAIL, {"action": Action.QUARANTINE}, "quarantine needs the whole message"),
    (Stage.RCPT, {"action": Action.TAG}, "tag needs the whole message"),
    (Stage.CONNECT, {"action": Action.DISCARD}, "discard needs the whole message"),
    (Stage.MAIL, {"edits": Edits(subject_tag="x")}, "a message can only be changed at stage eom"),
]


@pytest.mark.parametrize(("stage", "more", "message"), FRUITLESS)
def test_a_rule_that_could_never_do_anything_is_an_error(stage: Stage, more: dict[str, Any], message: str) -> None:
    with pytest.raises(RuleError, match=message):
        rule("true", stage, **more)


def test_a_rule_knows_which_facts_and_fields_it_asks_for() -> None:
    made = rule("""helo == "" && dkim.exists(one, one.domain == from.domain) || header("X-A") == header('x-b')""")
    assert made.facts == {"helo", "dkim", "from"}
    assert made.header_names == {"x-a", "x-b"}


RUNTIME = [
    ("size(rcpt) < 3 ? true : rcpt[7] == ''", facts_of(rcpt=["a"] * 3), "index out of bounds"),
    ("helo == '' || int(helo) > 1", facts_of(helo="x"), "int"),
]


@pytest.mark.parametrize(("when", "facts", "message"), RUNTIME)
def test_what_cannot_be_evaluated_on_a_message_says_so(when: str, facts: dict[str, Any], message: str) -> None:
    with pytest.raises(RuleError, match=f"rule 'r' cannot be evaluated: .*{message}"):
        Reading(facts, LISTS).matches(rule(when))


def test_octets_that_are_no_utf_8_can_be_judged() -> None:
    assert matches('helo.startsWith("caf") && mail_from.domain == ""', facts_of(helo="caf\udce9"))
    assert matches('rcpt.exists(one, one.endsWith("@x"))', facts_of(rcpt=["\udcff@x"]))


def test_a_costly_pattern_is_none() -> None:
    """The library's expressions take linear time; the RFCs bound the text."""
    assert not matches('helo.matches("^(a+)+$")', facts_of(helo="a" * 5000 + "b"))


INSIDE = [
    ("192.0.2.1", "192.0.2.1", True),
    ("192.0.2.1", "192.0.2.99/24", True),
    ("192.0.2.1", "10.0.0.0/8,192.0.2.0/31", True),
    ("192.0.2.1", "::ffff:192.0.2.0/120", True),
    ("::ffff:192.0.2.1", "192.0.2.0/24", True),
    ("2001:db8::1", "2001:db8::/32", True),
    ("2001:db8::1", "192.0.2.0/24", False),
    ("192.0.2.1", "", False),
    ("", "0.0.0.0/0", False),
    ("nobody", "0.0.0.0/0", False),
]
BELOW = [
    ("a.example", "a.example", True),
    ("x.y.a.example", "a.example", True),
    ("A.Example.", "a.EXAMPLE", True),
    ("x.a.example", ".a.example", True),
    ("xa.example", "a.example", False),
    ("example", "a.example", False),
    ("", "a.example", False),
    ("a.example", "", False),
]
LISTED = [
    ("partner.example", True),
    ("Mail.Partner.Example", True),
    ("anybody@partner.example", True),
    ("joe@friend.example", True),
    ("JOE@friend.example", True),
    ("ann@friend.example", False),
    ("friend.example", False),
    ("notpartner.example", False),
    ("", False),
    ("@", False),
]


@pytest.mark.parametrize(("address", "networks", "expected"), INSIDE)
def test_inside(address: str, networks: str, expected: bool) -> None:
    assert inside(address, networks) is expected


@pytest.mark.parametrize(("domain", "other", "expected"), BELOW)
def test_below(domain: str, other: str, expected: bool) -> None:
    assert below(domain, other) is expected


@pytest.mark.parametrize(("text", "expected"), LISTED)
def test_listed(text: str, expected: bool) -> None:
    assert listed(text, LISTS["partners"]) is expected
