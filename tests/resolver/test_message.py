# SPDX-License-Identifier: GPL-3.0-or-later
"""The reader of answers: what it reads, what it refuses, and that it and dnspython never disagree."""

from __future__ import annotations

import struct
from ipaddress import IPv4Address

import dns.message
import dns.rdatatype
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from assay.inquiry import Outcome, RecordType
from assay.resolver.message import MAX_RECORDS, aged, read
from reference import agree, read_by_dnspython

TYPES = {"A": 1, "NS": 2, "CNAME": 5, "SOA": 6, "PTR": 12, "MX": 15, "TXT": 16, "AAAA": 28, "OPT": 41, "RRSIG": 46}
ASKED = b"\xc0\x0c"  # a pointer to the question's name
NAME = b"\1a\7example\0"
OPT = b"\0" + struct.pack("!HHIH", 41, 1232, 0, 0)
A = b"\xc0\0\2\1"
AAAA = b"\x20\1\r\xb8" + bytes(11) + b"\1"


def record(kind: str, data: bytes, owner: bytes = ASKED, ttl: int = 300, group: int = 1, length: int = -1) -> bytes:
    return owner + struct.pack("!HHIH", TYPES[kind], group, ttl, len(data) if length < 0 else length) + data


def message(
    kind: str,
    answer: tuple[bytes, ...] = (),
    authority: tuple[bytes, ...] = (),
    additional: tuple[bytes, ...] = (OPT,),
    *,
    flags: int = 0x8180,
    name: bytes = NAME,
    questions: int = 1,
) -> bytes:
    header = struct.pack("!HHHHHH", 7, flags, questions, len(answer), len(authority), len(additional))
    question = (name + struct.pack("!HH", TYPES[kind], 1)) * questions
    return header + question + b"".join((*answer, *authority, *additional))


def soa(names: bytes = b"\2ns\xc0\x0c\4root\0", minimum: int = 60, refresh: int = 2, tail: bytes = b"") -> bytes:
    return names + struct.pack("!IIIII", 1, refresh, 3, 4, minimum) + tail


# Where the data of the first record of an answer begin: after header, question, and the record's fixed part.
FIRST = 12 + len(NAME) + 4 + 12
TO_FIRST = struct.pack("!H", 0xC000 | FIRST)

USUAL: dict[str, bytes] = {
    "A": message("A", (record("A", A), record("A", b"\xc0\0\2\2"))),
    "A without EDNS": message("A", (record("A", A),), additional=()),
    "A, the owner spelled out in another case": message("A", (record("A", A, owner=b"\1A\7exAmple\0"),)),
    "A, the owner half a pointer": message("A", (record("A", A, owner=b"\1a\xc0\x0e"),)),
    "AAAA": message("AAAA", (record("AAAA", AAAA),)),
    "MX": message("MX", (record("MX", b"\0\n\2mx\xc0\x0c"), record("MX", b"\0\0\0"))),
    "MX with glue": message("MX", (record("MX", b"\0\n\xc0\x0c"),), (), (record("A", A), record("AAAA", AAAA), OPT)),
    "PTR": message("PTR", (record("PTR", b"\2mx\7example\0"), record("PTR", ASKED))),
    "PTR of odd octets": message("PTR", (record("PTR", b"\4\xff \0\\\0"),)),
    "PTR to the root": message("PTR", (record("PTR", b"\0"),)),
    "TXT": message("TXT", (record("TXT", b"\2v=\4spf1\0"), record("TXT", b"\0"))),
    "TXT of 300 octets": message("TXT", (record("TXT", b"\xff" + b"x" * 255 + b"\x2d" + b"y" * 45),)),
    "the least TTL counts": message("A", (record("A", A, ttl=20), record("A", A[:3] + b"\2", ttl=10))),
    "with the zone's nameservers": message("A", (record("A", A),), (record("NS", b"\2ns\xc0\x0c", owner=b"\xc0\x0e"),)),
    "a CNAME": message("A", (record("CNAME", b"\1b\xc0\x0e", ttl=5), record("A", A, owner=TO_FIRST))),
    "a CNAME, its target spelled out": message(
        "A", (record("CNAME", b"\1b\xc0\x0e"), record("A", A, owner=b"\1B\7EXAMPLE\0"))
    ),
    "NXDOMAIN": message("A", (), (record("SOA", soa(), owner=b"\xc0\x0e"),), flags=0x8183),
    "NODATA, the SOA of the name": message("A", (), (record("SOA", soa()),)),
    "NODATA, the SOA of the root": message("A", (), (record("SOA", soa(), owner=b"\0"),)),
    "NODATA, the SOA's TTL is less": message("A", (), (record("SOA", soa(), ttl=5),)),
    "junk behind the message": message("A", (record("A", A),)) + b"junk",
    "the root's own": message("A", (record("A", A, owner=b"\0"),), name=b"\0"),
    "DO and other flags of EDNS": message("A", (record("A", A),), (), (OPT[:7] + b"\x80\0" + OPT[9:],)),
}


