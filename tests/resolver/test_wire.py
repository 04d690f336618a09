# SPDX-License-Identifier: GPL-3.0-or-later
"""Questions to messages and messages to answers, without a network."""

from __future__ import annotations

import struct
from ipaddress import ip_address

import dns.edns
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.rrset
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from assay.inquiry import MX, Answer, Outcome, Question, RecordType
from assay.resolver import wire
from assay.resolver.message import Response, read
from reference import by_set

NAMES = {
    "plain": ("example.org", (b"example", b"org", b"")),
    "case is folded": ("Example.ORG", (b"example", b"org", b"")),
    "NUL": ("a\x00b.org", (b"a\x00b", b"org", b"")),
    "space and quotes": ("a b\"'.org", (b"a b\"'", b"org", b"")),
    "a backslash is itself": ("a\\046b\\.org", (b"a\\046b\\", b"org", b"")),
    "dollar, at, semicolon, brackets": ("$@;().org", (b"$@;()", b"org", b"")),
    "line ends": ("a\r\nb.org", (b"a\r\nb", b"org", b"")),
    "a label of 63": ("a" * 63 + ".org", (b"a" * 63, b"org", b"")),
    "a name of 253": (".".join(["a" * 63] * 3 + ["b" * 61]), (b"a" * 63, b"a" * 63, b"a" * 63, b"b" * 61, b"")),
}


@pytest.mark.parametrize(("name", "labels"), NAMES.values(), ids=NAMES)
def test_a_name_is_sent_as_its_raw_octets(name: str, labels: tuple[bytes, ...]) -> None:
    asked = wire.section(Question(name, RecordType.TXT))
    assert asked is not None
    parsed = dns.message.from_wire(wire.query(0xABCD, asked))
    (question,) = parsed.question
    assert question.name.labels == labels
    assert question.rdtype == dns.rdatatype.TXT
    assert (parsed.id, parsed.edns, parsed.payload, dns.flags.to_text(parsed.flags)) == (0xABCD, 0, 1232, "RD")


IMPOSSIBLE = {
    "empty": "",
    "an empty label": "a..org",
    "a leading dot": ".org",
    "a final dot": "example.org.",  # taken off before, once
    "a label of 64": "a" * 64 + ".org",
    "a name of 254": ".".join(["a" * 63] * 3 + ["b" * 62]),
    "a U-label": "exämple.org",
    "an octet beyond ASCII": "ex\udce4mple.org",
}


@pytest.mark.parametrize("name", IMPOSSIBLE.values(), ids=IMPOSSIBLE)
def test_a_name_the_dns_cannot_carry_has_no_question(name: str) -> None:
    assert wire.section(Question(name, RecordType.A)) is None


def response(name: str, kind: str, *answer: str, rcode: str = "NOERROR", soa: str = "", flags: str = "QR RA") -> bytes:
    message = dns.message.make_response(dns.message.make_query(dns.name.from_text(name), kind))
    message.set_rcode(dns.rcode.from_text(rcode))
    message.flags |= dns.flags.from_text(flags)
    for text in answer:
        message.answer.append(dns.rrset.from_text_list(*_split(text)))
    if soa:
        message.authority.append(dns.rrset.from_text_list(*_split(soa)))
    return message.to_wire()


def _split(text: str) -> tuple[str, int, str, str, list[str]]:
    owner, ttl, kind, *values = text.split("|")
    return owner, int(ttl), "IN", kind, values


