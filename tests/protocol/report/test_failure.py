# SPDX-License-Identifier: GPL-3.0-or-later
"""Failure reports: what they say, and what they must not say (RFC 9991, RFC 6591, RFC 5965, RFC 6590)."""

from __future__ import annotations

import email
import email.policy
import os
import time
from email.message import EmailMessage
from pathlib import Path
from typing import Any, cast

import parsedmarc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from assay.model.message import Header, HeaderField, split_message
from assay.model.name import Domain, Mailbox, ReversePath
from assay.protocol.report import (
    AuthFailure,
    DeliveryResult,
    FailedSignature,
    FailureReport,
    Letterhead,
    PublishedSpf,
    Redactor,
    failure_mail,
)
from assay.protocol.report.failure import MAX_SUBJECT
from assay.protocol.report.redaction import MAX_HEADER
from reporting import END, hostile, no_complaints

GOLDEN = Path(__file__).parent / "golden"
UPDATE = bool(os.environ.get("GOLDEN_UPDATE"))
RECEIVER = Domain("mx.example.net")
LETTERHEAD = Letterhead("Example Mail", Mailbox("dmarc", RECEIVER), RECEIVER, END + 60)
TO = (Mailbox("failures", Domain("example.org")),)
REDACTOR = Redactor(b"a secret")

ORIGINAL, _ = split_message(
    b"Return-Path: <joe.doe@example.org>\r\n"
    b"Received: from mail.example.org (mail.example.org [192.0.2.66]\r\n"
    b"\t(Authenticated sender: joe.doe)) by mx.example.net\r\n"
    b"\tfor <ann.lee@example.net>; Thu, 16 Nov 2023 00:59:00 +0100\r\n"
    b"DKIM-Signature: v=1; a=rsa-sha256; d=example.org; s=rsa; i=joe.doe@example.org;\r\n h=from; bh=QUJD; b=QUJD\r\n"
    b"X-Customer: Ann Lee, 4711\r\n"
    b"List-Unsubscribe: <https://example.org/?token=annlee>\r\n"
    b'From: "Joe Doe" <Joe.Doe@example.org>\r\n'
    b'To: "Ann Lee" <"ann lee"@example.net>,\r\n bob.doe@example.net (Robert Doe)\r\n'
    b"Subject: Hello joe.doe@example.org, your parcel\r\n"
    b"Message-ID: <4711.abc@example.org>\r\n"
    b"Date: Thu, 16 Nov 2023 00:59:00 +0100\r\n"
    b"\r\nbody of the message\r\n"
)
REPORT = FailureReport(
    "example.org",
    AuthFailure.DMARC,
    dkim_aligned=False,
    spf_aligned=False,
    authentication_results="mx.example.net;\r\n\tdmarc=fail header.from=example.org",
    delivery_result=DeliveryResult.REJECT,
    arrival=END,
    generator="assay/0.1",
    source_ip="192.0.2.66",
    mail_from=ReversePath.parse("joe.doe@example.org"),
    envelope_id="4STORED",
    incidents=3,
    signature=FailedSignature("example.org", "rsa", "joe.doe@example.org"),
    spf_record=PublishedSpf("example.org", 'v=spf1 ip4:192.0.2.10 exp="x\\y" -all'),
    header=ORIGINAL,
)


def mail(report: FailureReport = REPORT) -> bytes:
    return b"".join(failure_mail(report, LETTERHEAD, TO, REDACTOR).octets())


def parsed(octets: bytes) -> EmailMessage:
    return cast(EmailMessage, email.message_from_bytes(octets, policy=email.policy.default))


def feedback(octets: bytes) -> EmailMessage:
    """The machine-readable part, whose fields are read as a header (RFC 5965, 3)."""
    raw = octets.split(b"message/feedback-report\r\n\r\n")[1].partition(b"\r\n--=_")[0]
    return parsed(raw)


def independently_read(octets: bytes) -> Any:
    with no_complaints():
        found = parsedmarc.parse_report_email(octets, offline=True, always_use_local_files=True)
    assert found["report_type"] == "failure"
    return found["report"]


def test_the_octets_are_the_golden_ones() -> None:
    octets = mail()
    path = GOLDEN / "failure.eml"
    if UPDATE:
        path.write_bytes(octets)
    assert octets == path.read_bytes()
    assert octets == mail()


