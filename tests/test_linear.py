# SPDX-License-Identifier: GPL-3.0-or-later
"""What a stranger sends costs time in proportion to its size, whatever is in it.

Each row makes a hostile input of a size for one reader. Four times the size may take little more than four times the
time, and no input may take more than twenty times the time of an honest one of its size. What has a bound of its own
and falls back to an error beyond it passes easily; the rows are for what would be quadratic without care.
"""

from __future__ import annotations

import gc
import re
import socket
import struct
import time
import tomllib
from collections.abc import Callable, Sequence
from contextlib import suppress
from ipaddress import ip_address
from math import inf
from pathlib import Path

import pytest
from msgspec.structs import replace

import signing
from assay import caches, policy
from assay.assessment import Assessment
from assay.inquiry import Asker, Inquiry, Question, RecordType
from assay.log import quote
from assay.model.message import Header, HeaderField, split_message
from assay.model.name import Domain, ReversePath
from assay.model.smtp import Envelope
from assay.policy.addresses import Entries
from assay.protocol import arc, authres, dkim, dmarc, report, senderid, spf, srs
from assay.protocol.arc.seal import BODY_HASH_SPEC, recorded_results, seal
from assay.protocol.spf import macro
from assay.protocol.spf.record import MAX_RECORD_LENGTH
from assay.resolver import AnswerCache, LocalZone, Nameserver, Resolver, ZoneError
from assay.resolver.message import MAX_RECORDS
from assay.resolver.message import read as read_message
from assay.resolver.turns import PLACES
from assay.session import Delivery, Session, Verdict, deliver
from signing import NOW, ed25519_key
from whole import SETTINGS, TRUST, Script
from zone import Rows, Zone

SIZE = 16_384  # octets; the larger input has four times as many
MAX_GROWTH = 8  # of the time where the size grows four times: linear is 4, quadratic 16
MAX_FACTOR = 20  # hostile to honest
NOISE = 0.005  # seconds that say nothing on a shared machine
RULES_NOISE = 0.0005  # likewise, where an honest message takes a tenth of a millisecond

Reader = Callable[[bytes], object]
SRS = srs.Scheme("a.example", (b"new", b"old"))
OURS = ("mx.example.org", "bücher.example")


