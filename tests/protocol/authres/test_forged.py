# SPDX-License-Identifier: GPL-3.0-or-later
"""Which trace fields claim to be ours, in whatever way somebody may read them."""

from __future__ import annotations

import pytest

from assay.protocol import authres

OURS = {"example.com", "Bücher.Example", "Mail Gateway"}

CLAIMED = {
    "plain": b" example.com; spf=pass",
    "no result": b"example.com; none",
    "the id alone": b"example.com",
    "folded before the id": b"\r\n\texample.com; spf=pass",
    "folded before the id, as libmilter hands it over": b"\n example.com; spf=pass",
    "folded behind the id": b"example.com\r\n ; spf=pass",
    "a fold without white space": b"\r\nexample.com; spf=pass",
    "other case": b" EXAMPLE.Com; spf=pass",
    "a version": b" example.com 1; spf=pass",
    "an unknown version": b" example.com 2; spf=pass",
    "a version with a slash": b"example.com/1; spf=pass",
    "a final dot": b"example.com.; spf=pass",
    "dots around it": b"..example.com..; spf=pass",
    "white space around it": b" \t example.com \t ; spf=pass",
    "no-break spaces around it": "\xa0example.com\u3000; spf=pass".encode(),
    "a comment before it": b"(a) example.com; spf=pass",
    "comments before it, folded": b" (a)\r\n\t(b (c) d) example.com; spf=pass",
    "a comment directly behind it": b"example.com(x); spf=pass",
    "comments on both sides": b"(x)example.com(y).evil.test; spf=pass",
    "a comment inside": b"exam(x)ple.com; spf=pass",
    "a comment inside and one before": b"(a) exam(x)ple.com; spf=pass",
    "a quoted-pair in a comment": rb"(a \) b) example.com; spf=pass",
    "for who knows no quoted-pair": rb"(a \) example.com; spf=pass",
    "for who knows no quoted-pair, inside a real comment": rb"(a \) example.com) other.test; spf=pass",
    "for who knows no nesting": b"(a (b) example.com; spf=pass",
    "for who knows nesting, but no quoted-pair": rb"(a (b \) c) example.com; spf=pass",
    "an unclosed comment": b"(example.com; spf=pass",
    "an unopened comment": b") example.com; spf=pass",
    "quoted": b'"example.com"; spf=pass',
    "quoted with white space": b'" example.com "; spf=pass',
    "quoted with quoted-pairs": rb'"ex\ample.com"; spf=pass',
    "an unclosed quoted-string": b'"example.com; spf=pass',
    "single specials before it": b"<example.com>; spf=pass",
    "an empty first part": b"; example.com; spf=pass",
    "no semicolon": b"example.com spf=pass",
    "another separator": b"example.com, spf=pass",
    "an empty value": b"example.com; spf=pass smtp.mailfrom=; dkim=pass",
    "a malformed rest": b'example.com; ((("=;',
    "NUL before it": b"\0example.com; spf=pass",
    "NUL inside": b"exam\0ple.com; spf=pass",
    "NUL behind it": b"example.com\0.evil.test; spf=pass",
    "controls around it": b"\x01\x7fexample.com\x1b; spf=pass",
    "bytes that are not UTF-8 around it": b"\xff\xfeexample.com\xff; spf=pass",
    "a byte order mark": b"\xef\xbb\xbfexample.com; spf=pass",
    "a zero width space inside": "exam\u200bple.com; spf=pass".encode(),
    "a soft hyphen inside": "exam\xadple.com; spf=pass".encode(),
    "folded inside, for who drops the fold whole": b"exam\r\n ple.com; spf=pass",
    "a letter inside, for a reader that drops what is not ASCII": "examéple.com; spf=pass".encode(),
    "a letter in front, for a reader that drops what is not ASCII": "é(a)example.com; spf=pass".encode(),
    "a full stop of another script in front": "。example.com; spf=pass".encode(),
    "apostrophes for quotes": b"'example.com'; spf=pass",
    "full width letters": "ｅｘａｍｐｌｅ．ｃｏｍ; spf=pass".encode(),
    "an ideographic full stop": "example。com; spf=pass".encode(),
    "a U-label": "bücher.example; spf=pass".encode(),
    "a U-label in upper case": "BÜCHER.example; spf=pass".encode(),
    "a U-label with a combining mark": "bu\u0308cher.example; spf=pass".encode(),
    "an A-label": b"xn--bcher-kva.example; spf=pass",
    "an A-label in upper case": b"XN--BCHER-KVA.EXAMPLE 1; spf=pass",
    "an id that is no token": b'"mail gateway"; spf=pass',
    "an encoded-word, quoted-printable": b"=?utf-8?q?ex=61mple.com?=; spf=pass",
    "an encoded-word, base64": b"=?US-ASCII?B?ZXhhbXBsZS5jb20=?=; spf=pass",
    "an encoded-word, base64 without padding": b"=?US-ASCII?B?ZXhhbXBsZS5jb20?=; spf=pass",
    "an encoded-word of the whole field": b"=?utf-8?q?example.com=3B_spf=3Dpass?=",
    "an encoded-word in UTF-16": b"=?utf-16le?q?e=00x=00a=00m=00p=00l=00e=00.=00c=00o=00m=00?=; spf=pass",
    "two encoded-words": b"=?utf-8?q?exam?=\r\n =?utf-8?q?ple.com?=; spf=pass",
    "an encoded-word inside": b"ex=?utf-8?q?ample?=.com; spf=pass",
    "an encoded-word in a comment before": b"(=?utf-8?q?=29?= example.com; spf=pass",
    "an encoded-word of nobody knows what": b"=?utf-8?q?other.test?=; spf=pass",
    "an encoded-word behind an empty part": b"; =?utf-8?q?example.com?=; spf=pass",
    "more before it than anybody writes": b"(" + b"a" * 2000 + b") example.com; spf=pass",
    "more comments before it than anybody writes": b"()" * 60 + b"example.com; spf=pass",
    "cut inside the id": b"(a)" + b" " * 1015 + b"example.com; spf=pass",
    "cut inside a quoted id": b"(a)" + b" " * 1010 + b'"mail gateway"; spf=pass',
    "cut inside an encoded-word": b"(a)" + b" " * 1000 + b"=?utf-8?q?example.com?=; spf=pass",
    "cut at the last mark inside the id": b"()" * 30 + rb"exam\ple.com; spf=pass",
    "longer than any name in another script": b"(a) " + "ü".encode() * 254 + b"; spf=pass",
    "white space without end": b" " * 2000 + b"\texample.com ;",
}