def kind_of(octets: bytes) -> RecordType:
    """The kind that a message's question asks for."""
    question = dns.message.from_wire(octets, question_only=True, ignore_trailing=True).question[0]
    return RecordType(dns.rdatatype.to_text(question.rdtype))


@pytest.mark.parametrize("octets", USUAL.values(), ids=USUAL)
@pytest.mark.parametrize("trusted", [False, True])
def test_the_usual_is_read_as_dnspython_reads_it(octets: bytes, trusted: bool) -> None:
    for authentic in (octets, octets[:3] + bytes([octets[3] | 0x20]) + octets[4:]):
        reply = read(authentic, kind_of(octets), trusted)
        assert reply == read_by_dnspython(authentic, kind_of(octets), trusted)
        assert reply.answer.outcome is not Outcome.TEMPFAIL


def chain(links: int, end: bytes = b"") -> bytes:
    """An answer with so many CNAMEs, from a.example to b.example to c.example, and an address at the last one."""
    names = [bytes([1, ord("a") + number]) + b"\7example\0" for number in range(links + 1)]
    aliases = [
        record("CNAME", end if end and place == links - 1 else names[place + 1], owner=names[place])
        for place in range(links)
    ]
    return message("A", (*aliases, record("A", A, owner=end or names[-1])))


def pointers(hops: int) -> bytes:
    """An answer whose owner is the question's name behind so many pointers, which stand in a text before it."""
    first = FIRST + 1
    steps = [struct.pack("!H", 0xC000 | (12 if hop == 0 else first + 2 * (hop - 1))) for hop in range(hops)]
    text = b"".join(steps[:-1])
    return message("TXT", (record("TXT", bytes([len(text)]) + text), record("TXT", b"\1x", owner=steps[-1])))