def test_another_reader_reads_it() -> None:
    read = independently_read(mail())
    assert read["feedback_type"] == "auth-failure"
    assert read["auth_failure"] == ["dmarc"]
    assert read["authentication_mechanisms"] == ["dkim", "spf"]
    assert read["reported_domain"] == "example.org"
    assert read["source"]["ip_address"] == "192.0.2.66"
    assert read["arrival_date_utc"] == "2023-11-16 00:00:00"
    assert read["delivery_result"] == "reject"
    assert read["dkim_domain"] == "example.org"
    assert read["dkim_selector"] == "rsa"
    assert read["original_envelope_id"] == "4STORED"
    assert read["authentication_results"] == "mx.example.net; dmarc=fail header.from=example.org"
    assert read["sample_headers_only"]
    assert read["incidents"] == "3"


def test_its_parts_are_those_of_the_rfc() -> None:
    message = parsed(mail())
    assert message.get_content_type() == "multipart/report"
    assert message.get_param("report-type") == "feedback-report"
    assert [part.get_content_type() for part in message.iter_parts()] == [
        "text/plain",
        "message/feedback-report",
        "text/rfc822-headers",
    ]
    assert message["Auto-Submitted"] == "auto-generated"
    assert str(message["Subject"]).startswith("FW: Hello ")
    assert feedback(mail())["SPF-DNS"] == r'txt : example.org : "v=spf1 ip4:192.0.2.10 exp=\"x\\y\" -all"'


@pytest.mark.parametrize(
    ("dkim", "spf", "alignment"), [(0, 0, "dkim, spf"), (1, 0, "spf"), (0, 1, "dkim"), (1, 1, "none")]
)
def test_identity_alignment_names_what_failed(dkim: int, spf: int, alignment: str) -> None:
    found = feedback(mail(replace(REPORT, dkim_aligned=bool(dkim), spf_aligned=bool(spf))))
    assert found["Identity-Alignment"] == alignment


@pytest.mark.parametrize(
    ("changes", "absent"),
    [
        ({"source_ip": ""}, "Source-IP"),
        ({"mail_from": None}, "Original-Mail-From"),
        ({"mail_from": ReversePath.parse("no address")}, "Original-Mail-From"),
        ({"envelope_id": ""}, "Original-Envelope-Id"),
        ({"incidents": 1}, "Incidents"),
        ({"signature": None}, "DKIM-Domain"),
        ({"signature": None}, "DKIM-Selector"),
        ({"signature": None}, "DKIM-Identity"),
        ({"spf_record": None}, "SPF-DNS"),
    ],
)
def test_what_is_not_known_is_left_out(changes: dict[str, Any], absent: str) -> None:
    assert feedback(mail())[absent] is not None
    assert feedback(mail(replace(REPORT, **changes)))[absent] is None


@pytest.mark.parametrize(
    ("changes", "field", "expected"),
    [
        ({"source_ip": "2001:db8::1"}, "Source-IP", "2001:db8::1"),
        (
            {"authentication_results": "mx.example.net;\r\n\tspf=fail smtp.mailfrom=joe.doe@example.org"},
            "Authentication-Results",
            f"mx.example.net; spf=fail smtp.mailfrom={REDACTOR.local_part('joe.doe')}@example.org",
        ),
        ({"mail_from": ReversePath.parse("")}, "Original-Mail-From", "<>"),
        ({"signature": FailedSignature("a.example", "s")}, "DKIM-Identity", "@a.example"),
        ({"signature": FailedSignature("a.example", "s", "@b.a.example")}, "DKIM-Identity", "@b.a.example"),
        ({"incidents": 1 << 40}, "Incidents", "4294967295"),
        ({"header": Header()}, "Reported-Domain", "example.org"),
    ],
)
def test_values_have_the_form_of_the_rfc(changes: dict[str, Any], field: str, expected: str) -> None:
    assert feedback(mail(replace(REPORT, **changes)))[field] == expected


def test_an_ipv6_client_is_read_by_another_reader() -> None:
    read = independently_read(mail(replace(REPORT, source_ip="2001:db8::1")))
    assert read["source"]["ip_address"] == "2001:db8::1"


def test_nobody_is_named() -> None:
    octets = mail().lower()
    for private in (b"joe", b"doe", b"ann", b"lee", b"bob", b"robert", b"4711, ", b"token", b"body of the message"):
        assert private not in octets.replace(b"4711.abc", b""), private
    for kept in (b"4711.abc@example.org", b"192.0.2.66", b"your parcel", b"d=example.org", b"x-customer: (redacted)"):
        assert kept in octets, kept