def unit(text: str | bytes, head: str | bytes = b"") -> Callable[[int], bytes]:
    """Inputs that begin with `head` and repeat a unit."""
    octets, start = (one.encode() if isinstance(one, str) else one for one in (text, head))
    return lambda size: start + octets * ((size - len(start)) // len(octets))


def _claims(value: bytes) -> None:
    authres.claims(value, OURS)
    authres.parse(value)
    recorded_results(Header((HeaderField(b"Authentication-Results", value),)), "mx.example.org")


def _signature(value: bytes) -> None:
    field = HeaderField(b"DKIM-Signature", value)
    dkim.parse(field)
    dkim.preferred((field, field), Domain("a.example"))
    arc.parse_chain(Header((HeaderField(b"ARC-Seal", value), HeaderField(b"ARC-Authentication-Results", value))))


def _canonical(value: bytes) -> None:
    field = HeaderField(b"X", value)
    for canonicalization in dkim.Canonicalization:
        dkim.canonical.canonical_signature_field(field, canonicalization)


def _body(value: bytes) -> None:
    hashes = dkim.BodyHashes(dkim.BodyHashSpec(kind, "sha256") for kind in dkim.Canonicalization)
    for at in range(0, len(value), 1000):
        hashes.update(value[at : at + 1000])
    hashes.length(dkim.Canonicalization.RELAXED)


def _from(value: bytes) -> None:
    field = HeaderField(b"From", value)
    dmarc.author([field])
    senderid.responsible_address(Header((field,)))


def _spf(record: bytes) -> None:
    """Check records of the longest that are read, cut from this one, for the sender they like least."""
    caches.clear()
    path = ReversePath.parse("!-" * 500 + "@a.example")
    request = spf.Request(ip_address("192.0.2.9"), "h.example").of_mail_from(path)
    terms = record.removeprefix(b"v=spf1")
    for at in range(0, len(terms), MAX_RECORD_LENGTH - 1):
        text = "v=spf1 " + terms[at : at + MAX_RECORD_LENGTH - 1].decode("latin-1")
        Zone({"a.example": [["TXT", [text]]], "b.example": [["A", "192.0.2.1"]]}).solve(spf.check(request))


REDACTOR = report.Redactor(b"key")


def _report(text: bytes) -> None:
    """Write reports that hold this text wherever a stranger's can be, and ask whether it is a report."""
    string = text.decode("utf-8", "surrogateescape")
    metadata = report.ReportMetadata("a", "b", "c", 0, 1, errors=(string,) * 20)
    none = dmarc.DmarcPolicy.NONE
    policy = report.PolicyPublished(string, none, none, none)
    signature = report.DkimResult(string, string, dkim.Result.FAIL, string)
    reason = report.OverrideReason(report.OverrideType.OTHER, string)
    record = report.ReportRecord(
        "192.0.2.1", 1, report.Disposition.NONE, False, False, string, string, (reason,), (signature,)
    )
    for schema in report.Schema:
        b"".join(report.render(report.AggregateReport(metadata, policy), [record], schema))
    REDACTOR.text(string)
    fields = (b"Subject", b"Received", b"From", b"Content-Type", b"Auto-Submitted")
    header = Header(tuple([HeaderField(name, b" " + text) for name in fields]))
    REDACTOR.header(header)
    report.report_mail(Envelope(ReversePath.parse("a@b.example")), header)


def _mailto(text: bytes) -> None:
    record = dmarc.parse(b"v=DMARC1; p=none; rua=" + text)
    for tag in report.Tag:
        Zone({}).solve(report.evaluate_destinations(Domain("a.example"), record, tag))


def _names(lines: bytes) -> None:
    """Read names, one a line, wherever a stranger can write one: From, d=, i=, MAIL FROM, HELO; a PTR answer."""
    for number, line in enumerate(lines.split(b"\n")):
        name = line + b"%d.example" % number  # never seen before
        text = name.decode("utf-8", "surrogateescape")
        dmarc.author([HeaderField(b"From", b" a@" + name)])
        for tags in (b"d=" + name, b"d=a.example; i=@" + name):
            dkim.parse(HeaderField(b"DKIM-Signature", b" v=1; a=rsa-sha256; b=QUJD; bh=QUJD; s=s; h=from; " + tags))
        path = ReversePath.parse(f"a@{text}")
        Zone({}).solve(spf.check(spf.Request(ip_address("192.0.2.9"), text).of_mail_from(path)))
        with suppress(ValueError):
            Domain.parse(text)


def _macro(text: bytes) -> None:
    for explanation in (True, False):
        try:
            string = macro.parse(text.decode("latin-1"), explanation=explanation)
        except macro.MacroError:
            continue
        macro.expand(string, dict.fromkeys("slodipvhcrt", "a.b-c." * 50))


def _dns(octets: bytes) -> None:
    """Read what a nameserver sends, and keep it."""
    for kind in RecordType:
        AnswerCache().put("a/A", read_message(octets, kind).answer)


ASKED = b"\xc0\x0c"  # a pointer to the question's name
LONGEST_NAME = b"\1x" * 126 + b"\0"
CODES = {RecordType.A: 1, RecordType.PTR: 12, RecordType.MX: 15, RecordType.TXT: 16}


def _record(code: int, data: bytes, owner: bytes = ASKED) -> bytes:
    return owner + struct.pack("!HHIH", code, 1, 300, len(data)) + data


def _answer(
    kind: RecordType,
    one: Callable[[int], bytes],
    head: Sequence[bytes] = (),
    name: bytes = b"\1a\0",
    most: int = MAX_RECORDS,
    section: int = 1,
) -> Callable[[int], bytes]:
    """DNS messages of many records of one kind, of as many as are read at most, in one of the three sections."""

    def build(size: int) -> bytes:
        records = list(head)
        left = size - 300 - sum(map(len, records))
        while len(records) < most and left > 0:
            records.append(one(len(records)))
            left -= len(records[-1])
        counts = [1, 0, 0, 0]
        counts[section] = len(records)
        question = name + struct.pack("!HH", CODES[kind], 1)
        return struct.pack("!HHHHHH", 1, 0x8180, *counts) + question + b"".join(records)

    return build


def _behind(data: bytes) -> int:
    """A pointer to the data of the first record, behind the name `a`; plus one for each octet further."""
    return 0xC000 | 12 + len(data) + 4 + 12


def _number(number: int) -> bytes:
    return b"%04d" % number


def _text(octets: bytes) -> bytes:
    return b"".join(bytes((len(octets[at : at + 255]),)) + octets[at : at + 255] for at in range(0, len(octets), 255))


def _srs(local_part: bytes) -> None:
    address = local_part.decode("latin-1") + "@a.example"
    for rewrite in (srs.forward, srs.reverse):
        with suppress(srs.SrsError):
            rewrite(address, SRS, NOW)


def _zone(text: bytes) -> None:
    with suppress(ZoneError):
        LocalZone(text.decode()).answer(Question("a." * 100 + "a", RecordType.A))


#: A reader, and the honest input that the others are measured by.
READERS: dict[str, tuple[Reader, Callable[[int], bytes]]] = {
    "message": (split_message, unit("Subject: lorem ipsum dolor sit amet\r\n")),
    "From": (_from, unit("Ann Example <ann@example.org>,\r\n ")),
    "Authentication-Results": (_claims, unit(" dkim=pass (c) header.d=a.example;\r\n", " mx.b.example;")),
    "Received-SPF": (
        lambda value: authres.forged_received_spf(value[:4096], OURS),
        unit("lorem ipsum, client-ip=192.0.2.1; ", " pass (mx.b.example: a) receiver=mx.b.example; "),
    ),
    "signature": (_signature, unit("QUJDREVGR0hJSktMTU5PUFFSU1RV\r\n ", " v=1; a=rsa-sha256; b=")),
    "key": (dkim.parse_key, unit("QUJDREVG", "v=DKIM1; p=")),
    "canonical field": (_canonical, unit("lorem ipsum dolor sit amet,\r\n ")),
    "body": (_body, unit("lorem ipsum dolor sit amet,\r\n")),
    "SPF": (_spf, unit("ip4:192.0.2.1 ", "v=spf1 ")),
    "macro": (_macro, unit("lorem%_ipsum%%")),
    "DMARC": (dmarc.parse, unit("x=lorem ipsum; ", "v=DMARC1; p=none; ")),
    "reverse-path": (lambda value: ReversePath.parse(value.decode("latin-1")), unit("lorem.ipsum.")),
    "SRS": (_srs, unit("lorem.ipsum.")),
    "names": (_names, unit("bücher.lorem.ipsum.dolor." * 9 + "\n")),
    "log": (lambda value: quote(value.decode("latin-1")), unit("lorem ipsum ")),
    "DNS": (_dns, _answer(RecordType.TXT, lambda number: _record(16, _text(_number(number) * 60)))),
    "report": (_report, unit("lorem ipsum a@b.example ")),
    "mailto": (_mailto, unit("mailto:lorem@ipsum.example,")),
    "zone": (_zone, unit("a.example. 300 IN A 192.0.2.1\n")),
}

_HOSTILE: dict[str, dict[str, Callable[[int], bytes]]] = {
    "message": {
        "folding": unit("\r\n ", "A:"),
        "fields of one name": unit("A:\r\n"),
        "bare line ends": unit("\n\r", "A:\r\n"),
        "spaces before a colon that never comes": unit(" ", "A"),
        "an mbox line": unit(" ", "From "),
    },
    "From": {
        "commas": unit(","),
        "comments": unit("()"),
        "open comments": unit("("),
        "open quotes": unit('\\"', '"'),
        "quoted pairs": unit("\\a", '"'),
        "dots": unit("a.", "a"),
        "encoded words that do not end": unit("=?a?", '"'),
        "angles": unit("<"),
        "groups": unit("a:;,"),
        "combining characters": unit("\u0301\u0316", "a@a"),
        "lookalikes": unit("\uff20"),
        "nothing but @": unit("@a "),
        "words behind an @": unit("a ", "@"),
        "dots and white space": unit("a. ", "@"),
        "comments in a domain": unit("(a).b", "<a@a"),
        "open comments in a domain": unit("@(", "<"),
        "hosts in front": unit("a!"),
        "nothing but !": unit("!"),
        "user%host": unit("%a "),
        "words in a host in front": unit("a !", "<"),
        "brackets that close nothing": unit("a>", "@"),
        "encoded words in a malformed field": unit("=?utf-8?q?=40a?= ", "<"),
        "UTF-7": unit("+AEA-", "<=?utf-7?q?"),
        "digits that IDNA compares with all others": unit("\u0660" * 62 + ".", "a@"),
        "names of such digits": unit("<a@" + ("\u0660" * 62 + ".") * 4 + "a> "),
        "octets that are not UTF-8": unit(b"@\xff.", "<"),
    },
    "Authentication-Results": {
        "comments": unit("(a)"),
        "open comments": unit("("),
        "closing": unit(")"),
        "quoted pairs": unit("\\(", "("),
        "open quotes": unit('\\"', ' mx; spf=pass reason="'),
        "white space": unit(" ", " mx; spf"),
        "no results": unit(";", " mx"),
        "properties": unit("a.b=c ", " mx; spf=pass "),
        "nothing but equals signs": unit("=", " mx; spf"),
        "folding": unit("\r\n ", " mx"),
        "versions": unit("0", " mx"),
    },
    "SRS": {
        "equals signs": unit("=", "SRS0"),
        "parts": unit("a=", "SRS0="),
        "a long hash": unit("a", "SRS1="),
        "a long host": unit("a", "SRS0=abcd=2W="),
        "addresses of others": unit("SRS0=", "SRS1=abcd=a="),
    },
    "Received-SPF": {
        "receivers": unit("receiver=a ", " pass "),
        "spaces behind receiver": unit("receiver   ", " pass "),
        "comments": unit("(", " pass "),
        "encoded words": unit("=?u?q?a?= ", " pass "),
    },
    "signature": {
        "semicolons": unit(";"),
        "tags": unit("a=b;"),
        "white space": unit(" \t\r\n", "a"),
        "names in h=": unit("a:", " v=1; a=rsa-sha256; b=QUJD; bh=QUJD; d=a.example; s=s; h="),
        "equals signs in i=": unit("=", " v=1; a=rsa-sha256; b=QUJD; bh=QUJD; d=a.example; s=s; h=from; i="),
        "padding": unit("=", " v=1; a=rsa-sha256; b="),
        "comments before i=": unit("(\\(", " "),
        "a long d=": unit("a.", " v=1; a=rsa-sha256; b=QUJD; bh=QUJD; h=from; s=s; d="),
        "a long number": unit("1", " v=1; a=rsa-sha256; b=QUJD; bh=QUJD; h=from; s=s; d=a.example; t="),
    },
    "key": {"semicolons": unit(";"), "hashes": unit("a:", "p=QUJD; h="), "spaces": unit(" ", "p=")},
    "canonical field": {
        "single spaces": unit("x "),
        "runs": unit("x\t \t  "),
        "spaces": unit(" "),
        "semicolons": unit(";"),
        "spaces behind semicolons": unit("; ", "b"),
        "empty b=": unit("b "),
        "folding": unit("\r\n "),
    },
    "body": {
        "empty lines": unit("\r\n"),
        "spaces": unit(" "),
        "lines of spaces": unit(" \t \r\n"),
        "CR": unit("\r"),
        "LF": unit("\n"),
        "LF CR": unit("\n\r"),
    },
    "SPF": {
        "terms that are none": unit("x "),
        "spaces": unit(" ", "v=spf1"),
        "delimiters": lambda size: b"v=spf1 exists:%{s" + b".-+,/_=" * (size // 7) + b"}.example -all",
        "macros over a long sender": unit(f"exists:{'%{S}' * 120}.%{{d}} ", "v=spf1 "),
        "macros that leave nothing": unit(f"exists:{'%{S1r-}' * 120}.%{{d}} ", "v=spf1 "),
        "an explanation of macros": unit("%{S}", "v=spf1 -all exp="),
        "modifiers": unit("x=%{s} ", "v=spf1 "),
        "digits": unit("0", "v=spf1 a:%{d"),
        "open macros": unit("%{", "v=spf1 a:"),
        "slashes": unit("/", "v=spf1 a:b.example"),
        "hyphens in the last label": unit("-", "v=spf1 a:b.example"),
    },
    "macro": {
        "open": unit("%{"),
        "digits": unit("%{s99999999"),
        "delimiters": lambda size: b"%{s" + b".-" * (size // 2) + b"}",
        "percent": unit("%%"),
        "escapes": unit("%-%_"),
    },
    "DMARC": {
        "semicolons": unit(";", "v=DMARC1"),
        "URIs": unit("mailto:a@b,", "v=DMARC1; p=none; rua="),
        "sizes": unit("!1", "v=DMARC1; p=none; rua=mailto:a@b"),
        "at signs": unit("@", "v=DMARC1; p=none; rua=mailto:a"),
        "options": unit("1:", "v=DMARC1; p=none; ruf=mailto:a@b; fo="),
        "spaces": unit(" ", "v"),
    },
    "report": {
        "quotes": unit('"'),
        "escaped quotes": unit('\\"'),
        "quoted addresses": unit('"a@b'),
        "at signs": unit("@"),
        "one long word": unit("a"),
        "words before no @": unit("a="),
        "line ends": unit("\r\n "),
        "what XML does not have": unit("\0]]>&"),
        "octets that are not UTF-8": unit(b"\xff"),
        "U-labels": unit("ü."),
        "half a Subject": unit("report domain: "),
        "half a file name": unit("!12345678"),
        "comments": unit("("),
        "logins": unit("userid "),
    },
    "mailto": {
        "percent signs": unit("%", "mailto:"),
        "at signs": unit("%40", "mailto:a@b"),
        "sizes": unit("!1,mailto:a@b.example"),
        "digits": unit("1", "mailto:a@b.example!"),
        "spaces": unit(" ", "mailto:a@b.example,"),
        "labels": unit("a.", "mailto:a@"),
        "equal signs": unit("a=", ""),
    },
    "reverse-path": {
        "at signs": unit("@"),
        "quoted pairs": unit("\\a", '"'),
        "routes": unit("@a,"),
        "labels": unit("a.", "a@"),
        "combining characters": unit("\u0301\u0316", "a@a"),
    },
    "names": {
        "digits that IDNA compares with all others": unit(("\u0660" * 62 + ".") * 4 + "\n"),
        "a label of them": unit("\u0660" * 200 + "\n"),
        "labels": unit("\u0660." * 120 + "\n"),
        "combining characters": unit("a" + "\u0301\u0316" * 31 + ".\n"),
        "ligatures that become eighteen characters": unit(("\ufdfa" * 60 + ".") * 4 + "\n"),
        "symbols": unit(("\u2603" * 60 + ".") * 4 + "\n"),
        "right to left": unit(("\u05d0" * 50 + ".") * 4 + "\n"),
        "octets that are not UTF-8": unit(b"\xff" * 200 + b"\n"),
    },
    "log": {"controls": unit("\0"), "surrogates": unit(b"\xff")},
    "DNS": {
        "addresses": _answer(RecordType.A, lambda number: _record(1, _number(number)), most=5000),
        "as many addresses as are read": _answer(RecordType.A, lambda number: _record(1, _number(number))),
        "their owner spelled out": _answer(RecordType.A, lambda number: _record(1, _number(number), b"\1a\0")),
        "short texts": _answer(RecordType.TXT, lambda number: _record(16, _text(_number(number))), most=5000),
        "one text of empty strings": _answer(RecordType.TXT, lambda _: _record(16, bytes(65_000)), most=1),
        "texts of empty strings": _answer(
            RecordType.TXT, lambda number: _record(16, _text(_number(number)) + bytes(100))
        ),
        "nine aliases before texts": _answer(
            RecordType.TXT,
            lambda number: _record(16, _text(_number(number)), b"\1j\0"),
            [_record(5, b"\1%c\0" % (98 + link), b"\1%c\0" % (97 + link)) for link in range(9)],
        ),
        "aliases": _answer(
            RecordType.TXT, lambda number: _record(5, b"\5n%04d\0" % (number + 1), b"\5n%04d\0" % number)
        ),
        "dots in labels": _answer(RecordType.PTR, lambda number: _record(12, b"\3a.b\5.%04d\0" % number)),
        "exchangers with dots in labels": _answer(
            RecordType.MX, lambda number: _record(15, _number(number)[:2] + b"\3a.b\5.%04d\0" % number)
        ),
        "long names with dots": _answer(
            RecordType.PTR, lambda number: _record(12, b"\5.%04d" % number + b"\1." * 120 + b"\0")
        ),
        "pointers to a long name": _answer(
            RecordType.PTR,
            lambda number: _record(12, b"\4%04d" % number + struct.pack("!H", _behind(b"\1a\0") + 8)),
            [_record(12, LONGEST_NAME)],
        ),
        "exchangers of a long name": _answer(
            RecordType.MX,
            lambda number: _record(15, struct.pack("!HH", number, _behind(b"\1a\0") + 2)),
            [_record(15, b"\0\0" + LONGEST_NAME)],
        ),
        "owners by a detour": _answer(
            RecordType.TXT,
            lambda number: _record(16, _text(_number(number)), struct.pack("!H", _behind(LONGEST_NAME) + 1)),
            [_record(16, b"\2" + ASKED)],
            name=LONGEST_NAME,
        ),
        "a staircase of pointers": _answer(
            RecordType.TXT,
            lambda number: _record(
                16, b"\2" + struct.pack("!H", _behind(b"\1a\0") + 1), struct.pack("!H", _behind(b"\1a\0") + 1)
            ),
            [
                _record(
                    16,
                    b"\xff"
                    + b"".join(struct.pack("!H", _behind(b"\1a\0") - 1 + 2 * step) for step in range(127))
                    + b"\0",
                )
            ],
        ),
        "the zone's nameservers": _answer(RecordType.TXT, lambda _: _record(2, LONGEST_NAME), section=2),
        "many zones": _answer(
            RecordType.TXT,
            lambda _: _record(6, ASKED + ASKED + bytes(20)),
            name=LONGEST_NAME,
            section=2,
        ),
        "unknown types": _answer(RecordType.TXT, lambda _: _record(65_280, b""), most=5000),
        "signatures": _answer(RecordType.TXT, lambda _: _record(46, bytes(100))),
        "options": _answer(RecordType.TXT, lambda _: _record(41, b"\xfd\xe9\0\0" * 16_000, b"\0"), most=1, section=3),
        "glue of labels": _answer(
            RecordType.TXT, lambda _: _record(1, b"\1\2\3\4", b"\1x" * 30_000 + b"\0"), most=1, section=3
        ),
        "pointers to themselves": _answer(RecordType.PTR, lambda _: _record(12, struct.pack("!H", _behind(b"\1a\0")))),
    },
    "zone": {
        "parentheses": unit("("),
        "quotes": unit('"'),
        "strings": unit('"" ', "a. TXT "),
        "labels": unit("a."),
        "escapes": unit("\\0"),
        "wildcards": unit("*.a. A 192.0.2.1\n"),
        "one alias": unit("a. CNAME b.\n"),
    },
}


def seconds(reader: Reader, data: bytes) -> float:
    """The processor time of one reading, at its best of three where it is short.

    Without the garbage collector, whose time depends on all that the test run holds.
    """

    def once() -> float:
        gc.disable()
        begun = time.process_time()
        reader(data)
        spent = time.process_time() - begun
        gc.enable()
        return spent

    first = once()
    return first if first > 20 * NOISE else min(first, once(), once())


@pytest.mark.parametrize(
    ("name", "build"),
    [pytest.param(name, build, id=f"{name}-{what}") for name, rows in _HOSTILE.items() for what, build in rows.items()],
)
def test_time_is_linear_in_the_size(name: str, build: Callable[[int], bytes]) -> None:
    reader, honest = READERS[name]
    small, large = seconds(reader, build(SIZE)), seconds(reader, build(4 * SIZE))
    assert large <= MAX_GROWTH * small + NOISE
    assert large <= MAX_FACTOR * seconds(reader, honest(4 * SIZE)) + NOISE


#: Records of the longest that are read, by number: each domain includes the next one.
_AGAIN: dict[str, Callable[[int], str]] = {
    "letters": lambda number: "a " * 2000,
    "networks": lambda number: f"ip4:192.0.{number}.1 " * 250,
    "different networks": lambda number: " ".join(f"ip4:192.{number}.0.{last}" for last in range(256)),
    "modifiers": lambda number: " ".join(f"{number}{at}=%{{s}}" for at in range(400)),
    "faults": lambda number: " ".join(f"!{number}.{at}" for at in range(500)),
    "beyond all bounds": lambda number: f"ip4:192.0.{number}.1 " * 3500,
}


@pytest.mark.parametrize("terms", _AGAIN.values(), ids=_AGAIN)
def test_cached_answers_asked_again_cost_little(terms: Callable[[int], str]) -> None:
    """Eleven long records at each MAIL, of which nothing is asked any more."""

    def check(terms: Callable[[int], str]) -> Callable[[bytes], object]:
        rows: Rows = {
            f"n{number}.example": [["TXT", [f"v=spf1 include:n{number + 1}.example {terms(number)}"]]]
            for number in range(11)
        }
        zone = Zone(rows)
        request = spf.Request(ip_address("198.51.100.9"), "h.example")
        path = ReversePath.parse("a@n0.example")
        zone.solve(spf.check(request.of_mail_from(path)))
        return lambda _: [zone.solve(spf.check(request.of_mail_from(path))) for _ in range(10)]

    honest = check(lambda number: f"ip4:192.0.{number}.1 " * 10)
    assert seconds(check(terms), b"") <= MAX_FACTOR * seconds(honest, b"") + NOISE


# whole messages, through a session that has everything switched on


LONGEST = replace(SETTINGS, arc_max_sets=arc.MAX_SETS)


def play(message: bytes, client: str = "192.0.2.1") -> Verdict:
    """Play a message of header fields, an empty line and a body to a session."""
    dns = Script([b"* TXT " + signing.record(ed25519_key()).encode(), b"* A 192.0.2.1", b"* PTR mail.a.example"])
    header, body = split_message(message)
    delivery = Delivery(
        ip_address(client),
        tuple(header),
        body,
        helo="mail.a.example",
        mail_from="<a@a.example>",
        mta_name="mx.example.org",
        queue_id="Q",
        now=NOW,
    )
    return deliver(Session(LONGEST, TRUST, lambda: dns), delivery, past_refusals=True)[-1]


FROM = "From: Ann <ann@a.example>\r\n"
HONEST = "Received: from a.example (a.example [192.0.2.7]) by b.example with ESMTP id 1\r\n\tfor <b@b.example>; now\r\n"
SIGNATURE = "DKIM-Signature: v=1; a=ed25519-sha256; d=a.example; s=s; h=from; bh=QUJD; b=QUJD\r\n"
#: It is read in every way that there is, since nothing in it says who wrote it.
QUOTED_PAIRS = "(\\a)\x01\x02\u200b\u0301 " * 20 + "q" * 700
AMBIGUOUS = "(a)\x01\u0301\u0316 " * 20 + "q" * 700


def sealed(size: int) -> bytes:
    """A message with the longest chain there may be, which is whole, over as much header."""
    key, domain = ed25519_key(), Domain("a.example")
    header = Header((HeaderField(b"From", b" a@a.example"), HeaderField(b"Subject", b" x" * ((size - 60_000) // 2))))
    validation = arc.Evaluation(arc.Result.NONE, "")
    for instance in range(1, arc.MAX_SETS + 1):
        hashes = dkim.BodyHashes([BODY_HASH_SPEC])
        fields = seal(
            header,
            hashes,
            validation=validation,
            authserv_id="a.example",
            authentication_results=["none"],
            domain=domain,
            selector=domain,
            private_key=key,
            timestamp=NOW,
        )
        header = Header((*fields, *header))
        validation = arc.Evaluation(arc.Result.PASS, "", instance)
    return b"".join(field.raw for field in header) + b"\r\n"


_MESSAGES: dict[str, Callable[[int], bytes]] = {
    "fields of one name": unit("A:\r\n", FROM),
    "fields of many names": lambda size: b"".join(b"%d:\r\n" % number for number in range(size // 8)),
    "From fields": unit("From: a\r\n"),
    "commas in From": unit(",", "From: a@a.example"),
    "signatures": unit(SIGNATURE, FROM),
    "signatures that cannot be tried": unit("DKIM-Signature: v=1\r\n", FROM),
    "signatures with U-labels": unit(SIGNATURE.replace("d=a", "d=" + "\u0661" * 200), FROM),
    "copies of a signed field": lambda size: (
        FROM.encode() + SIGNATURE.replace("h=from", "h=from:subject").encode() * 10 + b"Subject:\r\n" * (size // 10)
    ),
    "signed fields": lambda size: (
        (FROM + SIGNATURE.replace("h=from", "h=from" + ":a" * 999) * 10).encode() + b"A:\r\n" * (size // 5)
    ),
    "white space in signed fields": lambda size: (
        (FROM + SIGNATURE.replace("h=from", "c=relaxed; h=from:a") * 10).encode() + b"A:" + b"x " * (size // 2)
    ),
    "ARC sets": unit("ARC-Seal: i=1; cv=none\r\nARC-Authentication-Results: i=1; a\r\n", FROM),
    "the longest chain": sealed,
    "results in our name": unit("Authentication-Results: mx.example.org; none\r\n", FROM),
    "ambiguous results": unit(f"Authentication-Results: {AMBIGUOUS}\r\n", FROM),
    "ambiguous Received-SPF": unit(f"Received-SPF: {AMBIGUOUS} receiver=\u0301\u0316 \r\n", FROM),
    "quoted-pairs in results": unit(f"Authentication-Results: {QUOTED_PAIRS}\r\n", FROM),
    "quoted-pairs in Received-SPF": unit(f"Received-SPF: {QUOTED_PAIRS} receiver=\u0301 \r\n", FROM),
    "empty lines": unit("\r\n", FROM + SIGNATURE + "\r\n"),
    "white space": unit("\t ", FROM + SIGNATURE.replace("h=", "c=relaxed/relaxed; h=") + "\r\n"),
    "lengths": lambda size: (
        "".join([FROM, *(SIGNATURE.replace("h=", f"l={length}; h=") for length in range(50)), "\r\n"]).encode()
        + b"x" * size
    ),
}


@pytest.mark.parametrize("what", _MESSAGES)
def test_a_message_takes_time_linear_in_its_size(what: str) -> None:
    build = _MESSAGES[what]
    small, large = seconds(play, build(4 * SIZE)), seconds(play, build(16 * SIZE))
    assert large <= MAX_GROWTH * small + NOISE
    assert large <= MAX_FACTOR * seconds(play, unit(HONEST, FROM)(16 * SIZE)) + NOISE


def _documented_rules() -> policy.Policy:
    """The rules of all recipes, each of which is tried, for in dry run none of them decides."""
    blocks = re.findall(r"^```toml\n(.*?)^```", RECIPES.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    rules = [rule for block in blocks for rule in tomllib.loads(block).get("rule", [])]
    lists = {name: Entries.parse(("a.example",)) for block in blocks for name in tomllib.loads(block).get("lists", {})}
    return policy.Policy(
        tuple(
            policy.compile_rule(
                policy.Rule(rule["name"], policy.Stage.EOM, rule["when"], policy.Action.REJECT, dry_run=True), lists
            )
            for rule in rules
        ),
        lists=lists,
    )


RECIPES = Path(__file__).parent.parent / "docs" / "policy.md"
RULES = _documented_rules()
MAX_RULES_FACTOR = 20  # hostile to honest
_FOR_RULES: dict[str, Callable[[int], bytes]] = {
    "fields that rules ask for": unit(f"Subject: {'a' * 60}\r\nX-Invoice: 1\r\nContent-Type: a/b\r\n", FROM),
    "a long field that rules ask for": unit("x", FROM + "X-Invoice: 1"),
    "octets that are not UTF-8": unit(b"Subject: " + b"\xff\xfe" * 30 + b"\r\n", FROM),
    "a long author": lambda size: b"From: " + b"a" * size + b"@a.example\r\n",
    "fifty signatures": lambda size: (
        FROM + SIGNATURE.replace("h=from", "h=from" + ":a" * (size // 100)) * 50
    ).encode(),
}


def decided(assessment: Assessment) -> policy.Decision:
    """Try all documented rules on a message."""
    return policy.decide(RULES.facts(assessment), RULES, policy.Stage.EOM)


@pytest.mark.parametrize("build", (_MESSAGES | _FOR_RULES).values(), ids=_MESSAGES | _FOR_RULES)
def test_documented_rules_take_time_linear_in_a_message(build: Callable[[int], bytes]) -> None:
    def spent(message: bytes) -> float:
        assessment = play(message).assessment
        return seconds(lambda _: decided(assessment), b"")

    small, large = spent(build(4 * SIZE)), spent(build(16 * SIZE))
    assert large <= MAX_GROWTH * small + RULES_NOISE
    assert large <= MAX_RULES_FACTOR * spent(unit(HONEST, FROM)(16 * SIZE)) + RULES_NOISE


def test_documented_rules_can_be_evaluated_on_any_message() -> None:
    for build in (_MESSAGES | _FOR_RULES).values():
        failed = [one.reason for one in decided(play(build(4 * SIZE)).assessment).watched if "cannot" in one.reason]
        assert not failed


def test_the_longest_chain_is_whole() -> None:
    evaluation = play(sealed(4 * SIZE)).assessment.arc
    assert evaluation is not None
    assert (evaluation.result, evaluation.instance, evaluation.oldest_pass) == (arc.Result.PASS, arc.MAX_SETS, 0)


def test_a_thousand_received_fields_of_relays() -> None:
    begun = time.process_time()
    play(unit("Received: from a ([192.0.2.99])\r\n", FROM)(4 * SIZE), client="192.0.2.99")
    assert time.process_time() - begun < 1.0


# messages that are given up, with their questions


def _give_up(messages: int) -> None:
    """Begin messages whose names nobody answers, and give each of them up."""

    def ask(message: int) -> Inquiry[None]:
        yield [Question(f"s{number}.m{message}.example", RecordType.TXT) for number in range(100)]

    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent,
        Resolver([Nameserver(*_bound(silent))], patience=60.0) as resolver,
    ):
        for message in range(messages):
            resolver.driver(60.0).start(ask(message), Asker(ip_address("192.0.2.1"))).cancel()
        while resolver.flights > PLACES:
            time.sleep(0.001)


def _bound(one: socket.socket) -> tuple[str, int]:
    one.bind(("127.0.0.1", 0))
    host, port = one.getsockname()
    return host, port


def test_messages_that_are_given_up_take_time_linear_in_their_number() -> None:
    best = {200: inf, 1600: inf}
    for _ in range(3):
        for messages, so_far in best.items():
            best[messages] = min(so_far, seconds(lambda _, count=messages: _give_up(count), b""))  # type: ignore[misc]  # called at once
    # Linear is 8, quadratic 64. On a busy machine the DNS loop wakes up for each message and not for many at once,
    # which takes up to four times as long.
    assert best[1600] <= 32 * best[200] + NOISE