UNUSUAL: dict[str, bytes] = {
    "nothing": b"",
    "a piece of a header": message("A")[:11],
    "no question's end": message("A")[:15],
    "no question's type": message("A", additional=())[:-3],
    "a query": message("A", (record("A", A),), flags=0x0180),
    "another opcode": message("A", (record("A", A),), flags=0xA980),
    "SERVFAIL": message("A", flags=0x8182),
    "no question": message("A", (record("A", A, owner=NAME),), questions=0),
    "two questions": message("A", (record("A", A),), questions=2),
    "a question that is a pointer": message("A", name=b"\xc0\x0c"),
    "a question that is a pointer into the header": message("A", name=b"\xc0\x02"),
    "another class in the question": message("A", (record("A", A),)).replace(b"\0\1\0\1\xc0", b"\0\1\0\3\xc0", 1),
    "records of another type": message("A", (record("TXT", b"\1x"),)),
    "a signature": message("A", (record("A", A), record("RRSIG", bytes(19)))),
    "records of another name": message("A", (record("A", A, owner=b"\1b\xc0\x0e"),)),
    "another class": message("A", (record("A", A, group=3),)),
    "a TTL beyond 31 bits": message("A", (record("A", A, ttl=0x80000000),)),
    "a record twice": message("A", (record("A", A), record("A", A))),
    "a mail exchanger twice, in another case": message(
        "MX", (record("MX", b"\0\1\1x\0"), record("MX", b"\0\1\1X\0"))
    ),
    "a name twice, in another case": message("PTR", (record("PTR", b"\1x\0"), record("PTR", b"\1X\0"))),
    "a text twice, cut otherwise": message("TXT", (record("TXT", b"\2ab"), record("TXT", b"\1a\1b"))),
    "NXDOMAIN with records": message("A", (record("A", A),), flags=0x8183),
    "an address of 3 octets": message("A", (record("A", A[:3]),)),
    "an address of 5 octets": message("A", (record("A", A + b"\1"),)),
    "an address of no octets": message("A", (record("A", b""),)),
    "an IPv6 address of 15 octets": message("AAAA", (record("AAAA", AAAA[:15]),)),
    "data beyond the end": message("A", (record("A", A, length=5),), additional=()),
    "data far beyond the end": message("TXT", (record("TXT", b"\1x", length=65535),), additional=()),
    "the fixed part cut off": message("A", (record("A", A),), additional=())[:-9],
    "no record where one is announced": message("A", (b"",), additional=()),
    "an exchanger of one octet": message("MX", (record("MX", b"\0"),)),
    "an exchanger without a name": message("MX", (record("MX", b"\0\1"),)),
    "an exchanger's name without an end": message("MX", (record("MX", b"\0\1\1x"),)),
    "octets behind an exchanger": message("MX", (record("MX", b"\0\1\1x\0\0"),)),
    "a dot in a label": message("PTR", (record("PTR", b"\3a.b\0"),)),
    "a label beyond the data": message("PTR", (record("PTR", b"\5x\0"),)),
    "a label of an unknown kind": message("PTR", (record("PTR", b"\x41x\0"),)),
    "half a pointer": message("PTR", (record("PTR", b"\xc0"),), additional=()),
    "a pointer to itself": message("PTR", (record("PTR", TO_FIRST),)),
    "a pointer into its own name": message("PTR", (record("PTR", b"\1a" + TO_FIRST),)),
    "a pointer forwards": message("PTR", (record("PTR", b"\xc1\0"),)),
    "a pointer into the header": message("PTR", (record("PTR", b"\xc0\x04"),)),
    "octets behind a pointer": message("PTR", (record("PTR", ASKED + b"\0"),)),
    "a name of 256 octets": message("PTR", (record("PTR", b"\x3f" + b"x" * 63 + b"\x3f" + b"x" * 63 + b"\x3f"
                                                   + b"x" * 63 + b"\x35" + b"x" * 53 + ASKED),)),
    "nine pointers for one name": pointers(9),
    "a text without strings": message("TXT", (record("TXT", b""),)),
    "a string beyond the data": message("TXT", (record("TXT", b"\2x"),)),
    "a string beyond the message": message("TXT", (record("TXT", b"\xffx"),), additional=()),
    "nine CNAMEs": chain(9),
    "a CNAME loop": chain(2, NAME),
    "a CNAME to itself": message("A", (record("CNAME", ASKED), record("A", A))),
    "a CNAME behind the records": message("A", (record("A", A), record("CNAME", b"\1b\0"))),
    "the records before the CNAME": message("A", (record("A", A, owner=b"\1b\0"), record("CNAME", b"\1b\0"))),
    "octets behind a CNAME": message("A", (record("CNAME", b"\1b\0\0"), record("A", A, owner=b"\1b\0"))),
    "a CNAME without an end": message("A", (record("CNAME", b"\1b\0"),)),
    "NODATA behind a CNAME": message("A", (record("CNAME", b"\1b\0"),), (record("SOA", soa(), owner=b"\0"),)),
    "NXDOMAIN without an SOA": message("A", flags=0x8183),
    "NODATA without an SOA": message("A", (), (record("NS", b"\1x\0"),)),
    "the SOA of another zone": message("A", (), (record("SOA", soa(), owner=b"\1b\xc0\x0e"),)),
    "the SOA of a name below": message("A", (), (record("SOA", soa(), owner=b"\1b\xc0\x0c"),)),
    "two SOAs": message("A", (), (record("SOA", soa()), record("SOA", soa(), owner=b"\0"))),
    "an SOA cut off": message("A", (), (record("SOA", soa()[:-1]),)),
    "octets behind an SOA": message("A", (), (record("SOA", soa(tail=b"\0")),)),
    "an SOA without names": message("A", (), (record("SOA", b""),)),
    "an SOA's minimum beyond 31 bits": message("A", (), (record("SOA", soa(minimum=0x80000000)),)),
    "an SOA's refresh beyond 31 bits": message("A", (), (record("SOA", soa(refresh=0x80000000)),)),
    "another type in the authority section": message("A", (record("A", A),), (record("TXT", b"\1x"),)),
    "octets after a nameserver": message("A", (record("A", A),), (record("NS", b"\1x\0\0"),)),
    "an OPT with options": message("A", (record("A", A),), (), (record("OPT", b"\0\3\0\0", owner=b"\0", ttl=0),)),
    "an OPT of another name": message("A", (record("A", A),), (), (ASKED + OPT[1:],)),
    "two OPTs": message("A", (record("A", A),), (), (OPT, OPT)),
    "an OPT among the answers": message("A", (record("A", A), OPT)),
    "an extended RCODE": message("A", (record("A", A),), (), (record("OPT", b"", owner=b"\0", ttl=1 << 24),)),
    "another version of EDNS": message("A", (record("A", A),), (), (record("OPT", b"", owner=b"\0", ttl=1 << 16),)),
    "another type in the additional section": message("A", (record("A", A),), (), (record("TXT", b"\1x"),)),
    "another class in the additional section": message("A", (record("A", A),), (), (record("A", A, group=3),)),
    "glue of 3 octets": message("A", (record("A", A),), (), (record("A", A[:3]),)),
    "glue beyond the end": message("A", (record("A", A),), (), (record("A", A[:3], length=4),)),
}  # fmt: skip


