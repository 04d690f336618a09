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
}


@pytest.mark.parametrize(("value", "mailbox"), ONE_DOMAIN.values(), ids=ONE_DOMAIN)
def test_one_domain(value: bytes, mailbox: str) -> None:
    author = dmarc.author([HeaderField(b"From", value)])
    assert (author.domain, author.mailbox, author.fault) == (Domain("example.com"), mailbox, "")
    assert author.domains == (Domain("example.com"),)


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
FAULTS = {
    "no field": ([], "no From field"),
    "only other fields": ([field(GOOD, b"Sender"), field(GOOD, b"Resent-From")], "no From field"),
    "two fields": ([field(EVIL), field(GOOD)], "2 From fields"),
    "two equal fields": ([field(GOOD), field(GOOD, b"FROM")], "2 From fields"),
    "second field with a space": ([field(EVIL), field(GOOD, b"From ")], "2 From fields"),
    "second field with a fold": ([field(EVIL), field(GOOD, b"From\r\n ")], "2 From fields"),
    "second field with a space in front": ([field(EVIL), field(GOOD, b" From")], "2 From fields"),
    "second field with NUL": ([field(EVIL), field(GOOD, b"From\0")], "2 From fields"),
    "only field with a space": ([field(GOOD, b"From ")], "white space around the name of the From field"),
    "empty": ([field(b"")], "malformed From field: no address"),
    "empty group": ([field(b" Undisclosed:;")], "group without mailbox in the From field"),
    "two domains": ([field(b" a@example.com, b@example.org")], "two author domains"),
    "three domains": ([field(b" a@example.com, b@example.org, c@example.net")], "3 author domains"),
    "domain and subdomain": ([field(b" a@example.com, b@mail.example.com")], "two author domains"),
    "group with two domains": ([field(b" x: a@example.com, b@example.org;")], "two author domains"),
    "address literal": ([field(b" jane@[192.0.2.1]")], "malformed From field: address literal instead of a domain"),
    "no domain name": (
        [field(b" jane@exam_ple!.com")],
        "malformed From field: label with a character that is no letter, digit, hyphen or underscore, or with a hyphen"
        " at an end",
    ),
    "domain that looks like @": ("jane@a＠b.com", "malformed From field: character that looks like @, < or >"),
    "one good and one bad": ([field(b" jane@example.com, x")], "malformed From field: address without @"),
    "NUL": ([field(b" jane@example.com\0")], "malformed From field: control character"),
    "route": (
        [field(b" <@example.org:jane@example.com>")],
        "malformed From field: address with a route or without a local part",
    ),
    "overlong domain": (
        [field(b" jane@" + b"a." * 127 + b"com")],
        "malformed From field: domain longer than 253 octets",
    ),
}


@pytest.mark.parametrize(("fields", "fault"), FAULTS.values(), ids=FAULTS)
def test_no_domain(fields: list[HeaderField] | str, fault: str) -> None:
    if isinstance(fields, str):
        fields = [field(fields.encode())]
    author = dmarc.author(fields)
    assert (author.domain, author.mailbox, author.fault) == (None, "", fault)


def test_several_domains_are_named_up_to_a_limit() -> None:
    value = b", ".join(b"a@%d.example" % number for number in range(dmarc.MAX_AUTHOR_DOMAINS + 2))
    author = dmarc.author([field(value)])
    assert author.domains == tuple(Domain(f"{number}.example") for number in range(dmarc.MAX_AUTHOR_DOMAINS))
    assert author.fault == f"{dmarc.MAX_AUTHOR_DOMAINS + 2} author domains"


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
