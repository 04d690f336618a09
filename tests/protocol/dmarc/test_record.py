# SPDX-License-Identifier: GPL-3.0-or-later
"""DMARC records: what is recognised, what is read, what is dropped (RFC 9989, 4.5 to 4.8 and 4.10.1)."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from assay.protocol import dmarc
from assay.protocol.dmarc import Alignment, DmarcPolicy
from assay.protocol.dmarc.record import MAX_TAGS, MAX_URIS

RECOGNISED = {
    "with a tag": b"v=DMARC1; p=none",
    "alone": b"v=DMARC1",
    "with a semicolon": b"v=DMARC1;",
    "white space around =": b"v = DMARC1 ;p=none",
    "upper case V": b"V=DMARC1;",
    "garbage behind": b"v=DMARC1;\xff\x00",
}
PASSED_OVER = {
    "empty": b"",
    "SPF": b"v=spf1 -all",
    "another version": b"v=DMARC2; p=none",
    "longer version": b"v=DMARC10; p=none",
    "lower case version": b"v=dmarc1; p=none",
    "white space in front": b" v=DMARC1; p=none",
    "another tag in front": b"p=none; v=DMARC1",
    "no semicolon": b"v=DMARC1 p=none",
    "quotes inside": b'"v=DMARC1; p=none"',
    "newline behind": b"v=DMARC1\n",
}


@pytest.mark.parametrize("text", RECOGNISED.values(), ids=RECOGNISED)
def test_is_a_record(text: bytes) -> None:
    assert dmarc.is_record(text)


@pytest.mark.parametrize("text", PASSED_OVER.values(), ids=PASSED_OVER)
def test_is_none_of_ours(text: bytes) -> None:
    assert not dmarc.is_record(text)


NONE, QUARANTINE, REJECT = DmarcPolicy.NONE, DmarcPolicy.QUARANTINE, DmarcPolicy.REJECT
RUA = ("mailto:a@example.com",)

READ: dict[str, tuple[str, dict[str, Any]]] = {
    "defaults": (
        "p=none",
        {"p": NONE, "sp": None, "np": None, "adkim": Alignment.RELAXED, "aspf": Alignment.RELAXED}
        | {"psd": "u", "t": "", "testing": False, "fo": ("0",), "rua": (), "ruf": (), "pct": "", "notes": ()},
    ),
    "p anywhere": ("adkim=s; p=reject", {"p": REJECT, "adkim": Alignment.STRICT, "aspf": Alignment.RELAXED}),
    "all policies": ("p=reject;sp=quarantine;np=none", {"p": REJECT, "sp": QUARANTINE, "np": NONE}),
    "any case": ("P=Reject; ADKIM=S; T=Y; PSD=N", {"p": REJECT, "adkim": Alignment.STRICT, "t": "y", "psd": "n"}),
    "white space": (" \tp \t=\t reject \t; aspf=s ", {"p": REJECT, "aspf": Alignment.STRICT, "notes": ()}),
    "test mode": ("p=reject; t=y", {"t": "y", "testing": True}),
    "no test mode": ("p=reject; t=n", {"t": "n", "testing": False}),
    "public suffix": ("p=reject; psd=y", {"psd": "y"}),
    "unknown tags": ("p=none; x=y; foo=bar", {"p": NONE, "notes": ()}),
    "older generation": (
        "p=none; pct=50; rf=afrf; ri=3600",
        {"pct": "50", "rf": "afrf", "ri": "3600", "notes": ()},
    ),
    "URIs": (
        "p=none; rua=mailto:a@example.com , https://example.com/x; ruf=mailto:b@example.com",
        {"rua": ("mailto:a@example.com", "https://example.com/x"), "ruf": ("mailto:b@example.com",)},
    ),
    "size limit": ("p=none; rua=mailto:a@example.com!10m", {"rua": RUA, "notes": ()}),
    "URI twice": ("p=none; rua=mailto:a@example.com,mailto:a@example.com!5", {"rua": RUA}),
    "URI with parameters": ("p=none; rua=mailto:a@example.com?subject=x", {"rua": ("mailto:a@example.com?subject=x",)}),
    "failure options": ("p=none; ruf=mailto:a@b; fo=1:d:s", {"fo": ("1", "d", "s")}),
    "failure options with white space, in any case and order": (
        "p=none; ruf=mailto:a@b; fo= S : d : 1",
        {"fo": ("s", "d", "1")},
    ),
    "failure options without ruf": ("p=none; fo=1:d:s", {"fo": ("0",)}),
    "missing p with rua": ("rua=mailto:a@example.com", {"p": NONE, "malformed": False, "rua": RUA}),
    "missing p with rua forgets sp": ("sp=reject; rua=mailto:a@example.com", {"p": NONE, "sp": None}),
    "bad p with rua": ("p=bad; sp=reject; rua=mailto:a@example.com", {"p": NONE, "sp": None, "malformed": True}),
    "bad sp with rua": ("p=reject; sp=bad; rua=mailto:a@example.com", {"p": NONE, "sp": None, "malformed": True}),
    "bad np with rua": ("p=reject; np=bad; rua=mailto:a@example.com", {"p": NONE, "np": None, "malformed": True}),
    "missing p": ("adkim=s", {"p": None, "malformed": False}),
    "bad p": ("p=bad", {"p": None, "malformed": True}),
    "empty p": ("p=; rua=x", {"p": None, "malformed": True}),
    "bad sp": ("p=reject; sp=bad", {"p": None, "malformed": True}),
    "bad np": ("p=reject; np=", {"p": None, "malformed": True}),
    "missing p with useless rua": ("rua=example.com", {"p": None, "rua": ()}),
}


@pytest.mark.parametrize(("text", "expected"), READ.values(), ids=READ)
def test_is_read(text: str, expected: dict[str, Any]) -> None:
    record = dmarc.parse(f"v=DMARC1;{text}".encode())
    assert {name: getattr(record, name) for name in expected} == expected


DROPPED: dict[str, tuple[bytes, dict[str, Any], str]] = {
    "tag without =": (b"p=none; bogus", {"p": NONE}, "malformed tag 'bogus' is dropped"),
    "tag with a digit": (b"p=none; a1=b", {"p": NONE}, "malformed tag 'a1' is dropped"),
    "non-ASCII value": (b"p=none; adkim=\xff", {"adkim": Alignment.RELAXED}, "malformed tag 'adkim' is dropped"),
    "control character": (b"p=none; t=y\x00", {"t": ""}, "malformed tag 't' is dropped"),
    "second p": (b"p=none; p=reject", {"p": NONE}, "p= occurs twice: the first one counts"),
    "bad adkim": (b"p=none; adkim=strict", {"adkim": Alignment.RELAXED}, "adkim= is not one of r, s"),
    "bad t": (b"p=none; t=x", {"t": ""}, "t= is not one of y, n"),
    "bad psd": (b"p=none; psd=yes", {"psd": "u"}, "psd= is not one of y, n, u"),
    "0 and 1": (b"p=none; ruf=mailto:a@b; fo=0:1", {"fo": ("0",)}, "fo= is malformed: 0 is assumed"),
    "option twice": (b"p=none; ruf=mailto:a@b; fo=d:d", {"fo": ("0",)}, "fo= is malformed: 0 is assumed"),
    "unknown option": (b"p=none; ruf=mailto:a@b; fo=1:x", {"fo": ("0",)}, "fo= is malformed: 0 is assumed"),
    "too many options": (b"p=none; ruf=mailto:a@b; fo=1:d:s:0:", {"fo": ("0",)}, "fo= is malformed: 0 is assumed"),
    "no scheme": (
        b"p=none; rua=a@example.com,mailto:a@b",
        {"rua": ("mailto:a@b",)},
        "rua= has something that is not a URI",
    ),
    "mailto without @": (b"p=none; rua=mailto:example.com", {"rua": ()}, "rua= has something that is not a URI"),
    "! inside": (b"p=none; rua=mailto:a!b@example.com", {"rua": ()}, "rua= has something that is not a URI"),
    "space inside": (b"p=none; rua=mailto:a @example.com", {"rua": ()}, "rua= has something that is not a URI"),
}


@pytest.mark.parametrize(("text", "expected", "note"), DROPPED.values(), ids=DROPPED)
def test_is_dropped_and_noted(text: bytes, expected: dict[str, Any], note: str) -> None:
    record = dmarc.parse(b"v=DMARC1; " + text)
    assert {name: getattr(record, name) for name in expected} == expected
    assert note in record.notes


def test_tags_and_uris_are_bounded() -> None:
    full = b"v=DMARC1;" + b"x=y;" * (MAX_TAGS - 1)
    assert dmarc.parse(full + b"p=none").p is NONE
    beyond = dmarc.parse(full + b"x=y;p=none")
    assert beyond.p is None
    assert beyond.notes[0] == f"more than {MAX_TAGS} tags: the rest is dropped"
    uris = ",".join(f"mailto:a@{number}.example" for number in range(MAX_URIS + 1))
    assert len(dmarc.parse(f"v=DMARC1;p=none;rua={uris}".encode()).rua) == MAX_URIS


POLICY_FOR: dict[str, tuple[str, DmarcPolicy, DmarcPolicy]] = {
    "p for all": ("p=reject", REJECT, REJECT),
    "sp before p": ("p=reject; sp=none", NONE, NONE),
    "np for those that do not exist": ("p=none; np=reject", NONE, REJECT),
    "np before sp": ("p=none; sp=quarantine; np=reject", QUARANTINE, REJECT),
}


@pytest.mark.parametrize(("text", "existing", "missing"), POLICY_FOR.values(), ids=POLICY_FOR)
def test_policy_for_subdomains(text: str, existing: DmarcPolicy, missing: DmarcPolicy) -> None:
    record = dmarc.parse(f"v=DMARC1; {text}".encode())
    assert (record.policy_for(exists=True), record.policy_for(exists=False)) == (existing, missing)


@settings(deadline=None)  # a shared machine may pause anywhere
@given(st.one_of(st.binary(max_size=200), st.text("vpsnrua=;:,!@ \tDMARC1rejectnone", max_size=80).map(str.encode)))
def test_never_raises(text: bytes) -> None:
    record = dmarc.parse(b"v=DMARC1;" + text)
    assert record.p is None or record.p in DmarcPolicy


HOSTILE = [b"a=b;", b";", b" ", b"mailto:a@b,", b"@", b"!1", b"0:", b"a", b"="]


@pytest.mark.parametrize("piece", HOSTILE)
@pytest.mark.parametrize("head", [b"", b"rua=", b"rua=mailto:", b"rua=mailto:a@b!", b"fo=", b"x", b"pct="])
def test_time_is_linear(head: bytes, piece: bytes) -> None:
    text = b"v=DMARC1;p=none;ruf=mailto:a@b;" + head + piece * (65_536 // len(piece))
    start = time.perf_counter()
    dmarc.parse(text)
    assert time.perf_counter() - start < 0.5  # it takes less than a millisecond