#: What comes of each: an outcome, or why there is no answer.
EXPECTED: dict[str, str] = {
    name: expected
    for expected, names in {
        "sent a malformed message (it ends too soon)": (
            "nothing",
            "a piece of a header",
            "no question's type",
            "the fixed part cut off",
        ),
        "sent a malformed message (a name without an end)": (
            "no question's end",
            "a question that is a pointer",
            "no record where one is announced",
            "an exchanger's name without an end",
            "a label beyond the data",
            "half a pointer",
            "a pointer to itself",
            "a pointer into its own name",
            "a pointer forwards",
            "an SOA without names",
        ),
        "sent a message that is not an answer": (
            "a query",
            "another opcode",
        ),
        "answered SERVFAIL": ("SERVFAIL",),
        "sent a malformed message (no question)": ("no question",),
        "sent a malformed message (several questions)": ("two questions",),
        "sent a malformed message (a pointer into the header)": (
            "a question that is a pointer into the header",
            "a pointer into the header",
        ),
        "answered another question": ("another class in the question",),
        "NODATA": (
            "records of another type",
            "records of another name",
            "another class",
            "a CNAME without an end",
            "NODATA behind a CNAME",
            "the SOA of another zone",
            "the SOA of a name below",
            "two SOAs",
            "an SOA's minimum beyond 31 bits",
            "an SOA's refresh beyond 31 bits",
        ),
        "FOUND": (
            "a signature",
            "a TTL beyond 31 bits",
            "a record twice",
            "a mail exchanger twice, in another case",
            "a name twice, in another case",
            "a text twice, cut otherwise",
            "a dot in a label",
            "nine CNAMEs",
            "a CNAME loop",
            "a CNAME to itself",
            "a CNAME behind the records",
            "the records before the CNAME",
            "another type in the authority section",
            "octets after a nameserver",
            "an OPT with options",
            "an OPT of another name",
            "an OPT among the answers",
            "another version of EDNS",
            "another type in the additional section",
            "another class in the additional section",
            "glue of 3 octets",
        ),
        "answered NXDOMAIN with records": ("NXDOMAIN with records",),
        "sent a malformed message (an IPv4 address of other than 4 octets)": (
            "an address of 3 octets",
            "an address of 5 octets",
            "an address of no octets",
        ),
        "sent a malformed message (an IPv6 address of other than 16 octets)": ("an IPv6 address of 15 octets",),
        "sent a malformed message (a record beyond its end)": (
            "data beyond the end",
            "data far beyond the end",
            "glue beyond the end",
        ),
        "sent a malformed message (an MX that is too short)": (
            "an exchanger of one octet",
            "an exchanger without a name",
        ),
        "sent a malformed message (octets after a name)": (
            "octets behind an exchanger",
            "octets behind a pointer",
            "octets behind a CNAME",
        ),
        "sent a malformed message (a label of an unknown kind)": ("a label of an unknown kind",),
        "sent a malformed message (a name that is too long)": ("a name of 256 octets",),
        "sent a malformed message (a name with too many pointers)": ("nine pointers for one name",),
        "sent a malformed message (a text of no strings, or one beyond its end)": (
            "a text without strings",
            "a string beyond the data",
            "a string beyond the message",
        ),
        "NXDOMAIN": ("NXDOMAIN without an SOA",),
        "referred us to other nameservers": ("NODATA without an SOA",),
        "sent a malformed message (an SOA without its numbers)": (
            "an SOA cut off",
            "octets behind an SOA",
        ),
        "sent a malformed message (two OPT records)": ("two OPTs",),
        "answered BADVERS": ("an extended RCODE",),
    }.items()
    for name in names
}