NOT_CLAIMED = {
    "nothing": b"",
    "white space": b" \r\n\t",
    "another's": b" other.test; spf=pass",
    "ours in front of a longer name": b"example.com.evil.test; spf=pass",
    "ours in front of a hyphen": b"example.com-evil.test; spf=pass",
    "ours in front of an underscore": b"example.com_; spf=pass",
    "ours behind a label": b"evil.example.com; spf=pass",
    "ours behind a hyphen": b"evil-example.com; spf=pass",
    "a label inserted": b"example.evil.com; spf=pass",
    "ours in a value": b"other.test; spf=pass smtp.mailfrom=example.com",
    "ours in a result's place": b"other.test; example.com; spf=pass",
    "ours in the version's place": b"other.test example.com; spf=pass",
    "ours in a comment": b"other.test (example.com); spf=pass",
    "ours in a comment before": b"(example.com) other.test; spf=pass",
    "ours behind a comment behind the id": b"other.test (a) example.com; spf=pass",
    "ours in a quoted-string behind": b'other.test; spf=pass reason="example.com"',
    "Office 365, without an id": b" spf=pass (sender IP is 192.0.2.1)\r\n smtp.mailfrom=example.com; dkim=none",
    "long, but not ours": b"(a) other.test; spf=pass (" + b"example.com " * 500 + b")",
    "long and folded, but not ours": b"\r\n other.test\r\n ; spf=pass (a)\r\n" + b" smtp.helo=example.com" * 100,
    "many comments, but not ours": b"(a) other.test; spf=pass " + b"(b)" * 500,
    "an encoded-word behind another's name": b"other.test; spf=pass smtp.helo==?utf-8?q?example.com?=",
    "longer than any name": b"(a) " + b"u" * 500 + b"; spf=pass",
    "a letter of another script": "ехаmple.com; spf=pass".encode(),
}


