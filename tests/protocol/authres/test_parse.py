# SPDX-License-Identifier: GPL-3.0-or-later
"""What we read: the RFC's own worst, what large providers write, and what must be refused."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from assay.protocol import authres
from assay.protocol.authres import AuthenticationResults, MethodResult, Property

FIELDS = {
    "comments and folding around every token": (
        b" (a) srv.example (b) 1 (c(d)) \r\n\t; (e) spf (f) / (g) 1 (h) = (i) pass (j) \r\n reason (k) = (l) good (m)"
        b" smtp (n) . (o) helo (p) = (q) h.example (r) ; (s)",
        "srv.example",
        (MethodResult("spf", "pass", "good", "j", (Property("smtp", "helo", "h.example"),)),),
    ),
    "LF folding, as libmilter hands it over": (
        b"srv.example;\n\tspf=pass\n\tsmtp.helo=h.example",
        "srv.example",
        (MethodResult("spf", "pass", properties=(Property("smtp", "helo", "h.example"),)),),
    ),
    "a quoted id": (b'"srv example"; none', "srv example", ()),
    "none with a comment": (b"srv.example; NONE (nothing done)", "srv.example", ()),
    "a method that begins with none": (
        b"srv.example; nonesuch=pass",
        "srv.example",
        (MethodResult("nonesuch", "pass"),),
    ),
    "quoted-pairs in values and comments": (
        rb'srv.example; dkim=fail (a \) b) reason="a \"b\" \\"',
        "srv.example",
        (MethodResult("dkim", "fail", 'a "b" \\', "a ) b"),),
    ),
    "a parenthesis in a quoted-string is no comment": (
        b'srv.example; spf=pass smtp.helo="a(b" (c)',
        "srv.example",
        (MethodResult("spf", "pass", properties=(Property("smtp", "helo", "a(b"),)),),
    ),
    "a semicolon in a comment ends nothing": (
        b"srv.example; spf=pass (a; dkim=pass)",
        "srv.example",
        (MethodResult("spf", "pass", comment="a; dkim=pass"),),
    ),
    "a quoted local part keeps its quotes": (
        b'srv.example; spf=pass smtp.mailfrom="a b"@c.example smtp.helo=h',
        "srv.example",
        (
            MethodResult(
                "spf",
                "pass",
                properties=(Property("smtp", "mailfrom", '"a b"@c.example'), Property("smtp", "helo", "h")),
            ),
        ),
    ),
    "a comment without white space around it": (
        b"srv.example;dmarc=pass(p=none dis=none)header.from=c.example",
        "srv.example",
        (
            MethodResult(
                "dmarc", "pass", comment="p=none dis=none", properties=(Property("header", "from", "c.example"),)
            ),
        ),
    ),
    "no id, as Exchange writes it": (
        b"spf=none (sender IP is 192.0.2.1)\r\n smtp.helo=h.example; dkim=none (message not signed)\r\n header.d=none;",
        "",
        (
            MethodResult(
                "spf", "none", comment="sender IP is 192.0.2.1", properties=(Property("smtp", "helo", "h.example"),)
            ),
            MethodResult("dkim", "none", comment="message not signed", properties=(Property("header", "d", "none"),)),
        ),
    ),
    "an id and a version without results": (b"srv.example 1", "srv.example", ()),
    "the same with comments": (b" srv.example (a) 1 (b)\r\n ", "srv.example", ()),
    "methods with dots as Gmail writes them": (
        b"srv.example; gateway.spf=softfail smtp.mailfrom=a@b.example; gateway.dkim/1=pass",
        "srv.example",
        (
            MethodResult("gateway.spf", "softfail", properties=(Property("smtp", "mailfrom", "a@b.example"),)),
            MethodResult("gateway.dkim", "pass"),
        ),
    ),
    "equals signs and slashes in values": (
        b"srv.example; dkim=pass header.b=a/b+c== header.i=@a.example; spf=pass smtp.mailfrom=a+b=c.example@d.example",
        "srv.example",
        (
            MethodResult(
                "dkim", "pass", properties=(Property("header", "b", "a/b+c=="), Property("header", "i", "@a.example"))
            ),
            MethodResult("spf", "pass", properties=(Property("smtp", "mailfrom", "a+b=c.example@d.example"),)),
        ),
    ),
    "a pair before the first semicolon as Yahoo writes it": (
        b"srv.example  from=a.example; domainkeys=neutral (no sig); from=a.example; dkim=pass (ok)",
        "srv.example",
        (MethodResult("domainkeys", "neutral", comment="no sig"), MethodResult("dkim", "pass", comment="ok")),
    ),
    "what stands before the first semicolon is no result": (
        b"srv.example 1 dmarc=pass (a) spf=pass; dkim=fail",
        "srv.example",
        (MethodResult("dkim", "fail"),),
    ),
    "an empty smtp.mailfrom, as for bounces": (
        b"mx.qq.com; spf=none smtp.mailfrom=;\r\n dkim=none; spf=pass smtp.mailfrom=",
        "mx.qq.com",
        (
            MethodResult("spf", "none", properties=(Property("smtp", "mailfrom", ""),)),
            MethodResult("dkim", "none"),
            MethodResult("spf", "pass", properties=(Property("smtp", "mailfrom", ""),)),
        ),
    ),
    "empty values in quotes": (
        b'srv.example; spf=fail reason="" smtp.mailfrom=""',
        "srv.example",
        (MethodResult("spf", "fail", properties=(Property("smtp", "mailfrom", ""),)),),
    ),
    "Amazon's evidence among the results": (
        b"ses.example; spf=pass (ok) client-ip=192.0.2.1; envelope-from=a@c.example; helo=h.c.example; dmarc=none",
        "ses.example",
        (MethodResult("spf", "pass", comment="ok"), MethodResult("dmarc", "none")),
    ),
    "a result of another method version is left out": (
        b"srv.example; dkim/2=pass; spf/1=pass; spf/01=fail",
        "srv.example",
        (MethodResult("spf", "pass"), MethodResult("spf", "fail")),
    ),
    "bytes that are not UTF-8 survive": (
        b"srv.example; spf=pass smtp.helo=a\xff",
        "srv.example",
        (MethodResult("spf", "pass", properties=(Property("smtp", "helo", "a\udcff"),)),),
    ),
    "UTF-8": (
        "srv.example; spf=pass smtp.mailfrom=jörg@bücher.example".encode(),
        "srv.example",
        (MethodResult("spf", "pass", properties=(Property("smtp", "mailfrom", "jörg@bücher.example"),)),),
    ),
    "the words are compared in lower case": (
        b"Srv.Example; SPF=Pass SMTP.MailFrom=A@B.example",
        "Srv.Example",
        (MethodResult("spf", "pass", properties=(Property("smtp", "mailfrom", "A@B.example"),)),),
    ),
}


@pytest.mark.parametrize(("value", "authserv_id", "results"), FIELDS.values(), ids=FIELDS)
def test_field(value: bytes, authserv_id: str, results: tuple[MethodResult, ...]) -> None:
    assert authres.parse(value) == AuthenticationResults(authserv_id, 1, results)


FAULTS = {
    "nothing": b"",
    "white space and comments only": b" (a) \r\n\t(b)",
    "an id alone": b"srv.example",
    "an id and a semicolon": b"srv.example;",
    "no semicolon after the id": b"srv.example spf=pass",
    "a method without result": b"srv.example; spf",
    "a method with nothing behind it": b"srv.example; abc=",
    "the same before a comment": b"srv.example; abc=(a); spf=pass",
    "the same before another result": b"srv.example; spf=; dkim=pass",
    "a name with nothing behind it": b"srv.example; spf=pass abc=",
    "a reason with nothing behind it": b"srv.example; spf=fail reason= ; dkim=pass",
    "a property with nothing behind it": b"srv.example; dkim=pass header.d=; spf=pass",
    "a property whose value is a comment": b"srv.example; spf=pass smtp.mailfrom=(a)",
    "a property without an equals sign": b"srv.example; spf=pass smtp.mailfrom",
    "a ptype without a property": b"srv.example; spf=pass smtp.=a",
    "nothing behind a name before the first semicolon": b"srv.example from=; spf=pass",
    "a word before the first semicolon": b"srv.example from; spf=pass",
    "only a pair before the first semicolon": b"srv.example from=a.example;",
    "a result beside none": b"srv.example; none; spf=pass",
    "a second none": b"srv.example; none; none",
    "an unclosed comment": b"srv.example; spf=pass (a smtp.helo=b",
    "an unclosed comment behind a quoted-pair": b"srv.example; spf=pass (a\\)",
    "an unopened comment": b"srv.example; spf=pass a) smtp.helo=b",
    "an unclosed quoted-string": b'srv.example; spf=pass smtp.helo="a',
    "text behind a quoted-string": b'srv.example; spf=pass smtp.helo="a"=b',
    "a method version that is not a number": b"srv.example; spf/x=pass; spf/=pass",
    "longer than a field may be": b"srv.example; none (" + b"a" * 65536 + b")",
}


@pytest.mark.parametrize("value", FAULTS.values(), ids=FAULTS)
def test_fault(value: bytes) -> None:
    parsed = authres.parse(value)
    assert isinstance(parsed, authres.FieldFault)
    assert parsed.reason
    assert not parsed.unsupported_version


@pytest.mark.parametrize("version", [b"2", b"10", b"0", b"9" * 5000])
def test_an_unknown_version_may_mean_anything(version: bytes) -> None:
    parsed = authres.parse(b"srv.example " + version + b"; spf=pass")
    assert isinstance(parsed, authres.FieldFault)
    assert parsed.unsupported_version


HOSTILE = {
    "open comments": b"(" * 65536,
    "nested comments": b"srv.example; spf=pass " + b"(" * 32000 + b")" * 32000,
    "many comments": b"srv.example; spf=pass " + b"()" * 32000,
    "escaped parentheses": b"srv.example; spf=pass (" + b"\\(" * 32000,
    "backslashes": b"srv.example; spf=pass (" + b"\\" * 65000,
    "quotes": b"srv.example; spf=pass smtp.helo=" + b'"' * 65000,
    "a quoted-string of pairs without end": b'srv.example; spf=pass smtp.helo="' + b"\\a" * 32000,
    "semicolons": b"srv.example" + b";" * 65000,
    "results": b"srv.example" + b";a=b" * 16000,
    "properties": b"srv.example; spf=pass" + b" a.b=c" * 10000,
    "folds": b"srv.example;" + b"\r\n " * 21000,
    "bare line ends": b"srv.example;" + b"\r\n" * 32000,
    "dots": b"srv.example; spf=pass smtp." + b"a." * 32000,
    "digits": b"1" * 65000,
    "letters": b"a" * 65000,
    "an id and white space": b"a" + b" " * 65000,
    "an address of atoms": b"srv.example; spf=pass smtp.mailfrom=" + b"a." * 32000,
    "encoded-words": b"=?a?q?b?=" * 7000,
    "encoded-words without end": b"=?a?q?" * 10000,
    "equals signs": b"srv.example; spf=pass" + b" a=" * 21000,
}


@pytest.mark.parametrize("value", HOSTILE.values(), ids=HOSTILE)
def test_hostile_fields_take_linear_time(value: bytes) -> None:
    started = time.process_time()
    authres.parse(value)
    authres.claims(value, {"mx.example.org"})
    authres.forged_received_spf(value, {"mx.example.org"})
    assert time.process_time() - started < 1.0  # measured: 0.1 s; a quadratic reader needs minutes


_GRAMMAR = st.sampled_from(
    [
        *' \t;=./()"\\@<>,:?[]',
        "\r\n ",
        "\n\t",
        "\0",
        "\xff",
        "none",
        "spf",
        "pass",
        "reason",
        "smtp",
        "helo",
        "1",
        "a.example",
    ]
)


@settings(database=None, deadline=None)
@given(st.binary() | st.lists(_GRAMMAR).map(lambda parts: "".join(parts).encode("latin-1")))
def test_nothing_raises(value: bytes) -> None:
    assert isinstance(authres.parse(value), AuthenticationResults | authres.FieldFault)
    assert authres.claims(value, {"a.example"}) in {True, False}
    assert authres.forged_received_spf(value, {"a.example"}) in {True, False}
