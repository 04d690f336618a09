# SPDX-License-Identifier: GPL-3.0-or-later
"""What must hold for every input: nothing raises, nothing is unbounded, and asking ahead changes no result."""

from __future__ import annotations

from ipaddress import ip_address
from random import Random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from assay.inquiry import Answer, Inquiry, Outcome, Question
from assay.model.name import ReversePath
from assay.protocol import spf
from assay.protocol.spf import macro
from assay.protocol.spf.check import MAX_EXPLANATION
from zone import Zone

#: The number of questions that RFC 7208, 4.6.4 allows at most, in order: the record, ten terms with ten names each
#: behind them, the reverse lookup with its ten names, and the explanation.
MAX_QUESTIONS = 1 + 10 * 11 + 11 + 1

DOMAINS = ["a.example", "b.example", "c.example", "d.a.example", "e.example"]
CLIENTS = ["192.0.2.1", "2001:db8::1", "::ffff:192.0.2.1"]

targets = st.sampled_from(
    [*DOMAINS, "%{d}", "%{l}.%{d}", "%{ir}.%{v}.example", "%{p}", "x.%{p2}", "%{h}", "a..example"]
)
mechanisms = st.one_of(
    st.sampled_from(["a", "mx", "ptr", "a/0", "mx//0", "ip4:192.0.2.0/24", "ip6:2001:db8::/32", "ip4:203.0.113.1"]),
    st.builds("{}:{}".format, st.sampled_from(["a", "mx", "ptr", "exists", "include", "include"]), targets),
)
directives = st.builds("{}{}".format, st.sampled_from(["", "", "-", "~", "?"]), mechanisms)
modifiers = st.builds("{}={}".format, st.sampled_from(["redirect", "exp", "x"]), targets)
records = st.builds(
    "v=spf1 {} {} {}".format,
    st.lists(directives, max_size=6).map(" ".join),
    st.one_of(st.just(""), modifiers, st.text(alphabet=st.characters(max_codepoint=0x17F, codec="utf-8"), max_size=8)),
    st.sampled_from(["", "-all", "~all"]),
)
addresses = st.sampled_from(["192.0.2.1", "192.0.2.77", "203.0.113.1"])
rows = st.one_of(
    st.tuples(st.just("TXT"), st.one_of(records, st.text(max_size=20)).map(lambda text: [text])),
    st.tuples(st.just("A"), addresses),
    st.tuples(st.just("AAAA"), st.sampled_from(["2001:db8::1", "2001:db8::2"])),
    st.tuples(st.just("MX"), st.tuples(st.integers(0, 2), st.sampled_from([*DOMAINS, "."]))),
    st.tuples(st.just("PTR"), st.sampled_from(DOMAINS)),
    st.tuples(st.just("SERVFAIL"), st.sampled_from(["*", "A", "MX", "TXT", "PTR"])),
)
zones = st.dictionaries(
    st.sampled_from([*DOMAINS, "1.2.0.192.in-addr.arpa", "user.a.example", "1.2.0.192.in-addr.example"]),
    st.lists(rows, max_size=4),
    max_size=7,
)
texts = st.text(alphabet=st.characters(codec=None), max_size=40)


@settings(deadline=None)
@given(st.binary())
def test_no_record_makes_the_parser_raise(text: bytes) -> None:
    spf.parse(text)
    spf.parse(b"v=spf1 " + text)
    spf.select([text, b"v=spf1 " + text])


@settings(deadline=None)
@given(st.text())
def test_macros_expand_to_something_or_are_refused(text: str) -> None:
    values = dict.fromkeys("slodipvhcrt", text)
    for explanation in (False, True):
        try:
            string = macro.parse(text, explanation=explanation)
        except macro.MacroError:
            continue
        assert isinstance(macro.expand(string, values), str)


@settings(deadline=None)
@given(st.text(alphabet="%{}slodipvhcrt0129rR-.+,/_=SLOD x", max_size=60), texts)
def test_text_full_of_macros(text: str, value: str) -> None:
    values = dict.fromkeys("slodipvhcrt", value)
    for parse in (macro.parse, macro.parse_domain_spec):
        try:
            string = parse(text)
        except macro.MacroError:
            continue
        assert isinstance(macro.expand(string, values), str)


