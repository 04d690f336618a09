# SPDX-License-Identifier: GPL-3.0-or-later
"""The author domain: exactly one, or a fault that says why there is none."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from assay.model.message import HeaderField
from assay.model.name import Domain
from assay.protocol import dmarc
from assay.protocol.syntax.readings import MAX_SCANNED

ONE_DOMAIN = {
    "bare address": (b" jane@example.com", "jane@example.com"),
    "upper case": (b" Jane@EXAMPLE.Com", "Jane@example.com"),
    "display name with another address": (b' "ceo@example.org" <jane@example.com>', "jane@example.com"),
    "comment with another address": (b" jane@example.com (ceo@example.org)", "jane@example.com"),
    "encoded word with another address": (b" =?utf-8?B?Y2VvQGV4YW1wbGUub3Jn?= <jane@example.com>", "jane@example.com"),
    "@ in a quoted local part": (b' "ceo@example.org"@example.com', '"ceo@example.org"@example.com'),
    "two addresses in one domain": (b" jane@example.com, bob@Example.com", "jane@example.com"),
    "group with a mailbox": (b" Team: jane@example.com;", "jane@example.com"),
    "empty group beside a mailbox": (b" Team:;, jane@example.com", "jane@example.com"),
    "folded": (b" Jane\r\n <jane@example.com>", "jane@example.com"),
    # RFC 5322, 4.4
    "route": (b" Jane <@relay.example.org:jane@example.com>", "jane@example.com"),
    "trailing comma": (b" Jane <jane@example.com>,", "jane@example.com"),
    "spaces around dots and @": (b" jane @ example . com", "jane@example.com"),
    # What programs show all the same
    "final dot": (b" Jane <jane@example.com.>", "jane@example.com"),
    "dot before @": (b" Jane <jane.@example.com>", '"jane."@example.com'),
    "two dots before @": (b" Jane <ja..ne@example.com>", '"ja..ne"@example.com'),
    "address as display name": (b" jane@example.com <jane@example.com>", "jane@example.com"),
    "another address of the domain as display name": (b" bob@example.com <jane@example.com>", ""),
    "unquoted comma": (b" Example, Inc. <jane@example.com>", "jane@example.com"),
    "unquoted brackets": (b" [Shop] Team <jane@example.com>", "jane@example.com"),
    "unquoted @ that is no address": (b" Meet @ Noon <jane@example.com>", ""),
    "open quote": (b' "Jane <jane@example.com>', "jane@example.com"),
    "open comment": (b" jane@example.com (Jane", "jane@example.com"),
    "Latin-1": (b" Zo\xeb <jane@example.com>", "jane@example.com"),
    "quoted pair beside an atom": (b' "J\\"D" Doe <jane@example.com>', "jane@example.com"),
    "NUL": (b" jane@example.com\0", "jane@example.com"),
    "one good and one bad": (b" jane@example.com, x", "jane@example.com"),
}


@pytest.mark.parametrize(("value", "mailbox"), ONE_DOMAIN.values(), ids=ONE_DOMAIN)
def test_one_domain(value: bytes, mailbox: str) -> None:
    author = dmarc.author([HeaderField(b"From", value)])
    assert (author.domain, author.mailbox, author.fault) == (Domain("example.com"), mailbox, "")
    assert author.domains == (Domain("example.com"),)


NAMES = {
    "label that ends in a hyphen": ("pay-.example.com", "pay-.example.com"),
    "other characters of atoms": ("a%b!.example.com", "a%b!.example.com"),
    "label that is too long": ("x" * 64 + ".example.com", "x" * 63 + ".example.com"),
    "U-label that is too long": ("ü" * 64 + ".example.com", "xn--tdaaaaaaaaaaaaaaaaaa.example.com"),
    "name that is too long": ("a." * 127 + "com", "a." * 125 + "com"),
    "symbol": ("☃.example.com", "xn--n3h.example.com"),
}


@pytest.mark.parametrize(("written", "name"), NAMES.values(), ids=NAMES)
def test_a_name_that_no_host_has_is_the_nearest_that_the_dns_can_carry(written: str, name: str) -> None:
    author = dmarc.author([HeaderField(b"From", f" Jane <jane@{written}>".encode())])
    assert (author.domain, author.fault) == (Domain(name), "")


def test_u_labels_and_a_labels_are_one_domain() -> None:
    author = dmarc.author([HeaderField(b"from", "a@bücher.example, b@XN--BCHER-KVA.example".encode())])
    assert author.domain == Domain("xn--bcher-kva.example")
    assert not author.fault


def test_display_name_is_kept_as_written() -> None:
    author = dmarc.author([HeaderField(b"From", b' "CEO of =?utf-8?Q?x?=" <jane@example.com>')])
    assert author.display_name == "CEO of =?utf-8?Q?x?="


def field(value: bytes, name: bytes = b"From") -> HeaderField:
    return HeaderField(name, value)


GOOD, EVIL = b" <jane@example.com>", b" <any@example.org>"
SAME_DOMAIN = {
    "two fields": [field(GOOD), field(GOOD, b"FROM")],
    "only field with a space": [field(GOOD, b"From ")],
    "one without a domain": [field(b" x"), field(GOOD)],
    "a group without a mailbox": [field(GOOD), field(b" Undisclosed:;")],
}


@pytest.mark.parametrize("fields", SAME_DOMAIN.values(), ids=SAME_DOMAIN)
def test_one_domain_in_whatever_fields(fields: list[HeaderField]) -> None:
    author = dmarc.author(fields)
    assert (author.domain, author.mailbox or "jane@example.com") == (Domain("example.com"), "jane@example.com")
    assert not author.fault


SEVERAL = {
    "two fields": ([field(EVIL), field(GOOD)], "2 author domains in 2 From fields"),
    "second field with a space": ([field(EVIL), field(GOOD, b"From ")], "2 author domains in 2 From fields"),
    "second field with a fold": ([field(EVIL), field(GOOD, b"From\r\n ")], "2 author domains in 2 From fields"),
    "second field with a space in front": ([field(EVIL), field(GOOD, b" From")], "2 author domains in 2 From fields"),
    "second field with NUL": ([field(EVIL), field(GOOD, b"From\0")], "2 author domains in 2 From fields"),
    "malformed second field": ([field(EVIL), field(b" x jane@example.com")], "2 author domains in 2 From fields"),
    "two domains": (b" a@example.org, b@example.com", "2 author domains"),
    "group with two domains": (b" x: a@example.org, b@example.com;", "2 author domains"),
    "one of them with one label": (b" a@localhost, b@example.com", "2 author domains"),
}
MALFORMED = {
    "display name": b" jane@example.com <any@example.org>",
    "quotes in quotes": b'"CEO\\" <jane@example.com> "\' <any@example.org>',
    "quoted pair beside a word": b' "\\\\" x "jane@example.com" <any@example.org>',
    "two in brackets": b" <jane@example.com> <any@example.org>",
    "one in the other's brackets": b" <jane@example.com <any@example.org>>",
    "open quote": b' "jane@example.com <any@example.org>',
    "comment that does not end": b" any@example.org (jane@example.com",
    "backslash": b" any@example.org\\,jane@example.com",
    "semicolon": b" any@example.org; jane@example.com",
    "text in front of a route": b" <jane@example.com:any@example.org>",
    "quoted domain": b' jane@"example.com", any@example.org',
    "encoded word as local part": b" =?utf-8?Q?jane=40example.com?=@example.org",
    "encoded word in base64": b" =?utf-8?B?PGphbmVAZXhhbXBsZS5jb20+?=, <any@example.org>",
    "encoded word in UTF-7": b" =?utf-7?Q?jane+AEA-example.com?=, <any@example.org>",
    "NUL": b" jane@example.com\0@example.org",
    "NUL in a domain": b" jane@exam\0ple.com, any@example.org",
    "bare LF": b" any@example.org\nFrom: jane@example.com",
    "full-width @": " jane＠example.com <any@example.org>".encode(),
    "space in a domain, which Python drops": b" jane@exa mple.com <any@example.org>",
    "space in a domain, of which Sendmail makes a dot": b" jane@example com, <any@example.org>",
    "bracket that Sendmail drops": b" jane@example>.com, <any@example.org>",
    "parenthesis that Sendmail drops": b" jane@example).com, <any@example.org>",
    "nested comment in front of a domain": b" jane@(a (b) c)example.com, <any@example.org",
    "host in front, which Sendmail turns round": b" example.com!jane, <any@example.org>",
    "the same with spaces": b" example com !jane, <any@example.org>",
    "user%host": b" jane%example.com, <any@example.org>",
    "the same with a space": b" jane%example. com, <any@example.org>",
    "behind many words that are no domains": b" " + b"@x " * 50 + b"<any@example.org>,<jane@example.com>",
}
CUT = {
    "white space": (b" jane@example.com .example.org", "example.com.example.org"),
    "comment": (b" jane@example.com(x).example.org", "example.com.example.org"),
    "empty label": (b" jane@example.com..example.org", "example.com.example.org"),
    "character that no host name has": (b" jane@example.com'.example.org", "example.com'.example.org"),
    "full-width dots": (" jane@example.com。．example.org".encode(), "example.com.example.org"),
}


@pytest.mark.parametrize(("fields", "fault"), SEVERAL.values(), ids=SEVERAL)
def test_several_domains(fields: list[HeaderField] | bytes, fault: str) -> None:
    author = dmarc.author([field(fields)] if isinstance(fields, bytes) else fields)
    assert (author.domain, author.mailbox, author.fault) == (None, "", fault)
    assert len(author.domains) == 2
    assert Domain("example.com") in author.domains


@pytest.mark.parametrize("value", MALFORMED.values(), ids=MALFORMED)
def test_what_any_program_could_read_is_among_the_domains(value: bytes) -> None:
    author = dmarc.author([field(value)])
    assert author.domain is None
    assert author.fault
    if author.domains:  # else there are too many
        assert {Domain("example.com"), Domain("example.org")} <= set(author.domains)


@pytest.mark.parametrize(("value", "whole"), CUT.values(), ids=CUT)
def test_a_domain_that_some_read_no_farther_is_two(value: bytes, whole: str) -> None:
    assert dmarc.author([field(value)]).domains == (Domain(whole), Domain("example.com"))


FAULTS = {
    "no field": ([], "no From field"),
    "only other fields": ([field(GOOD, b"Sender"), field(GOOD, b"Resent-From")], "no From field"),
    "eleven fields": ([field(GOOD)] * 11, "more than 10 From fields"),
    "empty": (b"", "no author domain in the From field: no address"),
    "no @": (b" jane", "no author domain in the From field: address without @"),
    "empty group": (b" Undisclosed:;", "no author domain in the From field: group without a mailbox"),
    "address literal": (b" jane@[192.0.2.1]", "no author domain in the From field: address without a domain name"),
    "domain that is not UTF-8": (
        b" jane@example\xff.com, a@example.org",
        "malformed From field: domain with octets that are not UTF-8",
    ),
    "many words that are no domains": (
        b"".join(b"@x%d " % number for number in range(30)) + GOOD,
        "malformed From field: more than 20 possible addresses",
    ),
}


@pytest.mark.parametrize(("fields", "fault"), FAULTS.values(), ids=FAULTS)
def test_no_domain(fields: list[HeaderField] | bytes, fault: str) -> None:
    author = dmarc.author([field(fields)] if isinstance(fields, bytes) else fields)
    assert (author.domain, author.domains, author.mailbox, author.fault) == (None, (), "", fault)


def test_more_domains_than_the_limit_are_none() -> None:
    value = b", ".join(b"a@%d.example" % number for number in range(dmarc.MAX_AUTHOR_DOMAINS))
    assert len(dmarc.author([field(value)]).domains) == dmarc.MAX_AUTHOR_DOMAINS
    author = dmarc.author([field(value + b", a@example.com")])
    assert (author.domain, author.domains) == (None, ())
    assert author.fault == f"more than {dmarc.MAX_AUTHOR_DOMAINS} possible author domains"


HOSTILE = {"combining marks": "\u0315\u0300\u05ae", "U-labels": "ü.", "one U-label": "ü", "labels": "a."}


@pytest.mark.parametrize("piece", HOSTILE.values(), ids=HOSTILE)
def test_time_is_linear_in_the_domain(piece: str) -> None:
    def seconds(value: bytes) -> float:
        start = time.perf_counter()
        dmarc.author([field(value)])
        return time.perf_counter() - start

    size = 65_536
    normal = b"Jane Doe " * (size // 9) + b"<jane@example.com> (the comment keeps it from the short way)"
    hostile = b"a@" + (piece * (size // len(piece.encode()))).encode() + b"com"
    assert min(seconds(hostile) for _ in range(3)) < 50 * min(seconds(normal) for _ in range(3))


@settings(deadline=None)  # a shared machine may pause anywhere
@given(
    st.lists(st.builds(HeaderField, st.sampled_from([b"From", b"from ", b"To"]), st.binary(max_size=80)), max_size=3)
)
def test_never_raises_and_is_either(fields: list[HeaderField]) -> None:
    author = dmarc.author(fields)
    assert (author.domain is None) == bool(author.fault)


@pytest.mark.parametrize("text", ["a@b.example ", "a%b.example ", "<a@b.example> "])
def test_the_same_address_again_and_again_is_looked_at_so_many_times(text: str) -> None:
    found = dmarc.author([HeaderField(b"From", f" {text * (MAX_SCANNED + 1)}".encode())])
    assert (found.domain, found.domains) == (None, ())
    assert found.fault == "malformed From field: more than 20 possible addresses"
