# SPDX-License-Identifier: GPL-3.0-or-later
"""The operator's rules: what is valid, what is rejected at startup, and which facts of a message they see."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from assay.policy import Action, Edits, Facts, Rule, RuleError, Stage, compile_rule
from assay.policy.addresses import Entries
from assay.policy.rule_names import BUILT_IN, FUNCTIONS, MACROS, merge
from assay.policy.rules import Reading, below, inside
from assay.policy.vocabulary import element, is_tree, members
from factual import facts_of

LISTS = {"partners": Entries.parse(("partner.example", "joe@friend.example"))}
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


def read(when: str, facts: Facts = FACTS) -> bool:
    made = rule(when)
    return Reading(facts, LISTS, made.view).matches(made)


def leaves(kind: Any, path: str = "") -> list[tuple[str, Any]]:
    """Every fact as a path with its type; inside a list, as seen by a macro."""
    if is_tree(kind):
        return [
            leaf for name, fact in members(kind).items() for leaf in leaves(fact.kind, f"{path}.{name}".lstrip("."))
        ]
    if is_tree(element(kind)):
        return [(f"{path} each {name}", kind) for name, kind in leaves(element(kind))]
    return [(path, kind)]


LEAVES = [leaf for leaf in leaves(Facts) if leaf[0] != "header"]


@pytest.mark.parametrize(("path", "kind"), LEAVES, ids=[path for path, _ in LEAVES])
def test_every_fact_can_be_used(path: str, kind: Any) -> None:
    tree, _, member = path.partition(" each ")
    if member and element(kind) is not None:
        when = f'{tree}.all(one, !one.{member}.exists(text, text == "x"))'
    elif member:
        when = f"{tree}.all(one, !one.{member})" if kind is bool else f'{tree}.all(one, one.{member} == "")'
    elif element(kind) is not None:
        when = f'{path}.size() == 0 && !("x" in {path})'
    else:
        when = f"!{path}" if kind is bool else f'{path} == ""'
    assert read(when, facts_of(dkim=[{}]))


TRUE = [
    'inside(client.address, "192.0.2.0/24")',
    'inside(client.address, "10.0.0.0/8, 192.0.2.0/24")',
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
    'headers("X-Spam").exists(one, one == "no") && headers("X-None").size() == 0 && size(headers("X-Other")) == 0',
    'header_count("x-spam") == 2 && header_count("X-None") < 1 && header_count("X-Other") == 0',
    "dkim.exists(one, [one].exists(two, two.fields.size() == 2 && two.domain == from.domain))",
    'dkim.map(one, one)[0].domain == "author.example" && size(dkim.filter(one, one.aligned)) == 1',
    'spf["helo"] != spf["mailfrom"] && size(spf.helo) == 9',
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
def test_a_valid_rule(when: str) -> None:
    assert read(when)
    assert not read(f"!({when.partition(' //')[0]})")


def test_the_table_of_valid_rules_has_every_function() -> None:
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
    ("headers('X').exists(one, on == '')", "unknown fact on; did you mean one?"),
    ("headers('X')[0].domain == ''", r"unknown fact headers\(\.\.\.\)"),
    ("headers('X').domain == ''", r"headers\(\.\.\.\) is a list"),
    ("header_counts('X') == 1", "unknown function header_counts; did you mean header_count?"),
    ("helo.listed('partners')", "listed does not follow a dot"),
    ("exists(one, true)", "exists needs something before it"),
]
UNUSABLE = [
    ("helo", "not a condition: it gives str, not true or false"),
    ("size(rcpt)", "is not a condition"),
    ("dkim.map(one, one.aligned)", "is not a condition"),
    ("helo ==", "not a valid CEL expression"),
    ("(helo == ''", "not a valid CEL expression"),
    ("", "not a valid CEL expression"),
    ("helo == 'a", "not a valid CEL expression"),
    ("helo == 5", "helo == 5: compare it with a text in quotes"),
    ("helo == true", "helo == true: compare it with a text in quotes"),
    ("dmarc.spf_aligned == 'true'", "dmarc.spf_aligned == 'true': compare it with true or false"),
    ("dkim.exists(one, one.aligned != 1)", "one.aligned != 1: compare it with true or false"),
    ("header('X') == 5", r"header\(\.\.\.\) == 5: compare it with a text"),
    ("header_count('X') == '2'", r"header_count\(\.\.\.\) == '2': compare it with a number"),
    ("header_count('X') != true", "compare it with a number"),
    ("headers('X').exists(one, one == 1)", "one == 1: compare it with a text"),
    ("helo.matches(mail_from.domain)", "the last argument of matches must be a plain text in quotes, not domain"),
    ("helo.matches(header('X'))", "the last argument of matches must be a plain text"),
    ("headers(helo).size() == 0", "the last argument of headers must be a plain text"),
    ("helo < 5", "No such overload"),
    ("size(dkim) + helo == from.domain", "(No such overload|Unsupported operation)"),
    ("dkim[0].domain == ''", "a list may be empty, so check its size"),
    ("helo.matches('(')", "not a valid regex"),
    ("inside(client.address, '192.0.2.0/33')", "'192.0.2.0/33' is not an IP address or a network"),
    ("helo != '' && inside(client.address, 'localhost')", "'localhost' is not an IP address"),
    ("inside(client.address, helo)", "the last argument of inside must be a plain text in quotes, not helo"),
    ("header(helo) == ''", "the last argument of header must be a plain text"),
    ("header('a' + 'b') == ''", "the last argument of header must be a plain text"),
    ("listed(helo, 'part' + 'ners')", "the last argument of listed must be a plain text"),
    ("below(helo)", "below takes 2 arguments, not 1"),
    ("header() == ''", "header takes 1 argument, not 0"),
]


@pytest.mark.parametrize(("when", "message"), [*UNKNOWN, *UNUSABLE])
def test_an_invalid_rule_is_rejected_at_startup(when: str, message: str) -> None:
    with pytest.raises(RuleError, match=message) as error:
        rule(when)
    assert "\n" not in str(error.value)


SPELLINGS = [
    ("rcpt.exists(one, one == 'Ann@example.net')", "one is never 'Ann@example.net': write 'ann@example.net'"),
    ("mail_from.address == '\"joe\"@EXAMPLE.org.'", "write 'joe@example.org'"),
    ("mail_from.address in ['a@b.example', 'joe@bücher.example']", "write 'joe@xn--bcher-kva.example'"),
    ("from.domain == 'Example.org'", "from.domain is never 'Example.org': write 'example.org'"),
    ("dkim.exists(one, one.domain != 'example.org.')", "write 'example.org'"),
    ("spf.mailfrom.domain in ['bücher.example']", "write 'xn--bcher-kva.example'"),
    ("arc.sealers.exists(one, one == 'A.example')", "write 'a.example'"),
    ("from.domains.exists(one, one == 'A.example')", "write 'a.example'"),
    ("below(from.domain, '@example.org')", "below: '@example.org' is not a domain"),
    ("below(from.domain, 'a b')", "below: 'a b' is not a domain"),
]


@pytest.mark.parametrize(("when", "message"), SPELLINGS)
def test_comparison_with_a_text_that_no_fact_can_equal_is_an_error(when: str, message: str) -> None:
    with pytest.raises(RuleError, match=message):
        rule(when)


def test_case_sensitive_local_parts_may_be_in_upper_case() -> None:
    made = Rule("r", Stage.EOM, "mail_from.address == 'Joe@example.org'", Action.REJECT)
    assert compile_rule(made, {}, exact=True).program is not None
    with pytest.raises(RuleError, match=r"write 'joe@example\.org'"):
        compile_rule(made, {})


PLACES = [
    ("heloo == ''", 1, 1),
    ("helo == '' &&\n  from.domian == ''", 2, 8),
    ("helo == '' || // from.domian\n bellow(helo, '')", 2, 2),
    ("helo == ''\n || (helo", 2, 10),
    ("helo == 'a", 1, 9),
    ("listed(helo, 'x')", 1, 14),
    ("dkim.exists(one, one.result == 'pass' && one.rezult == '')", 1, 46),
    ("inside(client.address, '1.2.3.4/33')", 1, 24),
]


@pytest.mark.parametrize(("when", "line", "column"), PLACES)
def test_an_error_names_line_and_column(when: str, line: int, column: int) -> None:
    with pytest.raises(RuleError, match=f"^when: line {line}, column {column}: "):
        rule(when)


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
def test_a_stage_knows_only_earlier_facts(stage: Stage, when: str, message: str) -> None:
    action = {"action": Action.TEMPFAIL}
    if not message:
        assert rule(when, stage, **action).program is not None
        return
    with pytest.raises(RuleError, match=message):
        rule(when, stage, **action)


KNOWN = {name: fact.stage for name, fact in members(Facts).items()} | {
    f"spf.{name}": fact.stage for name, fact in members(members(Facts)["spf"].kind).items()
}


@pytest.mark.parametrize("fact", sorted(KNOWN))
def test_each_fact_is_rejected_at_the_stage_before_its_first(fact: str) -> None:
    when = 'header("x") == ""' if fact == "header" else f"type({fact}) == type({fact})"
    known = KNOWN[fact]
    assert known is not None
    rule(when, known, action=Action.REJECT)
    for stage in Stage:
        if stage.rank < known.rank:
            with pytest.raises(RuleError, match=f"{fact} is not known at stage {stage}, only from {known} on"):
                rule(when, stage)


FRUITLESS = [
    (Stage.EOM, {"action": None}, "action: missing; write an action"),
    (Stage.MAIL, {"action": Action.QUARANTINE}, "is too early for quarantine"),
    (Stage.RCPT, {"action": Action.TAG}, "is too early for tag"),
    (Stage.CONNECT, {"action": Action.DISCARD}, "is too early for discard"),
    (Stage.MAIL, {"edits": Edits(subject_tag="x")}, "is too early to change a message"),
]


@pytest.mark.parametrize(("stage", "more", "message"), FRUITLESS)
def test_a_rule_without_effect_is_an_error(stage: Stage, more: dict[str, Any], message: str) -> None:
    with pytest.raises(RuleError, match=message):
        rule("true", stage, **more)


VIEWS = [
    ("true", {}),
    ('helo == ""', {"helo": None}),
    ('spf.mailfrom.result == "" || spf.helo.by_all', {"spf": {"mailfrom": {"result": None}, "helo": {"by_all": None}}}),
    ('spf["helo"].result == ""', {"spf": {"helo": {"result": None}}}),
    ("has(spf.helo) && spf.helo.by_all", {"spf": {"helo": None}}),
    ("dkim.exists(one, one.domain == from.domain)", {"dkim": {"domain": None}, "from": {"domain": None}}),
    ("dkim.filter(one, one.aligned).all(two, size(two.fields) > 0)", {"dkim": {"aligned": None, "fields": None}}),
    ("dkim.exists(one, true)", {"dkim": {}}),
    ("size(dkim) > 1 || dkim.exists(one, one.aligned)", {"dkim": None}),
    ("dkim.map(one, one).exists(two, two.aligned)", {"dkim": None}),
    ('size(dkim) > 0 && dkim[0].domain == ""', {"dkim": None}),
    ('rcpt.exists(one, one == "")', {"rcpt": None}),
    ("rcpt.exists(one, true) && iprev.names.all(one, true)", {"rcpt": None, "iprev": {"names": None}}),
]


@pytest.mark.parametrize(("when", "view"), VIEWS)
def test_a_rule_knows_which_facts_it_reads(when: str, view: dict[str, Any]) -> None:
    assert rule(when).view == view


def test_rules_that_read_parts_of_one_fact_see_both() -> None:
    rules = [rule('spf.helo.result == "none"'), rule("spf.mailfrom.by_all"), rule("size(spf.helo) == 9")]
    for some in (rules[:2], rules):
        reading = Reading(FACTS, LISTS, merge([one.view for one in some]))
        assert all(reading.matches(one) for one in some)


def test_a_rule_knows_which_fields_it_reads() -> None:
    made = rule("""header("X-A") == header('x-b') || headers("X-C").size() == header_count("X-D")""")
    assert made.header_names == {"x-a", "x-b", "x-c", "x-d"}


RUNTIME = [
    ("size(rcpt) < 3 ? true : rcpt[7] == ''", facts_of(rcpt=["a"] * 3), "index out of bounds"),
    ("helo == '' || int(helo) > 1", facts_of(helo="x"), "int"),
]


@pytest.mark.parametrize(("when", "facts", "message"), RUNTIME)
def test_an_evaluation_error_is_reported(when: str, facts: Facts, message: str) -> None:
    with pytest.raises(RuleError, match=f"rule 'r' cannot be evaluated: .*{message}"):
        read(when, facts)


def test_octets_that_are_not_utf_8_can_be_evaluated() -> None:
    assert read('helo.startsWith("caf") && mail_from.domain == ""', facts_of(helo="caf\udce9"))
    assert read('rcpt.exists(one, one.endsWith("@x"))', facts_of(rcpt=["\udcff@x"]))


def test_a_costly_pattern_takes_linear_time() -> None:
    """The library's expressions take linear time; the RFCs bound the text."""
    assert not read('helo.matches("^(a+)+$")', facts_of(helo="a" * 5000 + "b"))


def test_the_library_is_imported_without_its_command_line() -> None:
    """Its package imports command-line toolkits, which take 30 MiB of each worker."""
    code = (
        "import sys; from assay.policy import *; compile_rule(Rule('r', Stage.EOM, 'true', Action.REJECT), {});"
        "sys.exit(' '.join(one for one in ('cel', 'typer', 'rich', 'pygments') if one in sys.modules) or 0)"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")


INSIDE = [
    ("192.0.2.1", "192.0.2.1", True),
    ("192.0.2.1", "10.0.0.0/8,192.0.2.0/31", True),
    ("192.0.2.1", "::ffff:192.0.2.0/120", True),
    ("192.0.2.1", "::ffff:0:0/96", True),
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
    ("x.bücher.example", "xn--bcher-kva.example", True),
    ("xn--bcher-kva.example", "BÜCHER.example.", True),
    ("b\udcfccher.example", "xn--bcher-kva.example", False),
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
    assert LISTS["partners"].hold(text) is expected