def _asks_for(octets: bytes, kind: RecordType) -> bool:
    return octets[12:].startswith(NAME + struct.pack("!H", TYPES[kind]))


@pytest.mark.parametrize("name", UNUSUAL)
def test_the_unusual_is_read_or_refused(name: str) -> None:
    octets = UNUSUAL[name]
    answer = read(octets, next((kind for kind in RecordType if _asks_for(octets, kind)), RecordType.A)).answer
    assert (answer.reason or answer.outcome.name) == EXPECTED[name]
    for kind in RecordType:
        assert agree(octets, kind)


def test_the_bounds_are_where_they_are_said_to_be() -> None:
    for octets in (chain(15), pointers(8)):
        reply = read(octets, kind_of(octets))
        assert reply == read_by_dnspython(octets, kind_of(octets))
        assert reply.answer.outcome is Outcome.FOUND
    assert read(chain(16), RecordType.A).answer.reason == "answered with too many CNAMEs"
    full = tuple(record("A", struct.pack("!I", number)) for number in range(MAX_RECORDS))
    assert len(read(message("A", full, additional=()), RecordType.A).answer.records) == MAX_RECORDS
    assert read(message("A", full), RecordType.A).answer.reason == f"answered with more than {MAX_RECORDS} records"


def test_an_alias_that_no_pointer_reaches_is_spelled_out() -> None:
    """A pointer has 14 bits: the place 16,384 octets on must not be taken for the one it wraps to."""
    texts = tuple(record("TXT", b"\xff" + bytes(255)) for _ in range(70))
    far = message("A", (*texts, record("CNAME", b"\1b\0"), record("A", A, owner=b"\1b\0")))
    assert read(far, RecordType.A).answer.records == (IPv4Address("192.0.2.1"),)
    at = far.index(b"\1b\0")
    wrapped = message(
        "A", (*texts, record("CNAME", b"\1b\0"), record("A", A, owner=struct.pack("!H", 0xC000 | at & 0x3FFF)))
    )
    assert read(wrapped, RecordType.A).answer.outcome is not Outcome.FOUND


