# SPDX-License-Identifier: GPL-3.0-or-later
"""The narration of a check: what each kind of term reports. test_properties.py proves that it changes no result."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

import pytest

from assay.inquiry import Outcome
from assay.model.name import ReversePath
from assay.protocol import spf
from assay.protocol.spf import macro
from zone import Zone

CLIENT = "192.0.2.1"
REVERSE = "1.2.0.192.in-addr.arpa"


def narrate(
    record: str, rows: dict[str, list[Any]] | None = None, client: str = CLIENT, sender: str = "joe@example.com"
) -> tuple[spf.Step, ...]:
    zone = Zone({"example.com": [["TXT", [record]]]} | (rows or {}))
    return steps_of(spf.Request(ip_address(client), "h.example").of_mail_from(ReversePath.parse(sender)), zone)


def steps_of(request: spf.Request, zone: Zone) -> tuple[spf.Step, ...]:
    narrator = spf.Narrator()
    zone.solve(spf.check(request, narrator))
    return narrator.steps


def told(steps: tuple[spf.Step, ...], event: spf.Event) -> list[str]:
    return [step.text for step in steps if step.event is event]


@pytest.mark.parametrize(
    ("term", "client", "expected"),
    [
        ("ip4:192.0.2.0/24", CLIENT, "client 192.0.2.1 in 192.0.2.0/24"),
        ("ip4:192.0.2.99/24", CLIENT, "client 192.0.2.1 in 192.0.2.0/24"),
        ("ip4:192.0.2.0/31", "192.0.2.2", "client 192.0.2.2 not in 192.0.2.0/31"),
        ("ip4:192.0.2.2", CLIENT, "client 192.0.2.1 is not 192.0.2.2"),
        ("ip4:192.0.2.1", CLIENT, "client 192.0.2.1 is 192.0.2.1"),
        ("ip4:0.0.0.0/0", CLIENT, "client 192.0.2.1 in 0.0.0.0/0"),
        ("ip6:::/0", "2001:db8::1", "client 2001:db8::1 in ::/0"),
        ("ip6:::1", "2001:db8::1", "client 2001:db8::1 is not ::1"),
        ("ip6:2001:db8::/32", "2001:db8::1", "client 2001:db8::1 in 2001:db8::/32"),
        ("ip6:2001:db8::/32", CLIENT, "client 192.0.2.1 is not IPv6"),
        ("ip4:192.0.2.1", "2001:db8::1", "client 2001:db8::1 is not IPv4"),
        ("ip4:192.0.2.1", "::ffff:192.0.2.1", "client 192.0.2.1 is 192.0.2.1"),
        ("a:a.example", CLIENT, "client 192.0.2.1 is not 192.0.2.7"),
        ("a:a.example/28", CLIENT, "client 192.0.2.1 in 192.0.2.7/28"),
        ("a:a.example//64", "2001:db8::1", "client 2001:db8::1 in 2001:db8::7/64"),
        ("mx:mx.example/29", CLIENT, "client 192.0.2.1 in 192.0.2.7/29"),
        ("ptr:names.example", CLIENT, "h.names.example has the client's address 192.0.2.1"),
        ("ptr:example.com", CLIENT, "none of the client's names is one that ptr:example.com asks for"),
        ("ptr:a.example", CLIENT, "a.example does not have the client's address 192.0.2.1"),
    ],
    ids=str,
)
def test_what_is_compared_with_what(term: str, client: str, expected: str) -> None:
    rows = {
        "a.example": [["A", "192.0.2.7"], ["AAAA", "2001:db8::7"]],
        "mx.example": [["MX", [10, "a.example"]]],
        REVERSE: [["PTR", "h.names.example"], ["PTR", "a.example"]],
        "h.names.example": [["A", CLIENT]],
    }
    steps = narrate(f"v=spf1 {term} ?all", rows, client)
    assert told(steps, spf.Event.COMPARISON) == [expected]
    outcome = "no match" if "not" in expected or "none" in expected else "match: pass"
    assert [step.text for step in steps if step.term == term][-1] == outcome


def test_comparing_ends_at_the_address_that_matches() -> None:
    steps = narrate("v=spf1 a:a.example -all", {"a.example": [["A", "192.0.2.9"], ["A", CLIENT], ["A", "192.0.2.8"]]})
    assert told(steps, spf.Event.COMPARISON) == ["client 192.0.2.1 is not 192.0.2.9", "client 192.0.2.1 is 192.0.2.1"]


@pytest.mark.parametrize(
    ("spec", "sender", "expected"),
    [
        ("%{ir}.%{v}.x.example", "joe", "1.2.0.192.in-addr.x.example (%{ir} = 1.2.0.192, %{v} = in-addr)"),
        ("%{l1r+}.%{d}", "joe+x", "joe.example.com (%{l1r+} = joe, %{d} = example.com)"),
        ("%{L}.%{L}.x.example", "j&e", "j%26e.j%26e.x.example (%{L} = j%26e)"),
        ("%{p}", "joe", "unknown (%{p} = unknown)"),
    ],
    ids=["parts reversed", "parts split and kept", "each macro once", "a validated name"],
)
def test_macros_are_reported_with_their_values(spec: str, sender: str, expected: str) -> None:
    steps = narrate(f"v=spf1 exists:{spec}", sender=f"{sender}@example.com")
    assert told(steps, spf.Event.EXPANSION) == [f"expands to {expected}"]


@pytest.mark.parametrize("spec", ["x.example", "%%.x.example"])
def test_what_has_no_macro_expands_to_nothing_worth_telling(spec: str) -> None:
    assert told(narrate(f"v=spf1 exists:{spec}"), spf.Event.EXPANSION) == []


@pytest.mark.parametrize("text", ["%{s}", "%{S}", "%{ir}", "%{d2}", "%{l1r+-}", "%{D12R.}", "%{o.,/_=}"], ids=str)
def test_a_macro_is_written_as_it_was(text: str) -> None:
    (piece,) = macro.parse(text).pieces
    assert isinstance(piece, macro.Macro)
    assert macro.write(piece) == text.replace("R", "r")


def test_counters_are_reported_as_they_grow() -> None:
    steps = narrate("v=spf1 a:n1.example ip4:192.0.2.2 mx:n2.example exists:n3.example -all")
    assert told(steps, spf.Event.COUNT) == [
        "DNS term 1 of 10",
        "void lookup 1 of 2",
        "DNS term 2 of 10",
        "void lookup 2 of 2",
        "DNS term 3 of 10",
        "void lookup 3 of 2",
    ]


def test_every_lookup_is_reported_where_it_was_needed() -> None:
    rows = {
        "i.example": [["TXT", ["v=spf1 mx:m.example ?all"]]],
        "m.example": [["MX", [10, "a.example"]], ["MX", [20, "gone.example"]]],
        "a.example": [["A", "192.0.2.9"]],
        "example.com": [["TXT", ["v=spf1 include:i.example a:a.example -all exp=why.example"]]],
        "why.example": [["TXT", ["no"]]],
    }
    lookups = [
        (step.depth, step.term, str(step.question.type), step.question.name, step.answer.outcome)
        for step in narrate("", rows)
        if step.question is not None and step.answer is not None
    ]
    assert lookups == [
        (0, "", "TXT", "example.com", Outcome.FOUND),
        (1, "", "TXT", "i.example", Outcome.FOUND),
        (1, "mx:m.example", "MX", "m.example", Outcome.FOUND),
        (1, "mx:m.example", "A", "a.example", Outcome.FOUND),
        (1, "mx:m.example", "A", "gone.example", Outcome.NXDOMAIN),
        (0, "a:a.example", "A", "a.example", Outcome.FOUND),
        (0, "exp=why.example", "TXT", "why.example", Outcome.FOUND),
    ]


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["x", "v=spf1 -all"], ["v=spf1 -all"]),
        (["v=spf1 -all", "v=spf1 +all"], ["v=spf1 -all", "v=spf1 +all"]),
        (["v=spf1 oops"], ["v=spf1 oops"]),
        (["v=spf10 -all"], []),
        (["v=spf1 \udcff"], ["v=spf1 \udcff"]),
    ],
    ids=["the one among others", "all of too many", "a broken one", "none", "no ASCII"],
)
def test_records_are_reported_as_found(texts: list[str], expected: list[str]) -> None:
    steps = narrate("", {"example.com": [["TXT", [text]] for text in texts]})
    assert told(steps, spf.Event.RECORD) == expected
    assert steps[-1].event is spf.Event.OUTCOME
    assert steps[-1].term == ""


def test_a_given_policy_is_reported_and_not_looked_up() -> None:
    request = spf.Request(ip_address(CLIENT), "h.example", "example.com", "joe@example.com", record=b"v=spf1 -all")
    steps = steps_of(request, Zone({}))
    assert told(steps, spf.Event.RECORD) == ["v=spf1 -all"]
    assert told(steps, spf.Event.LOOKUP) == []


def test_the_result_of_a_policy_is_reported_after_it() -> None:
    rows = {"r.example": [["TXT", ["v=spf1 include:none.example"]]]}
    steps = narrate("v=spf1 redirect=r.example", rows)
    ends = [(step.depth, step.domain, step.text) for step in steps if not step.term and step.event == "outcome"]
    assert ends == [
        (1, "none.example", "none: none.example does not exist"),
        (0, "r.example", "permerror: none.example does not exist, in include:none.example of r.example"),
        (0, "example.com", "permerror: none.example does not exist, in include:none.example of r.example"),
    ]


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["%{i} is bad"], ["expands to 192.0.2.1 is bad (%{i} = 192.0.2.1)", "explanation: 192.0.2.1 is bad"]),
        (["bad"], ["explanation: bad"]),
        (["100% bad"], ["not an explain-string: bad macro", "no explanation"]),
        ([], ["no explanation"]),
        (["a", "b"], ["no explanation"]),
    ],
    ids=["one", "without macros", "with a bad macro", "none", "two"],
)
def test_the_explanation_is_reported(texts: list[str], expected: list[str]) -> None:
    rows = {"why.example": [["TXT", [text]] for text in texts]}
    steps = [step for step in narrate("v=spf1 -all exp=why.example", rows) if step.term == "exp=why.example"]
    assert [step.text for step in steps if step.event in (spf.Event.EXPANSION, spf.Event.OUTCOME)] == expected


def test_our_own_explanation_is_reported_too() -> None:
    request = spf.Request(ip_address(CLIENT), "h", "a.example", "j@a.example", default_explanation="%{i} fails")
    steps = steps_of(request, Zone({"a.example": [["TXT", ["v=spf1 -all"]]]}))
    assert steps[-1].text == "expands to 192.0.2.1 fails (%{i} = 192.0.2.1)"


def test_a_local_part_that_is_not_ascii_expands_nothing() -> None:
    steps = narrate("v=spf1 exists:%{l}.example.com ?all", sender="jö@example.com")
    assert told(steps, spf.Event.EXPANSION) == ["not expanded: the local part is not ASCII (RFC 8616)"]


def test_the_deepest_chain_that_can_be_configured_is_reported() -> None:
    rows = {f"d{number}.example": [["TXT", [f"v=spf1 include:d{number + 1}.example -all"]]] for number in range(120)}
    limits = spf.Limits(dns_terms=1000, nested_includes=1000)
    steps = steps_of(spf.Request(ip_address(CLIENT), "h", "d0.example", "a@d0.example", limits=limits), Zone(rows))
    assert steps[-1].text.startswith("permerror: ")
    assert max(step.depth for step in steps) == 100