@pytest.mark.parametrize("value", CLAIMED.values(), ids=CLAIMED)
def test_claimed(value: bytes) -> None:
    assert authres.claims(value, OURS)


@pytest.mark.parametrize("value", NOT_CLAIMED.values(), ids=NOT_CLAIMED)
def test_not_claimed(value: bytes) -> None:
    assert not authres.claims(value, OURS)


@pytest.mark.parametrize(
    ("value", "claimed"),
    [
        pytest.param(b"example.com; none", True, id="the domain itself"),
        pytest.param(b"mx1.Example.COM.; none", True, id="below it"),
        pytest.param(b"(a) mx1.example.com; none", True, id="below it, commented"),
        pytest.param(b"evilexample.com; none", False, id="no label boundary"),
        pytest.param(b"example.com.evil.test; none", False, id="in front"),
    ],
)
def test_subdomains(value: bytes, claimed: bool) -> None:
    assert authres.claims(value, (), subdomains_of=["Example.com"]) is claimed


SPF_CLAIMED = {
    "the receiver key": b"pass receiver=example.com; client-ip=192.0.2.1;",
    "the receiver key further behind": b"Pass (mailfrom) identity=mailfrom; client-ip=192.0.2.1; receiver=example.com",
    "the comment's head": b" pass (example.com: domain of a@b.test designates 192.0.2.1) client-ip=192.0.2.1;",
    "the comment's head with white space": b"pass ( example.com : ok)",
    "the comment's head folded": b"pass\r\n\t(\r\n\texample.com: ok)",
    "other case and a final dot": b"pass RECEIVER=Example.COM.;",
    "quoted": b'pass receiver="example.com"',
    "quoted with quoted-pairs": rb'pass receiver="exampl\e.com"',
    "white space and folding": b"pass receiver =\r\n\t example.com",
    "comments": b"pass receiver (a) = (b) example.com",
    "in angle brackets": b"pass receiver=<example.com>",
    "a NUL inside": b"pass receiver=example\0.com",
    "a letter inside, for a reader that drops what is not ASCII": "pass receiver=examéple.com".encode(),
    "a letter in the comment, for the same reader": "pass (examéple.com: ok)".encode(),
    "apostrophes for quotes": b"pass receiver='example.com'",
    "a U-label": "pass receiver=bücher.example".encode(),
    "an A-label": b"pass (xn--bcher-kva.example: ok)",
    "longer than anybody writes": b"pass (a) " + b"x" * 5000,
    "more comments than anybody writes": b"pass " + b"()" * 100,
    "more names than anybody writes": b"pass " + b"".join(b"receiver=a%d;" % number for number in range(30)),
    "an encoded-word": b"pass receiver==?utf-8?q?example.com?=",
}

SPF_NOT_CLAIMED = {
    "nothing": b"",
    "another's": b"pass (other.test: domain of a@example.com designates 192.0.2.1) receiver=other.test;",
    "no receiver": b'pass (mailfrom) identity=mailfrom; envelope-from="a@example.com"; helo=example.com',
    "an unknown receiver": b"Pass (mailfrom) identity=mailfrom; helo=example.com; receiver=<UNKNOWN>",
    "ours in front of a longer name": b"pass (example.com.evil.test: ok) receiver=example.com.evil.test",
    "another key that ends alike": b"pass x-receiver=example.com",
}


@pytest.mark.parametrize("value", SPF_CLAIMED.values(), ids=SPF_CLAIMED)
def test_received_spf_is_forged(value: bytes) -> None:
    assert authres.forged_received_spf(value, OURS)


@pytest.mark.parametrize("value", SPF_NOT_CLAIMED.values(), ids=SPF_NOT_CLAIMED)
def test_received_spf_is_anothers(value: bytes) -> None:
    assert not authres.forged_received_spf(value, OURS)