QR, AA, RA = 0x8000, 0x0400, 0x0080
NS = record("NS", b"\2ns\xc0\x0c")
SOA = record("SOA", soa())
NO_RECORDS: dict[str, tuple[bytes, str, int]] = {
    "a recursive server's": (message("A", (), (SOA,), flags=QR | RA), "NODATA", 60),
    "a recursive server's without an SOA": (message("A", flags=QR | RA), "NODATA", 0),
    "an authoritative server's": (message("A", (), (SOA,), flags=QR | AA), "NODATA", 60),
    "an authoritative server's without an SOA": (message("A", flags=QR | AA), "NODATA", 0),
    "an authoritative server's, its nameservers beside it": (message("A", (), (NS,), flags=QR | AA), "NODATA", 0),
    "an authoritative server's NXDOMAIN": (message("A", (), (SOA,), flags=QR | AA | 3), "NXDOMAIN", 60),
    "NXDOMAIN without an SOA": (message("A", flags=QR | RA | 3), "NXDOMAIN", 0),
    "what a cache knows that does not recurse": (message("A", (), (SOA,), flags=QR), "NODATA", 60),
    "a referral": (message("A", (), (NS,), flags=QR), "referred us to other nameservers", 0),
    "a referral of one that could recurse": (
        message("A", (), (NS,), flags=QR | RA), "referred us to other nameservers", 0,
    ),
    "nameservers beside NXDOMAIN": (message("A", (), (NS,), flags=QR | RA | 3), "NXDOMAIN", 0),
    "recursion refused, nameservers beside NXDOMAIN": (
        message("A", (), (NS,), flags=QR | 3), "does not recurse for us", 0,
    ),
    "recursion refused": (message("A", flags=QR), "does not recurse for us", 0),
    "recursion refused, with the root's SOA of another name": (
        message("A", (), (record("SOA", soa(), owner=b"\1x\0"),), flags=QR), "does not recurse for us", 0,
    ),
    "recursion refused, as NXDOMAIN": (message("A", flags=QR | 3), "does not recurse for us", 0),
    "records of one that does not recurse": (message("A", (record("A", A),), flags=QR), "FOUND", 300),
}  # fmt: skip


@pytest.mark.parametrize(("octets", "expected", "ttl"), NO_RECORDS.values(), ids=NO_RECORDS)
def test_who_does_not_look_names_up_for_us_has_not_said_that_there_is_nothing(
    octets: bytes, expected: str, ttl: int
) -> None:
    answer = read(octets, RecordType.A).answer
    assert (answer.reason or answer.outcome.name, answer.ttl) == (expected, ttl)


@settings(max_examples=2000, deadline=None)
@given(st.data())
def test_the_two_never_disagree(data: st.DataObject) -> None:
    """Over good messages with a few octets changed, cut, inserted or taken from another message."""
    messages = [*USUAL.values(), *UNUSUAL.values(), chain(3), chain(8), pointers(8)]
    octets = bytearray(data.draw(st.sampled_from(messages)))
    for _ in range(data.draw(st.integers(0, 4))):
        at = data.draw(st.integers(2, max(2, len(octets))))
        match data.draw(st.sampled_from(["change", "pointer", "cut", "insert"])):
            case "change":
                octets[at : at + 1] = bytes([data.draw(st.one_of(st.integers(0, 64), st.integers(0, 255)))])
            case "pointer":
                octets[at : at + 2] = struct.pack("!H", 0xC000 | data.draw(st.integers(0, len(octets))))
            case "cut":
                del octets[at : at + data.draw(st.integers(1, 12))]
            case _:
                other = data.draw(st.sampled_from(messages))
                start = data.draw(st.integers(0, len(other)))
                octets[at:at] = other[start : start + data.draw(st.integers(1, 24))]
    for kind in RecordType:
        assert agree(bytes(octets), kind, True)


def test_what_an_http_cache_kept_is_older_than_its_ttls_say() -> None:
    octets = message("A", (record("A", A, ttl=300), record("A", b"\xc0\0\2\2", ttl=90)), (record("SOA", soa()),))
    assert read(aged(octets, 60), RecordType.A).answer.ttl == 30
    assert read(aged(octets, 1000), RecordType.A).answer.ttl == 0
    assert dns.message.from_wire(aged(octets, 60)).options == dns.message.from_wire(octets).options
    nothing = message("A", (), (record("SOA", soa(minimum=300)),))
    assert read(aged(nothing, 60), RecordType.A).answer.ttl == 240


@given(octets=st.binary(max_size=200), seconds=st.integers(min_value=0, max_value=1 << 40))
def test_no_octets_are_too_odd_to_be_aged(octets: bytes, seconds: int) -> None:
    assert len(aged(octets, seconds)) == len(octets)
    usual = message("A", (record("A", A),))[: len(octets)] + octets
    assert len(aged(usual, seconds)) == len(usual)
