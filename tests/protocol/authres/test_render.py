# SPDX-License-Identifier: GPL-3.0-or-later
"""What we write: the exact field, and that nothing in a value gets out of its place."""

from __future__ import annotations

import re
from enum import StrEnum

import pytest

from assay.protocol import authres
from assay.protocol.authres import MethodResult, Property

ID = "mx.example.org"


def spf(value: str, *, name: str = "mailfrom", reason: str = "", comment: str = "") -> MethodResult:
    return MethodResult("spf", "pass", reason, comment, (Property("smtp", name, value),))


class Word(StrEnum):
    FAIL = "fail"


GOLDEN = {
    "no result is none": ([], "mx.example.org; none"),
    "a result without evidence": ([MethodResult("dkim", "none")], "mx.example.org;\r\n\tdkim=none"),
    "one result a line": (
        [
            MethodResult(
                "iprev", "pass", comment="mail.example.net", properties=(Property("policy", "iprev", "192.0.2.1"),)
            ),
            spf("example.net"),
            MethodResult(
                "dmarc", Word.FAIL, "no aligned pass", "p=reject", (Property("header", "from", "example.net"),)
            ),
        ],
        "mx.example.org;\r\n"
        "\tiprev=pass (mail.example.net) policy.iprev=192.0.2.1;\r\n"
        "\tspf=pass smtp.mailfrom=example.net;\r\n"
        '\tdmarc=fail (p=reject) reason="no aligned pass" header.from=example.net',
    ),
    "a long result is folded at its spaces": (
        [
            MethodResult(
                "dkim",
                "pass",
                "the signature covers the whole message and the key is long enough for today",
                "2048-bit rsa key",
                (
                    Property("header", "d", "news.example.net"),
                    Property("header", "i", "@news.example.net"),
                    Property("header", "s", "s2026"),
                    Property("header", "b", "Qgi/FoC0"),
                ),
            )
        ],
        "mx.example.org;\r\n"
        '\tdkim=pass (2048-bit rsa key) reason="the signature covers the whole message\r\n'
        ' and the key is long enough for today" header.d=news.example.net\r\n'
        '\t\theader.i=@news.example.net header.s=s2026 header.b="Qgi/FoC0"',
    ),
}


@pytest.mark.parametrize(("results", "expected"), GOLDEN.values(), ids=GOLDEN)
def test_field(results: list[MethodResult], expected: str) -> None:
    assert authres.render(ID, results) == expected