SOA = "example.org.|900|SOA|ns.example.org. root.example.org. 1 2 3 4 60"
ANSWERS: dict[str, tuple[bytes, RecordType, Response]] = {
    "A": (
        response("example.org", "A", "example.org.|300|A|192.0.2.1|192.0.2.2"),
        RecordType.A,
        Response(Answer(Outcome.FOUND, (ip_address("192.0.2.1"), ip_address("192.0.2.2")), ttl=300)),
    ),
    "AAAA": (
        response("example.org", "AAAA", "example.org.|300|AAAA|2001:db8::1|::ffff:192.0.2.1"),
        RecordType.AAAA,
        Response(Answer(Outcome.FOUND, (ip_address("2001:db8::1"), ip_address("::ffff:192.0.2.1")), ttl=300)),
    ),
    "TXT strings of one record are joined": (
        response("example.org", "TXT", 'example.org.|300|TXT|"v=spf1 " "-all"|"\\200\\000"|""'),
        RecordType.TXT,
        Response(Answer(Outcome.FOUND, (b"v=spf1 -all", b"\xc8\0", b""), ttl=300)),
    ),
    "MX, and a null MX": (
        response("example.org", "MX", "example.org.|300|MX|10 mx.example.org.|0 ."),
        RecordType.MX,
        Response(Answer(Outcome.FOUND, (MX(10, "mx.example.org"), MX(0, "")), ttl=300)),
    ),
    "PTR names of any octets": (
        response("1.example.", "PTR", '1.example.|5|PTR|a\\032b.org.|\\200.org.|a\\.b.org.|\\000\\\\\\".org.'),
        RecordType.PTR,
        Response(Answer(Outcome.FOUND, ("a b.org", "\udcc8.org", "a\\.b.org", '\0\\".org'), ttl=5)),
    ),
    "a CNAME chain lives as long as its shortest link": (
        response(
            "www.example.org",
            "A",
            "www.example.org.|30|CNAME|w.example.org.",
            "w.example.org.|20|CNAME|example.org.",
            "example.org.|300|A|192.0.2.1",
        ),
        RecordType.A,
        Response(Answer(Outcome.FOUND, (ip_address("192.0.2.1"),), ttl=20)),
    ),
    "records of other names and types are left out": (
        response("example.org", "A", "example.net.|300|A|192.0.2.9", "example.org.|300|TXT|x", soa=SOA),
        RecordType.A,
        Response(Answer(Outcome.NODATA, ttl=60)),
    ),
    "NODATA lives for the SOA's minimum": (
        response("example.org", "A", soa=SOA),
        RecordType.A,
        Response(Answer(Outcome.NODATA, ttl=60)),
    ),
    "or for the SOA's TTL if that is less": (
        response("example.org", "A", soa=SOA.replace("900", "7")),
        RecordType.A,
        Response(Answer(Outcome.NODATA, ttl=7)),
    ),
    "NODATA without an SOA lives for nothing": (
        response("example.org", "A"),
        RecordType.A,
        Response(Answer(Outcome.NODATA, ttl=0)),
    ),
    "NXDOMAIN": (
        response("x.example.org", "A", rcode="NXDOMAIN", soa=SOA),
        RecordType.A,
        Response(Answer(Outcome.NXDOMAIN, ttl=60)),
    ),
    "NXDOMAIN behind a CNAME": (
        response("w.example.org", "A", "w.example.org.|30|CNAME|x.example.org.", rcode="NXDOMAIN", soa=SOA),
        RecordType.A,
        Response(Answer(Outcome.NXDOMAIN, ttl=30)),
    ),
    "NODATA behind a CNAME": (
        response("w.example.org", "A", "w.example.org.|30|CNAME|x.example.org.", soa=SOA),
        RecordType.A,
        Response(Answer(Outcome.NODATA, ttl=30)),
    ),
    "a CNAME chain without an end has to be asked on": (
        response("w.example.org", "A", "w.example.org.|30|CNAME|x.example.net."),
        RecordType.A,
        Response(Answer(Outcome.NODATA, ttl=30), "x.example.net"),
    ),
    "SERVFAIL": (
        response("example.org", "A", rcode="SERVFAIL"),
        RecordType.A,
        Response(Answer(Outcome.TEMPFAIL, reason="answered SERVFAIL")),
    ),
    "REFUSED with records": (
        response("example.org", "A", "example.org.|300|A|192.0.2.1", rcode="REFUSED"),
        RecordType.A,
        Response(Answer(Outcome.TEMPFAIL, reason="answered REFUSED")),
    ),
    "an unknown RCODE": (
        response("example.org", "A")[:3] + b"\x0e" + response("example.org", "A")[4:],
        RecordType.A,
        Response(Answer(Outcome.TEMPFAIL, reason="answered RCODE 14")),
    ),
    "NXDOMAIN with records": (
        response("example.org", "A", "example.org.|300|A|192.0.2.1", rcode="NXDOMAIN"),
        RecordType.A,
        Response(Answer(Outcome.TEMPFAIL, reason="answered NXDOMAIN with records")),
    ),
    "a CNAME loop": (
        response("a.org", "A", "a.org.|300|CNAME|b.org.", "b.org.|300|CNAME|a.org."),
        RecordType.A,
        Response(Answer(Outcome.TEMPFAIL, reason="answered with too many CNAMEs")),
    ),
    "records cut off": (
        response("example.org", "A", "example.org.|300|A|192.0.2.1")[:-20],
        RecordType.A,
        Response(Answer(Outcome.TEMPFAIL, reason="sent a malformed message (ShortHeader)")),
    ),
    "junk behind the message": (
        response("example.org", "A", "example.org.|300|A|192.0.2.1") + b"junk",
        RecordType.A,
        Response(Answer(Outcome.FOUND, (ip_address("192.0.2.1"),), ttl=300)),
    ),
}


