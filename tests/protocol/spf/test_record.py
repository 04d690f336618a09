# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import time

import pytest

from assay.protocol import spf
from assay.protocol.spf.record import MAX_FAULTS, MAX_RECORD_LENGTH, MAX_SHOWN, Mechanism


def terms(text: str) -> spf.SpfRecord:
    record = spf.parse(b"v=spf1 " + text.encode())
    assert record.faults == ()
    return record


@pytest.mark.parametrize(
    ("term", "result", "mechanism"),
    [
        ("all", "pass", "all"),
        ("-ALL", "fail", "all"),
        ("~a", "softfail", "a"),
        ("?MX", "neutral", "mx"),
        ("+ptr", "pass", "ptr"),
        ("exists:%{i}.example.com", "pass", "exists"),
        ("include:example.com", "pass", "include"),
        ("ip4:192.0.2.0/24", "pass", "ip4"),
        ("ip6:2001:db8::/32", "pass", "ip6"),
    ],
)
def test_directive(term: str, result: str, mechanism: str) -> None:
    (directive,) = terms(term).directives
    assert (directive.text, directive.result, directive.mechanism) == (term, result, mechanism)


@pytest.mark.parametrize(
    ("term", "host_bits"),
    [
        ("a", (0, 0)),
        ("a/24", (8, 0)),
        ("a//64", (0, 64)),
        ("mx/0//0", (32, 128)),
        ("a:example.com/24//64", (8, 64)),
        ("mx:foo//64.example.com", (0, 0)),
        ("ip4:192.0.2.1", (0, 0)),
        ("ip4:192.0.2.1/0", (32, 0)),
        ("ip6:::1/127", (0, 1)),
    ],
)
def test_prefix_lengths_become_host_bits(term: str, host_bits: tuple[int, int]) -> None:
    (directive,) = terms(term).directives
    assert (directive.ip4_host_bits, directive.ip6_host_bits) == host_bits


def test_slash_in_a_domain_belongs_to_the_domain() -> None:
    (directive,) = terms("mx:foo//64.example.com/24").directives
    assert directive.domain_spec is not None
    assert directive.domain_spec.literal == "foo//64.example.com"
    assert directive.ip4_host_bits == 8


def test_modifiers() -> None:
    record = terms("Redirect=a.example exp=%{d} x.Y-1=any:thing/at=all -all other=")
    assert record.redirect is not None
    assert record.exp is not None
    assert [modifier.name for modifier in record.unknown] == ["x.y-1", "other"]
    assert [directive.mechanism for directive in record.directives] == [Mechanism.ALL]


@pytest.mark.parametrize(
    "term",
    [
        "all:", "all/8", "all.", "-all:example.com",
        "include", "include:", "include/24", "include:example.com/24", "include:com",
        "exists", "exists:", "exists:example.com/24",
        "a:", "a/", "a/33", "a/032", "a//129", "a///64", "a/24/", "a//64/24", "a/24//", "a:/24", "a:example.com/33",
        "a:1.2.3.4", "a:example", "a/-1", "a=b:%",
        "ptr/24", "ptr:", "ptr:example.com/24",
        "ip4", "ip4:", "ip4/24", "ip4:1.2.3", "ip4:1.2.3.4/33", "ip4:1.2.3.4/", "ip4:1.2.3.4/8/8", "ip4:1.2.3.4//32",
        "ip4:1.2.3.4:25", "ip4:01.2.3.4", "ip4:1.2.3.256", "ip4:::1", "ip4:1.2.3.4/024",
        "ip6", "ip6:", "ip6:1.2.3.4", "ip6:::1/129", "ip6:fe80::1%eth0", "ip6:1:2:3:4:5:6:7:8:9", "ip6:::1//64",
        "redirect=", "redirect:example.com", "redirect=example", "redirect=a.example redirect=b.example",
        "+redirect=a.example", "exp=", "exp=-all", "exp=a.example EXP=b.example", "exp=%{c}",
        "=x", "1x=y", "x=%", "x=%{t}", "nonsense", "-", "--all", "!all", ":", "/", "v=spf1 v=%",
    ],
)  # fmt: skip
def test_syntax_error_names_its_term(term: str) -> None:
    (fault,) = spf.parse(f"v=spf1 mx {term} -all".encode()).faults
    assert any(part in fault for part in term.split(" "))


def test_all_errors_are_found() -> None:
    faults = spf.parse(b"v=spf1 foo ip4:1 mx bar -all:").faults
    assert [fault.rpartition(" ")[2] for fault in faults] == ["foo", "ip4:1", "bar", "-all:"]


def test_long_errors_and_many_errors_stay_short() -> None:
    faults = spf.parse(b"v=spf1 " + b"x" * 1000 + b" y" * 500).faults
    assert len(faults) == MAX_FAULTS
    assert all(len(fault) < MAX_SHOWN + 100 for fault in faults)


@pytest.mark.parametrize("octet", [b"\t", b"\r", b"\n", b"\0", b"\x7f", b"\x80", b"\xc3\xa9"])
def test_any_other_separator_or_character_is_an_error(octet: bytes) -> None:
    assert spf.parse(b"v=spf1 a" + octet + b"-all").faults


@pytest.mark.parametrize(
    ("texts", "directives"),
    [
        ([], None),
        ([b"v=spf10 -all", b"v=spf1-all", b"v=spf1\t-all", b" v=spf1 -all", b"spf2.0/pra -all", b""], None),
        ([b"V=SPF1"], 0),
        ([b"v=spf1  -all  "], 1),
        ([b"unrelated \xff", b"v=spf1 a mx"], 2),
    ],
)
def test_selection(texts: list[bytes], directives: int | None) -> None:
    record = spf.select(texts)
    assert (None if record is None else len(record.directives)) == directives
    assert record is None or not record.faults


def test_two_records_are_an_error_though_they_be_the_same() -> None:
    record = spf.select([b"v=spf1 -all", b"v=spf1 -all"])
    assert record is not None
    assert "2 v=spf1 records" in record.faults[0]


@pytest.mark.parametrize(
    "hostile",
    [
        b"a" * 60000,
        b"a:" + b"." * 60000,
        b"a:" + b"a." * 30000 + b"-",
        b"a:" + b"-" * 60000,
        b"a:x." + b"1-" * 30000,
        b"a:%{d" + b"1" * 60000,
        b"a:%{d1r" + b"-" * 60000,
        b"a:" + b"%%" * 30000,
        b"a:" + b"/1" * 30000,
        b"a:" + b"//" * 30000,
        b"ip6:" + b":" * 60000,
        b"ip4:" + b"1/" * 30000,
        b"x." * 30000 + b"=",
        b" " * 60000,
        b"a " * 30000,
    ],
)
def test_time_is_linear_in_the_length(hostile: bytes) -> None:
    begun = time.process_time()
    spf.parse(b"v=spf1 " + hostile)
    # A quadratic reader needs seconds for this much; a linear one a fraction of one.
    assert time.process_time() - begun < 1


def test_record_longer_than_the_dns_carries_is_an_error() -> None:
    assert spf.parse(b"v=spf1 " + b"a " * MAX_RECORD_LENGTH).faults
