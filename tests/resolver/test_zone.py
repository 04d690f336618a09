# SPDX-License-Identifier: GPL-3.0-or-later
"""The operator's own zone, alone and before the DNS."""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path

import pytest

from assay.inquiry import MX, Answer, Inquiry, Outcome, Question, Record, RecordType
from assay.resolver import LocalZone, Resolver, ZoneError, configured
from nameserver import NameServer

TEXT = r"""
; owners of any domains, relative to the root
example.org        TXT  "v=spf1 " "-all"
                   A    192.0.2.1
                   MX   10 Mail.Example.org.
                   AAAA 2001:db8::1
1.2.0.192.in-addr.arpa. PTR mail.example.org.
sel._domainkey.example.org 60 IN CNAME key.example.net
key.example.net    TXT  "v=DKIM1; p=\049"
out.example.org    CNAME elsewhere.example.com.
*.wild.example.org TXT "w"
below.wild.example.org A 192.0.2.7
example.org        NS   ns.example.org
"""


def ask(name: str, kind: str) -> Inquiry[Answer]:
    (answer,) = yield [Question(name, RecordType(kind))]
    return answer


def found(*records: Record, ttl: int = 300) -> Answer:
    return Answer(Outcome.FOUND, records, ttl=ttl)


ALONE = {
    "TXT strings are joined": ("example.org", "TXT", found(b"v=spf1 -all")),
    "names are compared without case": ("EXAMPLE.org", "A", found(ip_address("192.0.2.1"))),
    "a final dot is nothing": ("example.org.", "A", found(ip_address("192.0.2.1"))),
    "AAAA": ("example.org", "AAAA", found(ip_address("2001:db8::1"))),
    "MX": ("example.org", "MX", found(MX(10, "Mail.Example.org"))),
    "PTR": ("1.2.0.192.in-addr.arpa", "PTR", found("mail.example.org")),
    "a CNAME is followed in the zone": ("sel._domainkey.example.org", "TXT", found(b"v=DKIM1; p=1")),
    "a type the owner lacks": ("example.org", "PTR", Answer(Outcome.NODATA, ttl=300)),
    "an owner of other types only": ("key.example.net", "A", Answer(Outcome.NODATA, ttl=300)),
    "an empty non-terminal": ("_domainkey.example.org", "TXT", Answer(Outcome.NODATA, ttl=300)),
    "an absent owner": ("absent.example.org", "A", Answer(Outcome.NXDOMAIN, ttl=300)),
    "a CNAME that leads out": ("out.example.org", "A", Answer(Outcome.NXDOMAIN, ttl=300)),
    "a wildcard": ("a.b.wild.example.org", "TXT", found(b"w")),
    "a wildcard's other types": ("a.wild.example.org", "A", Answer(Outcome.NODATA, ttl=300)),
    "a wildcard does not cover its own parent": ("wild.example.org", "TXT", Answer(Outcome.NODATA, ttl=300)),
    "nor what is below another owner": ("x.below.wild.example.org", "TXT", Answer(Outcome.NXDOMAIN, ttl=300)),
}


@pytest.mark.parametrize("authoritative", [False, True], ids=["plain", "authoritative"])
@pytest.mark.parametrize(("name", "kind", "expected"), ALONE.values(), ids=ALONE)
def test_without_nameservers_only_the_zone_answers(name: str, kind: str, expected: Answer, authoritative: bool) -> None:
    zone = LocalZone(TEXT, authoritative=authoritative)
    with Resolver(configured(["none"]), zone=zone) as resolver:
        assert resolver.driver(1).start(ask(name, kind)).result() == expected


BEFORE = {
    "the zone goes first": ("example.org", "TXT", False, [b"v=spf1 -all"], 0),
    "an absent owner is asked for": ("www.example.org", "TXT", True, [b"dns"], 1),
    "an absent type is asked for": ("key.example.net", "A", False, [ip_address("192.0.2.99")], 1),
    "except of an authoritative zone": ("key.example.net", "A", True, [], 0),
    "a CNAME leads out into the DNS": ("out.example.org", "TXT", True, [b"elsewhere"], 1),
}


@pytest.mark.parametrize(("name", "kind", "authoritative", "records", "queries"), BEFORE.values(), ids=BEFORE)
def test_the_zone_answers_before_the_dns(
    name: str, kind: str, authoritative: bool, records: list[Record], queries: int
) -> None:
    rows = {
        "example.org": [["TXT", ["from the DNS"]]],
        "www.example.org": [["TXT", ["dns"]]],
        "key.example.net": [["A", "192.0.2.99"]],
        "elsewhere.example.com": [["TXT", ["elsewhere"]]],
    }
    zone = LocalZone(TEXT, authoritative=authoritative)
    with NameServer(rows) as server, Resolver(configured([server.text]), zone=zone) as resolver:
        for _ in range(2):
            assert list(resolver.driver(5).start(ask(name, kind)).result().records) == records
        assert server.count() == queries


FAULTS = {
    "a broken address": ("a.example A 192.0.2.1\nb.example A 192.0.2\n", 2),
    "an unknown type": ("a.example A 192.0.2.1\n\nb.example BOGUS x\n", 3),
    "an open quotation mark": ('a.example TXT "abc\n', 1),
    "an overlong label": ("a" * 64 + ".example A 192.0.2.1\n", 1),
    "an empty label": ("a..example A 192.0.2.1\n", 1),
    "a CNAME beside other data": ("a.example A 192.0.2.1\na.example CNAME b.example\n", 2),
    "an include": ("$INCLUDE /etc/passwd\n", 1),
    "an overlong string": (f'a.example TXT "{"x" * 256}"\n', 1),
    "another class": ("a.example CH A 192.0.2.1\n", 1),
}


@pytest.mark.parametrize(("text", "line"), FAULTS.values(), ids=FAULTS)
def test_a_fault_is_reported_with_file_and_line(tmp_path: Path, text: str, line: int) -> None:
    path = tmp_path / "local.zone"
    path.write_text(text)
    with pytest.raises(ZoneError) as caught:
        LocalZone.load(path)
    assert str(caught.value).startswith(f"{path}:{line}: "), str(caught.value)


def test_a_file_that_is_not_utf_8_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "local.zone"
    path.write_bytes(b'a.example TXT "x"\nb.example TXT "\xff"\n')
    with pytest.raises(ZoneError, match=r"local\.zone:2: not UTF-8"):
        LocalZone.load(path)


def test_a_file_that_is_absent_is_reported(tmp_path: Path) -> None:
    with pytest.raises(ZoneError, match="No such file"):
        LocalZone.load(tmp_path / "absent")


@pytest.mark.parametrize("text", ["a CNAME b\nb CNAME a\n", "a CNAME a\n", "*.a CNAME b.a\n"])
def test_a_cname_loop_is_refused(text: str) -> None:
    with pytest.raises(ZoneError, match="CNAME"):
        LocalZone(text)


def test_utf_8_in_texts_stays(tmp_path: Path) -> None:
    path = tmp_path / "local.zone"
    path.write_text('a.example TXT "né"\n', "utf-8")
    answer = LocalZone.load(path).answer(Question("a.example", RecordType.TXT))
    assert isinstance(answer, Answer)
    assert answer.texts == ("né".encode(),)