@pytest.mark.parametrize(("message", "kind", "expected"), ANSWERS.values(), ids=ANSWERS)
def test_a_message_is_read(message: bytes, kind: RecordType, expected: Response) -> None:
    got = read(message, kind)
    if "malformed" in expected.answer.reason:  # which fault dnspython meets first is its affair
        assert got.answer.reason.startswith("sent a malformed message")
        assert got.answer.outcome is Outcome.TEMPFAIL
    else:
        assert by_set(got) == by_set(expected)


@pytest.mark.parametrize(
    ("flags", "trusted", "secure"), [("QR RA AD", True, True), ("QR RA AD", False, False), ("QR", True, False)]
)
def test_the_ad_bit_counts_only_if_the_nameserver_is_trusted(flags: str, trusted: bool, secure: bool) -> None:
    message = response("example.org", "A", "example.org.|300|A|192.0.2.1", flags=flags)
    assert read(message, RecordType.A, trust_ad=trusted).answer.secure is secure


ASKED = wire.section(Question("example.org", RecordType.A)) or b""
OWN = response("example.org", "A", "example.org.|300|A|192.0.2.1")
NUMBER = struct.unpack("!H", OWN[:2])[0]
MATCHES = {
    "number and question": (OWN, NUMBER, True),
    "another case": (OWN.replace(b"example", b"eXaMpLe"), NUMBER, True),
    "another number": (OWN, NUMBER ^ 1, False),
    "another name": (OWN.replace(b"example", b"exbmple"), NUMBER, False),
    "another type": (OWN[:12] + OWN[12:].replace(b"\0\0\x01\0\x01", b"\0\0\x1c\0\x01", 1), NUMBER, False),
    "a query": (OWN[:2] + b"\x01\x00" + OWN[4:], NUMBER, False),
    "no question, with an RCODE": (OWN[:2] + b"\x80\x01" + bytes(8), NUMBER, True),
    "no question, without": (OWN[:2] + b"\x80\x00" + bytes(8), NUMBER, False),
    "two questions": (OWN[:4] + b"\0\x02" + OWN[6:], NUMBER, False),
    "too short": (OWN[:11], NUMBER, False),
    "nothing": (b"", NUMBER, False),
}


@pytest.mark.parametrize(("message", "number", "expected"), MATCHES.values(), ids=MATCHES)
def test_only_an_answer_to_our_question_counts(message: bytes, number: int, expected: bool) -> None:
    assert wire.answers(message, number, ASKED) is expected


@settings(max_examples=500, deadline=None)
@given(st.data())
def test_reading_never_raises(data: st.DataObject) -> None:
    seed = bytearray(data.draw(st.sampled_from([message for message, _, _ in ANSWERS.values()])))
    for _ in range(data.draw(st.integers(1, 8))):
        seed[data.draw(st.integers(0, len(seed) - 1))] = data.draw(st.integers(0, 255))
    message = bytes(seed[: data.draw(st.integers(12, len(seed)))])
    for kind in RecordType:
        assert isinstance(read(message, kind), Response)


@pytest.mark.parametrize("name", ["a", "example.org", ".".join(["x" * 63] * 3), "y" * 60 + "." + "z" * 20])
def test_a_padded_query_is_a_multiple_of_the_block(name: str) -> None:
    asked = wire.section(Question(name, RecordType.TXT))
    assert asked is not None
    octets = wire.query(0, asked, padded=True)
    assert len(octets) % wire.BLOCK == 0
    message = dns.message.from_wire(octets)
    assert (message.edns, message.payload) == (0, wire.EDNS_PAYLOAD)
    assert [option.otype for option in message.options] == [dns.edns.OptionType.PADDING]


def test_only_the_letters_of_the_name_change_case() -> None:
    asked = wire.section(Question("a" * 40 + ".[{1`~." + "b" * 40, RecordType.TXT))
    assert asked is not None
    drawn = {wire.in_random_case(asked) for _ in range(20)}
    assert len(drawn) > 10
    for one in drawn:
        assert one.lower() == asked.lower()
        assert one[-5:] == asked[-5:]
        assert wire.answers(struct.pack("!HHHHHH", 7, 0x8180, 1, 0, 0, 0) + one, 7, asked)


def test_an_answer_in_another_case_does_not_repeat_the_question() -> None:
    asked = wire.section(Question("abc.example", RecordType.A))
    assert asked is not None
    header = struct.pack("!HHHHHH", 7, 0x8180, 1, 0, 0, 0)
    assert wire.repeats(header + asked, asked)
    assert not wire.repeats(header + asked.replace(b"abc", b"aBc"), asked)
    assert wire.is_truncated(wire.truncated(header + asked))