def test_the_same_address_has_the_same_hash_and_another_key_another() -> None:
    hashed = REDACTOR.local_part("joe.doe")
    assert mail().count(hashed.encode() + b"@example.org") == 6  # the reverse-path, i= and the Subject, each twice
    assert Redactor(b"another").local_part("joe.doe") != hashed
    assert REDACTOR.local_part("Joe.Doe") != hashed  # only its host knows whether case matters


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("to joe@a.example now", "to {joe}@a.example now"),
        ("<joe=b.example@a.example>", "<{joe=b.example}@a.example>"),
        ('"joe doe"@a.example', "{joe doe}@a.example"),
        ('"see joe@a.example" x', '"see {joe}@a.example" x'),
        ("smtp.mailfrom=joe@a.example; header.i=@a.example", "smtp.mailfrom={joe}@a.example; header.i=@a.example"),
        ('envelope-from="joe@a.example"', 'envelope-from="{joe}@a.example"'),
        ("jöe@a.example", "{jöe}@a.example"),
        ("a b=c; d=e.example", "a b=c; d=e.example"),
        ("@a.example", "@a.example"),
        ("(userid 1000) (AUTH=joe)", "(userid (redacted)) (AUTH=(redacted))"),
        ("(Authenticated sender: joe doe) by x", "(Authenticated sender: (redacted)) by x"),
        ("(user=joe mech=LOGIN) (authid joe) (AUTH: PLAIN joe)", "(user=# mech=LOGIN) (authid #) (AUTH: PLAIN #)"),
        ("<joe\r\n @a.example>", "<{joe}\r\n @a.example>"),
        ("joe\uff20a.example", "{joe}\uff20a.example"),
        ("<jo\0e@a.example>", "<{jo\0e}@a.example>"),
        ("jo\\e@a.example", "{jo\\e}@a.example"),
        ("joe(a comment)@a.example", "{joe}@a.example"),
        ("joe (a (deep) one) @a.example", "{joe}  @a.example"),
        ("(from joe@a.example)", "(from {joe}@a.example)"),
        ('"joe doe" (a comment) @a.example', "{joe doe}  @a.example"),
        ('smtp.mailfrom="joe doe"@a.example', "smtp.mailfrom={joe doe}@a.example"),
        ('"joe \\doe"@a.example', "{joe doe}@a.example"),
        ("x joe@a.example, joe@b.example", "x {joe}@a.example, {joe}@b.example"),
        ('He said "hello', 'He said "hello'),
        ("a :-) b", "a :-) b"),
        ('(Authenticated sender: joe (x) "doe") by x', "(Authenticated sender: #) by x"),
        ('(user="joe doe" x)', "(user=# x)"),
        ("name*=utf-8''joe%40a.example", "{name*=utf-8''joe}@a.example"),
    ],
)
def test_addresses_in_text_are_redacted(text: str, expected: str) -> None:
    expected = expected.replace("#", "(redacted)")
    for name in ("joe", "joe=b.example", "joe doe", "jöe", "jo\0e", "jo\\e", "name*=utf-8''joe"):
        expected = expected.replace("{" + name + "}", REDACTOR.local_part(name))
    assert REDACTOR.text(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("=?utf-8?q?F=C3=BCr_joe=40a.example?=", "Für {joe}@a.example"),
        ("=?UTF-8?B?RsO8ciBqb2VAYS5leGFtcGxl?=", "Für {joe}@a.example"),
        ("=?utf-8*de?q?joe?=\r\n =?utf-8?q?=40a.example?= x", "{joe}@a.example x"),
        ("joe =?utf-8?q?=40?= a.example", "{joe} @ a.example"),
        ("joe=?utf-8?q?=40a.example?=", "{joe}@a.example"),
        ("=?utf-8?q?joe?=@a.example", "{=?utf-8?q?joe?=}@a.example"),
        ("=?utf-8?q?joe=EF=BC=A0a.example?=", "{joe}\uff20a.example"),
        ("=?gb2312?b?am9lQGEuZXhhbXBsZQ==?=", "{joe}@a.example"),
        ("=?utf-8?q?=40_=3D=3Futf-8=3Fq=3Fjoe=3D40a=3F=3D?=", "@ = ?utf-8?q?joe=40a?="),  # no encoded-word any more
        ("=?utf-7?q?joe+AEA-a.example?= x", "(redacted) x"),
        ("=?utf-8?b?x?= y", "(redacted) y"),
        ("=?iso-8859-12?q?x?= y", "(redacted) y"),
        ("=?utf-8?q?F=C3=BCr_dich?= =?utf-8?b?eA==?=", "=?utf-8?q?F=C3=BCr_dich?= =?utf-8?b?eA==?="),
        ("a =?utf-8?q?", "a =?utf-8?q?"),
    ],
)
def test_encoded_words_hide_no_address(text: str, expected: str) -> None:
    for name in ("joe", "=?utf-8?q?joe?="):
        expected = expected.replace("{" + name + "}", REDACTOR.local_part(name))
    assert REDACTOR.text(text) == expected


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("Received", "by x for <joe>; today", "by x for (redacted); today"),
        ("Received", "by x for joe", "by x for (redacted)"),
        ("Received", 'by x for "joe doe"; today', "by x for (redacted); today"),
        ("Received", 'by x for <"joe > doe"> (TLS); today', "by x for (redacted) (TLS); today"),
        ("Received", "by x for joe (added); today", "by x for (redacted) (added); today"),
        ("Return-Path", "<joe>", "(redacted)"),
        ("Return-Path", "<>", "<>"),
        ("DKIM-Signature", "v=1; i=jo\r\n e@a.example; d=a.example", "v=1; i={joe}@a.example; d=a.example"),
        ("DKIM-Signature", "v=1; i=@a.example; d=a.example", "v=1; i=@a.example; d=a.example"),
        ("Received", "from x by y with SMTP id z; today", "from x by y with SMTP id z; today"),
        (
            "DKIM-Signature",
            "v=1; z=From:=22Joe=20Doe=22|To:joe=40a.example; bh=40zz=; b=zz",
            "v=1; z=(redacted); bh=40zz=; b=zz",
        ),
        ("ARC-Message-Signature", "z = From:Joe; i=1", "z =(redacted); i=1"),
        ("joe@a.example", "x", "(redacted)"),
        ("From", "<x@[joe@a.example]>", "<{x}@[{joe}@a.example]>"),
        ("Message-ID", "<joe@a.example>", "<joe@a.example>"),
        ("Message-ID", "<x> joe@a.example", "<x> {joe}@a.example"),
    ],
)
def test_nothing_in_a_field_names_anybody(name: str, value: str, expected: str) -> None:
    (field,), _ = REDACTOR.header(Header((HeaderField(name.encode(), f" {value}".encode()),)))
    for local_part in ("joe", "x"):
        expected = expected.replace("{" + local_part + "}", REDACTOR.local_part(local_part))
    shown = name.replace("joe@", f"{REDACTOR.local_part('joe')}@")
    assert field.raw.decode() == f"{shown}: {expected}\r\n"