VALUES = {
    "a domain is a token": ("example.net", "example.net"),
    "an address is an identity": ("user@example.net", "user@example.net"),
    "an identity without local part": ("@example.net", "@example.net"),
    "VERP keeps its equals sign": ("b=user=example.com@list.example", "b=user=example.com@list.example"),
    "SRS keeps its slash": ("SRS0=a/b=ZZ=x.example=u@fwd.example", "SRS0=a/b=ZZ=x.example=u@fwd.example"),
    "a quoted local part stays quoted": ('"a b"@example.net', '"a b"@example.net'),
    "a quoted local part with pairs": ('"a\\"; b"@example.net', '"?a??? b?@example.net"'),
    "a result in a local part": ("dmarc=pass@example.net", '"dmarc?pass@example.net"'),
    "a result in a quoted local part": ('"a dmarc=pass"@example.net', '"?a dmarc?pass?@example.net"'),
    "VERP of somebody whose name ends as a method's": ("b-marc=a@list.example", "b-marc=a@list.example"),
    "an internationalised address (RFC 6532)": ("jörg@bücher.example", "jörg@bücher.example"),
    "an internationalised domain (RFC 8616)": ("bücher.example", "bücher.example"),
    "base64 with a slash is quoted": ("Qgi/FoC0", '"Qgi/FoC0"'),
    "base64 with an equals sign is quoted": ("Qgi+FoC=", '"Qgi+FoC="'),
    "base64 with a plus sign is a token": ("Qgi+FoC0", "Qgi+FoC0"),
    "IPv6 is quoted": ("2001:db8::1", '"2001:db8::1"'),
    "an address literal is quoted": ("user@[192.0.2.1]", '"user@[192.0.2.1]"'),
    "an empty value is an empty quoted-string": ("", '""'),
    "a semicolon cannot begin a result": ("x.example; dkim=pass", '"x.example? dkim?pass"'),
    "a semicolon in a domain": ("a@x.example;dkim=pass", '"a@x.example?dkim?pass"'),
    "a quote cannot end the value": ('x" header.d=victim.example', '"x? header.d?victim.example"'),
    "a backslash cannot eat the closing quote": ("x\\", '"x?"'),
    "a broken quoted local part": ('"a"b"@example.net', '"?a?b?@example.net"'),
    "a quoted local part that never ends": ('"a\\"@example.net', '"?a??@example.net"'),
    "a comment behind an address": ("a@x.example(c)", '"a@x.example?c?"'),
    "two at signs": ("a@b@c.example", '"a@b@c.example"'),
    "a space in an address": ("a b@example.net", '"a b@example.net"'),
    "a line end becomes a question mark": ("a\r\nX-Evil: b", '"a??X-Evil: b"'),
    "a bare LF": ("a\nb", '"a?b"'),
    "a line end in an address": ("a@x.example\r\n\tb", '"a@x.example???b"'),
    "a trailing LF is no end of string": ("example.net\n", '"example.net?"'),
    "a trailing LF in an address": ("a@example.net\n", '"a@example.net?"'),
    "NUL": ("a\0b", '"a?b"'),
    "DEL and C1 controls": ("a\x7f\x85b", '"a??b"'),
    "bytes that are not UTF-8": (b"a\xffb".decode("utf-8", "surrogateescape"), '"a?b"'),
    "a lone surrogate": ("a\ud800", '"a?"'),
    "line and paragraph separators": ("a\u2028\u2029b", '"a??b"'),
    "a right-to-left override": ("a\u202eb@example.net", '"a?b@example.net"'),
    "a no-break space": ("a\xa0b", '"a?b"'),
}


@pytest.mark.parametrize(("value", "expected"), VALUES.values(), ids=VALUES)
def test_value(value: str, expected: str) -> None:
    assert authres.render(ID, [spf(value)]) == f"{ID};\r\n\tspf=pass smtp.mailfrom={expected}"


COMMENTS = {
    "parentheses": (") dkim=pass (", "(] dkim?pass [)"),
    "a backslash": ("a\\", "(a/)"),
    "an escaped parenthesis": ("a\\) ; dkim=pass", "(a/] , dkim?pass)"),
    "line ends are white space": ("a\r\nX-Evil: b", "(a X-Evil: b)"),
    "NUL": ("a\0b", "(a?b)"),
    "nothing but white space": (" \r\n\t", ""),
    "bytes that are not UTF-8": ("a\udcffb", "(a?b)"),
}


@pytest.mark.parametrize(("comment", "expected"), COMMENTS.values(), ids=COMMENTS)
def test_comment(comment: str, expected: str) -> None:
    line = f"spf=pass {expected} smtp.helo=h.example" if expected else "spf=pass smtp.helo=h.example"
    assert authres.render(ID, [spf("h.example", name="helo", comment=comment)]) == f"{ID};\r\n\t{line}"


REASONS = {
    "a word": ("policy", "policy"),
    "several words": ("bad signature", '"bad signature"'),
    "a quote": ('a" header.d=victim.example "', "\"a' header.d?victim.example '\""),
    "line ends are white space": ("a\r\n\tb", '"a b"'),
}


@pytest.mark.parametrize(("reason", "expected"), REASONS.values(), ids=REASONS)
def test_reason(reason: str, expected: str) -> None:
    text = authres.render(ID, [MethodResult("dkim", "fail", reason)])
    assert text == f"{ID};\r\n\tdkim=fail reason={expected}"