@settings(max_examples=400, deadline=None)  # a shared machine may pause anywhere
@given(zones, st.sampled_from(CLIENTS), st.sampled_from(["user@a.example", "@b.example", "é@a.example", ""]))
def test_every_zone_ends_in_an_evaluation_and_asking_ahead_changes_nothing(
    rows: dict[str, list[Any]], client: str, sender: str
) -> None:
    def solve(ahead: int) -> tuple[spf.Evaluation, Zone]:
        zone = Zone(rows)
        reverse_path = ReversePath.parse(sender)
        limits = spf.Limits(questions_ahead=ahead)
        request = spf.Request(ip_address(client), "e.example", limits=limits).of_mail_from(reverse_path)
        narrator = spf.Narrator()
        return zone.solve(spf.check(request, narrator)), narrator.steps, zone

    in_order, steps_in_order, asked_in_order = solve(0)
    ahead, steps_ahead, asked_ahead = solve(32)
    # What was asked ahead of a term that is never reached may have had macros.
    assert ahead.uses_macros or not in_order.uses_macros
    assert replace(ahead, uses_macros=in_order.uses_macros) == in_order
    assert steps_ahead == steps_in_order
    request = spf.Request(ip_address(client), "e.example", limits=spf.Limits(questions_ahead=32))
    plain = Zone(rows).solve(spf.check(request.of_mail_from(ReversePath.parse(sender))))
    assert plain == ahead, "narrating changed the evaluation"
    assert set(asked_in_order.asked) <= set(asked_ahead.asked)
    assert len(asked_in_order.asked) <= MAX_QUESTIONS
    assert len(asked_ahead.asked) <= MAX_QUESTIONS + 32
    assert len(asked_ahead.asked) == len(set(asked_ahead.asked)), "a question asked twice"
    assert ahead.reason.isprintable()
    assert ahead.dns_terms <= 11
    assert ahead.void_lookups <= 3


@settings(max_examples=400, deadline=None)
@given(zones, st.sampled_from(CLIENTS), st.sampled_from(["user@a.example", "@b.example", ""]), st.randoms())
def test_in_whatever_order_answers_come_the_evaluation_is_the_same(
    rows: dict[str, list[Any]], client: str, sender: str, draw: Random
) -> None:
    request = spf.Request(ip_address(client), "e.example").of_mail_from(ReversePath.parse(sender))
    zone = Zone(rows)
    piecemeal = zone.solve_piecemeal(spf.check(request), draw)
    whole = Zone(rows).solve(spf.check(request))
    # What was asked ahead differs, and so whether that had macros.
    assert replace(piecemeal, uses_macros=False) == replace(whole, uses_macros=False)
    assert len(zone.asked) <= MAX_QUESTIONS + 32
    assert len(zone.asked) == len(set(zone.asked)), "a question asked twice"


@settings(deadline=None)
@given(texts, texts, texts, st.sampled_from(list(Outcome)))
def test_every_sender_and_helo_ends_in_printable_words(sender: str, helo: str, record: str, outcome: Outcome) -> None:
    def answer(question: Question) -> Answer:
        if question.type == "TXT" and outcome is Outcome.FOUND:
            return Answer(
                outcome, (b"v=spf1 exists:%{s}.%{h} -all exp=%{l}.example " + record.encode(errors="ignore"),)
            )
        return Answer(Outcome.NXDOMAIN if outcome is Outcome.FOUND else outcome)

    def solve(inquiry: Inquiry[spf.Evaluation]) -> spf.Evaluation:
        try:
            batch = next(inquiry)
            while True:
                assert all(question.name.isascii() and question.name.isprintable() for question in batch)
                batch = inquiry.send([answer(question) for question in batch])
        except StopIteration as end:
            value: spf.Evaluation = end.value
            return value

    client = ip_address("192.0.2.1")
    request = spf.Request(client, helo)
    for one in (
        request.of_mail_from(ReversePath.parse(f"{sender}@a.example")),
        request.of_mail_from(ReversePath.parse(sender)),
        request.of_helo(),
        spf.Request(client, helo, sender, f"{sender}@{sender}", default_explanation="%{s} %{h}"),
    ):
        evaluation = solve(spf.check(one))
        for text in (evaluation.reason, evaluation.explanation, evaluation.mechanism):
            assert text.isascii()
            assert text.isprintable()
        assert len(evaluation.explanation) <= MAX_EXPLANATION
        assert len(evaluation.reason) < 400
        value = spf.render(evaluation, client_address=client, helo=helo, envelope_from=sender, receiver="mx.example")
        assert all(line.isprintable() for line in value.split("\r\n\t"))
        value.encode()