@pytest.mark.parametrize(
    "piece",
    [
        '"',
        "=?",
        "=?utf-8?q?x?= ",
        "=?utf-8?q?",
        " ",
        "a ",
        '"a@',
        "for ",
        ";z=",
        "auth: ",
        "\\",
        "%40",
        "@",
        "a(",
        '"(',
        "()",
        "(",
        '""',
        '"".',
        "a. ",
        '"a" ',
        "a.(c)",
        "for <",
        'for "',
        ";i=",
        "authenticated sender: ",
    ],
)
def test_a_long_text_is_read_in_linear_time(piece: str) -> None:
    text = (piece * MAX_HEADER)[:MAX_HEADER]
    began = time.process_time()
    for name in ("Subject", "Received", "DKIM-Signature"):
        REDACTOR.header(Header((HeaderField(name.encode(), text.encode()),)))
    assert time.process_time() - began < 2.0  # quadratic time takes minutes


FROM_MTAS = [
    'from mail.a.example (mail.a.example [192.0.2.1]) (using TLSv1.3 (256/256 bits))\r\n\t(Client CN "a", '
    'Issuer "R3" (verified OK))\r\n\tby b.example (Postfix) with ESMTPS id 4Q\r\n\tfor <{joe}@b.example>; (date)',
    "from mail.a.example ([192.0.2.1]:41234) by b.example with esmtps (TLS1.3) tls X (Exim 4.96)\r\n"
    " (envelope-from <{joe}@a.example>) id 1r3 for {joe}@b.example; (date)",
    "(qmail 1234 invoked by uid 89); (date)",
    "from unknown (HELO mail.a.example) ({joe}@192.0.2.1) by b.example with SMTP; (date)",
    "b.example; dkim=pass header.i=@a.example header.b=AbC/1=; spf=pass (b.example: domain of {joe}@a.example "
    "designates 192.0.2.1 as permitted sender) smtp.mailfrom={joe}@a.example; dmarc=fail (p=REJECT)",
    "Pass (b.example: domain of {joe}@a.example designates 192.0.2.1 as permitted sender) identity=mailfrom; "
    'envelope-from="{joe}@a.example"; client-ip=192.0.2.1;',
]