def test_a_cut_value_reads_as_no_domain() -> None:
    victim = "x@" + "a." * 190 + "victim.example"
    text = authres.render(ID, [spf(victim + "." + "evil." * 40 + "test")])
    parsed = authres.parse(text.encode())
    assert isinstance(parsed, authres.AuthenticationResults)
    value = parsed.results[0].properties[0].value
    assert value.endswith("[...]")
    assert len(value) == 400
    assert f'smtp.mailfrom="{value}"' in re.sub(r"\r\n[ \t]+", " ", text)


def test_a_cut_does_not_split_a_character() -> None:
    text = authres.render(ID, [spf("é" * 500)])
    assert text.encode().decode() == text
    assert "é[...]" in text


@pytest.mark.parametrize("filler", ['"', "\\", "(", "a", " ", "a ", "é", "\0", "\r\n"])
def test_no_line_is_longer_than_a_line_may_be(filler: str) -> None:
    long = filler * 2000
    one = MethodResult("dkim", "fail", long, long, tuple(Property("header", name, long) for name in "disab"))
    lines = authres.render(long or ID, [one, one]).split("\r\n")
    assert max(len(line.encode()) for line in lines) < 998  # RFC 5322, 2.1.1
    assert all(line.strip(" \t") for line in lines)  # RFC 5322, 3.2.2: no line of white space only
    assert all(line[0] in " \t" for line in lines[1:])


def test_ordinary_results_stay_below_78_octets_a_line() -> None:
    long = "a reason that goes on and on " * 10
    one = MethodResult("dkim", "fail", long, long, (Property("header", "d", "a." * 20 + "example"),) * 6)
    lines = ("Authentication-Results: " + authres.render(ID, [one, one])).split("\r\n")
    assert max(len(line) for line in lines) <= 78


def test_an_id_that_is_not_a_token_is_quoted() -> None:
    assert authres.render("mail gateway 1", []) == '"mail gateway 1"; none'


@pytest.mark.parametrize(
    "one",
    [
        pytest.param(MethodResult("x-tls", "pass"), id="an unregistered method"),
        pytest.param(MethodResult("senderid", "pass"), id="sender-id is the registered name"),
        pytest.param(MethodResult("spf", "hardfail"), id="an obsolete result"),
        pytest.param(MethodResult("iprev", "none"), id="iprev has no none"),
        pytest.param(MethodResult("arc", "temperror"), id="arc has no temperror"),
        pytest.param(MethodResult("spf", "pass; dkim=pass"), id="a result that is no word"),
        pytest.param(MethodResult("spf", "Pass"), id="upper case"),
        pytest.param(
            MethodResult("dmarc", "pass", "", "", (Property("polrec", "p", "x"),)), id="an unregistered ptype"
        ),
        pytest.param(MethodResult("spf", "pass", "", "", (Property("smtp", "rcptto", "x"),)), id="another's property"),
        pytest.param(MethodResult("spf", "pass", "", "", (Property("policy", "a b", "x"),)), id="a name with a space"),
        pytest.param(
            MethodResult("spf", "pass", "", "", (Property("policy", "a\n", "x"),)), id="a name with a newline"
        ),
    ],
)
def test_unregistered_words_are_our_error(one: MethodResult) -> None:
    assert authres.unregistered(one)
    with pytest.raises(ValueError, match=re.escape(one.method)):
        authres.render(ID, [one])


@pytest.mark.parametrize("method", authres.METHODS)
def test_every_registered_word_can_be_written(method: str) -> None:
    for result in authres.METHODS[method].results:
        properties = tuple(Property(*name.split("."), "x") for name in sorted(authres.METHODS[method].properties))
        one = MethodResult(method, result, properties=(*properties, Property("policy", "x-y", "z")))
        assert authres.parse(authres.render(ID, [one]).encode()) == authres.AuthenticationResults(ID, 1, (one,))