@pytest.mark.parametrize("text", FROM_MTAS)
def test_what_mtas_write_stays_but_for_the_local_parts(text: str) -> None:
    assert REDACTOR.text(text.replace("{joe}", "joe.doe")) == text.replace("{joe}", REDACTOR.local_part("joe.doe"))


@pytest.mark.parametrize(
    "text",
    [
        '"see joe@a.example',
        '(HELO "a" joe)doe"@a.example x"@b.example',
        'HELO " x for <"joe doe"@a.example>',
        'HELO " x for <"joe doe"@a.example> "',
        'HELO " x for <" joe" @a.example> "',
        'HELO " x for <"joe doe".x@a.example> "',
        'HELO \\"joe doe"@a.example',
        '"joe doe\\"@a.example',
        "joe (a (comment) @a.example",
        "joe (a (comment) b) c) @a.example",
        '(see "joe doe"@a.example)',
        "(joe (a comment) @a.example)",
        '"joe (x) .doe@a.example"',
        '("joe(x"@a ) )',
        "<joe>@a.example",
        '(HELO "joe)doe". x@a.example"@b.example',
        '"joe.(", ") doe@a.example"',
        '"x"joe " "@a.example',
        'joe"x@a.example"',
        '(x "joe) doe" "@a.example',
        "joe)@a.example",
        "[joe]@a.example",
        "(joe, .doe@a.example)",
    ],
)
def test_what_is_not_clear_is_not_shown(text: str) -> None:
    assert REDACTOR.text(text) == "(redacted)"


#: Parts of local parts by which they are recognized.
_marks = st.sampled_from(["zulu", "Yankee", "x-ray", "whiskey+v", "üniform", "t'ango", "s!erra=r"])
_between = st.sampled_from(["", " ", '\\"', "\\\\", "@", "(", ")", "\\x", ">", ";", ". ", "\t"])
_quoted_marks = st.tuples(_marks, _between, _marks).map(lambda parts: f'"{"".join(parts)}"')
_dots = st.sampled_from([".", " . ", "(c).", ". (c (d)) ", ".\r\n "])
_local_parts = st.one_of(
    _marks,
    _quoted_marks,
    st.tuples(_marks, _dots, _marks).map("".join),
    st.tuples(_marks, _dots, _quoted_marks).map("".join),
    st.tuples(_quoted_marks, _dots, _marks).map("".join),
)
_before_at = st.sampled_from(["", "", " ", "(c)", " (c (d)) ", "\r\n "])
_PIECES = [
    '"', "\\", "(", ")", "<", ">", "[", "]", ":", ";", ",", ".", " ", "\r\n ", "@", "=", "a", "i=", '""', "?=",
    '"a" ', "(a)",
    "from h (HELO ", "for <", "smtp.mailfrom=", "%40", "=?utf-8?q?a?=", "=?", "\0", "\u3000", "\uff20", "b@c.example",
]  # fmt: skip
_junk = st.lists(st.sampled_from(_PIECES), max_size=6).map("".join)
_names = st.sampled_from(["Received", "Subject", "DKIM-Signature", "Content-Type"])


@settings(deadline=None, max_examples=500)
@given(
    st.sampled_from(["Received", "Subject", "DKIM-Signature", "Content-Type"]), _junk, _local_parts, _before_at, _junk
)
def test_no_local_part_survives(name: str, before: str, local_part: str, gap: str, after: str) -> None:
    """Nothing of a local part is left, regardless of the text around the address."""
    text = f"{before} {local_part}{gap}@a.example{after}"
    (field,), _ = REDACTOR.header(Header((HeaderField(name.encode(), f" {text}".encode()),)))
    shown = field.raw.decode().lower()
    for mark in ("zulu", "yankee", "x-ray", "whiskey", "niform", "ango", "erra"):
        assert mark not in shown, text


@settings(deadline=None, max_examples=500)
@given(_junk, _local_parts, _before_at, _junk)
def test_no_local_part_survives_whatever_is_glued_to_it(before: str, local_part: str, gap: str, after: str) -> None:
    text = f"{before}{local_part}{gap}@a.example{after}"
    shown = REDACTOR.text(text).lower()
    for mark in ("zulu", "yankee", "x-ray", "whiskey", "niform", "ango", "erra"):
        assert mark not in shown, text


TEXT = "x (joe@a.example) y"


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (
            "From Sender To Cc Reply-To Resent-From Resent-Sender Resent-To Resent-Cc",
            "(not readable: text after an address)",
        ),
        (
            "Date Message-ID MIME-Version Content-Transfer-Encoding List-Id Precedence Auto-Submitted"
            " Received Return-Path Subject Content-Type DKIM-Signature Authentication-Results Received-SPF"
            " ARC-Seal ARC-Message-Signature ARC-Authentication-Results",
            f"x ({REDACTOR.local_part('joe')}@a.example) y",
        ),
        ("Bcc Delivered-To X-Original-To List-Unsubscribe In-Reply-To References Comments X-A", "(redacted)"),
    ],
)
def test_what_a_field_keeps_depends_on_its_name(names: str, expected: str) -> None:
    for name in names.split():
        text = f"{TEXT} <b@c.example> d" if expected.startswith("(not") else TEXT
        for spelled in (name, name.lower(), name.upper()):
            (field,), _ = REDACTOR.header(Header((HeaderField(spelled.encode(), f" {text}".encode()),)))
            assert field.raw.decode() == f"{spelled}: {expected}\r\n"


def test_a_long_header_is_cut_at_a_field() -> None:
    header = Header(tuple(HeaderField(b"Subject", b" " + b"x" * 500) for _ in range(1000)))
    fields, complete = REDACTOR.header(header)
    assert not complete
    assert MAX_HEADER - 600 < sum(len(field.raw) for field in fields) <= MAX_HEADER
    assert b"longer than what is included" in mail(replace(REPORT, header=header))


def test_a_long_subject_is_cut() -> None:
    header = Header((HeaderField(b"Subject", b" " + b"x" * 5000),))
    assert parsed(mail(replace(REPORT, header=header)))["Subject"] == "FW: " + "x" * MAX_SUBJECT


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(["From", "To", "Subject", "Received", "X-A", "Message-ID"]), hostile), max_size=4
    ),
    hostile,
    hostile,
)
def test_nothing_hostile_breaks_the_report(fields: list[tuple[str, str]], text: str, record: str) -> None:
    header = Header(
        tuple(
            HeaderField(name.encode(), value.encode("utf-8", "surrogatepass").replace(b"\n", b"\r\n"))
            for name, value in fields
        )
    )
    octets = mail(
        replace(
            REPORT,
            reported_domain="example.org" + text,
            authentication_results=text,
            envelope_id=text,
            signature=FailedSignature(text, text, text),
            spf_record=PublishedSpf("example.org", record),
            header=header,
        )
    )
    assert octets.isascii()
    assert all(len(line) <= 998 and not set(line) & {10, 13} for line in octets.split(b"\r\n"))
    message = parsed(octets)
    assert [part.get_content_type() for part in message.iter_parts()] == [
        "text/plain",
        "message/feedback-report",
        "text/rfc822-headers",
    ]
    assert set(feedback(octets).keys()) <= {
        "Feedback-Type", "User-Agent", "Version", "Auth-Failure", "Authentication-Results", "Identity-Alignment",
        "Delivery-Result", "Reported-Domain", "Reporting-MTA", "Arrival-Date", "Source-IP", "Original-Mail-From",
        "Original-Envelope-Id", "Incidents", "DKIM-Domain", "DKIM-Identity", "DKIM-Selector", "SPF-DNS",
    }  # fmt: skip
    reported, _ = split_message(octets.split(b"text/rfc822-headers\r\n\r\n")[1].partition(b"\r\n--=_")[0])
    assert [field.name for field in reported] == [field.name for field in header]
