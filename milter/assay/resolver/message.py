# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads answers straight from their octets (RFC 1035, 4), in bounded time whatever a stranger's server sends.

An object for each part of a message would be most of the cost of a lookup, and compression makes names cheap to send
and expensive to read: 64 KiB can hold five thousand names of 127 labels. So most records are only skipped, a name is
read only where it can matter, and only the records that answer are converted. The result is as RFC 1035 says and
dnspython reads; a test compares the two.

Other content of a message (signatures, glue, other types) is skipped unread.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address

import dns.rcode
from msgspec import Struct

from assay.inquiry import MX, Answer, Outcome, Record, RecordType

HEADER = 12  # octets; RFC 1035, 4.1.1
#: Records in one message. Seventy addresses fit into a datagram of 1,232 octets, and no sender of mail needs more. Each
#: may cost a name of 127 labels, which is five milliseconds for all of them.
MAX_RECORDS = 256
#: CNAMEs in one message, as many as BIND follows (its max-query-restarts was 16 for decades).
MAX_ALIASES = 16
#: Compression pointers followed for one name, so that its work is bounded; servers write one, seldom two.
MAX_POINTERS = 8

_IN = 1  # class; RFC 1035, 3.2.4
_A, _NS, _CNAME, _SOA, _PTR, _MX, _TXT, _AAAA, _OPT = 1, 2, 5, 6, 12, 15, 16, 28, 41
_NOERROR, _NXDOMAIN = 0, 3
_BRIEF = (2, 5)  #: SERVFAIL and REFUSED
_MAX_TTL = 0x7FFF_FFFF  # seconds; RFC 2181, 8
_MAX_NAME = 254  # octets without the root's; RFC 1035, 2.3.4
_MAX_POINTER = 0x3FFF  # octets from the start of the message; RFC 1035, 4.1.4
#: Of the header's flags: an answer (QR) to a standard query (OPCODE 0); AA, RA (RFC 1035, 4.1.1), AD (RFC 4035, 3.2.3).
_KIND, _ANSWER, _AA, _RA, _AD = 0xF800, 0x8000, 0x0400, 0x0080, 0x0020

_unpack_header = struct.Struct("!HHHHHH").unpack_from
_unpack_question = struct.Struct("!HH").unpack_from  # after its name: type, class
_unpack_record = struct.Struct("!HHIH").unpack_from  # after its owner: type, class, TTL, length
_unpack_preference = struct.Struct("!H").unpack_from
_unpack_minimum = struct.Struct("!I").unpack_from

#: A record that was skipped: its TTL, where its data start and where they end.
_Span = tuple[int, int, int]
#: A name as it goes over the wire, whole, in lower case and without the root's octet. Lower-casing cannot hit a length:
#: lengths are below 64, letters start at 65.
_Name = bytes


class Response(Struct, frozen=True):
    """A nameserver's answer.

    If `alias` is not empty, the end of a CNAME chain is unanswered: ask for that name. A failure that is `brief` may be
    over in a moment: the server could not or would not look the name up.
    """

    answer: Answer
    alias: str = ""
    brief: bool = False


class _FailureError(Exception):
    """A message that is not a usable answer. The text completes the sentence "the server ..."."""


class _BriefError(_FailureError):
    """The server cannot, or will not, look the name up now."""


def read(message: bytes, kind: RecordType, trust_ad: bool = False) -> Response:
    """Read a nameserver's answer to a question for records of this kind. Never raises.

    An RCODE other than NOERROR and NXDOMAIN, a message that cannot be understood, one that is beyond the bounds above
    and one of a server that does not look names up for us are TEMPFAIL, with a reason that completes the sentence "the
    server ...".
    """
    try:
        return _read(message, kind, trust_ad)
    except _FailureError as failure:
        return Response(Answer(Outcome.TEMPFAIL, reason=str(failure)), brief=isinstance(failure, _BriefError))
    except (struct.error, IndexError):
        return Response(Answer(Outcome.TEMPFAIL, reason="sent a malformed message (it ends too soon)"))


def _read(message: bytes, kind: RecordType, trust_ad: bool) -> Response:
    _, flags, questions, answers, authorities, additionals = _unpack_header(message)
    if flags & _KIND != _ANSWER:
        raise _FailureError("sent a message that is not an answer")
    if answers + authorities + additionals > MAX_RECORDS:
        raise _FailureError(f"answered with more than {MAX_RECORDS} records")
    if questions > 1:
        raise _malformed("several questions")
    code, convert = _KINDS[kind]
    asked, at = b"", HEADER
    if questions:
        asked, at = _name(message, at, len(message))
        asked = asked.lower()
        if _unpack_question(message, at) != (code, _IN):
            raise _FailureError("answered another question")
        at += 4
    at, found, aliases = _answer_section(message, at, answers, code, asked)
    at, zones, refers = _authority_section(message, at, authorities)
    rcode = _upper_rcode(message, at, additionals) | flags & 0x000F
    if rcode not in (_NOERROR, _NXDOMAIN):
        word = dns.rcode.to_text(dns.rcode.Rcode.make(rcode))  # a bare number for one without a name
        kind_of_failure = _BriefError if rcode in _BRIEF else _FailureError
        raise kind_of_failure(f"answered RCODE {word}" if word.isdigit() else f"answered {word}")
    if not questions:  # the server did not understand it (RFC 1035, 4.1.1), and should have reported that
        raise _malformed("no question")

    name, ttl = asked, _MAX_TTL
    secure = trust_ad and bool(flags & _AD)
    for _ in range(MAX_ALIASES):
        spans = found.get(name)
        if spans is not None:
            if rcode == _NXDOMAIN:
                raise _FailureError("answered NXDOMAIN with records")
            records = [convert(message, begin, end) for _, begin, end in spans]
            if len(records) > 1:
                records = _distinct(message, records, spans)
            return Response(Answer(Outcome.FOUND, tuple(records), secure, min(ttl, min(spans)[0])))
        if name not in aliases:
            break
        name, lives = aliases[name]
        ttl = min(ttl, lives)
    else:
        raise _FailureError("answered with too many CNAMEs")

    # RFC 6604, 3: the RCODE is that of the last name in the chain.
    outcome = Outcome.NXDOMAIN if rcode == _NXDOMAIN else Outcome.NODATA
    least = _negative_ttl(name, zones)
    if least is not None:
        return Response(Answer(outcome, (), secure, min(ttl, least)))
    if name != asked and outcome is Outcome.NODATA:
        return Response(Answer(outcome, (), secure, ttl), text(_labels(name)))
    # Without an SOA it proves nothing, unless the server knows: it is authoritative, or looked the name up for us. With
    # nameservers in place of the SOA, no data is a referral (RFC 2308, 2.2), but "no such name" is not one (2.1).
    if not flags & _AA:
        if refers and outcome is Outcome.NODATA:
            raise _BriefError("referred us to other nameservers")
        if not flags & _RA:
            raise _BriefError("does not recurse for us")
    return Response(Answer(outcome, (), secure, 0))  # RFC 2308, 5: not to be kept


def aged(message: bytes, seconds: int) -> bytes:
    """The message with its TTLs reduced, as far as it can be understood: `read` says what is wrong."""
    octets = bytearray(message)
    with suppress(_FailureError, struct.error, IndexError):
        _, _, questions, *counts = _unpack_header(message)
        at = _name(message, HEADER, len(message))[1] + 4 if questions else HEADER
        for _ in range(min(sum(counts), MAX_RECORDS)):
            kind, _, ttl, begin, at = _step(message, at)
            if kind != _OPT:
                octets[begin - 6 : begin - 2] = max(0, _bounded(ttl) - seconds).to_bytes(4, "big")
    return bytes(octets)


def _answer_section(
    message: bytes, at: int, count: int, code: int, asked: _Name
) -> tuple[int, dict[_Name, list[_Span]], dict[_Name, tuple[_Name, int]]]:
    """Where the section ends; by owner, the records of a type, and the CNAMEs with their TTLs."""
    found: dict[_Name, list[_Span]] = {}
    aliases: dict[_Name, tuple[_Name, int]] = {}
    # Nearly every owner is a pointer to the name that was asked for or to the target of a CNAME.
    known = {_pointer(HEADER): asked}
    for _ in range(count):
        owner = known.get(message[at : at + 2])
        if owner is None:
            owner, at = _name(message, at, len(message))
            owner = owner.lower()
        else:
            at += 2
        kind, group, ttl, length = _unpack_record(message, at)
        begin = at + 10
        at = begin + length
        if at > len(message):
            raise _malformed("a record beyond its end")
        if group != _IN:
            continue
        ttl = _bounded(ttl)
        if kind == code:
            if owner in found:
                found[owner].append((ttl, begin, at))
            else:
                found[owner] = [(ttl, begin, at)]
        elif kind == _CNAME and owner not in aliases:
            target = _whole_name(message, begin, at).lower()
            aliases[owner] = target, ttl
            if begin <= _MAX_POINTER:
                known[_pointer(begin)] = target
    return at, found, aliases


def _authority_section(message: bytes, at: int, count: int) -> tuple[int, dict[_Name, int], bool]:
    """Where the section ends; the zones whose SOA it has, with the lifetime of negative answers; whether it has NS."""
    zones: dict[_Name, int] = {}
    refers = False
    for _ in range(count):
        owner = at
        kind, group, ttl, begin, at = _step(message, at)
        if group != _IN:
            continue
        if kind == _NS:
            refers = True
        elif kind == _SOA:
            zone, _ = _name(message, owner, len(message))
            _, numbers = _name(message, begin, at)
            _, numbers = _name(message, numbers, at)
            if numbers + 20 != at:  # serial, refresh, retry, expire, minimum (RFC 1035, 3.3.13)
                raise _malformed("an SOA without its numbers")
            (minimum,) = _unpack_minimum(message, at - 4)
            # RFC 2308, 5: a negative answer lives for the SOA's TTL or its minimum, whichever is less.
            zones.setdefault(zone.lower(), min(_bounded(ttl), minimum))
    return at, zones, refers


def _upper_rcode(message: bytes, at: int, count: int) -> int:
    """The upper bits of the RCODE, which an OPT record has (RFC 6891, 6.1.3). All else is skipped."""
    upper, extended = 0, False
    for _ in range(count):
        kind, _, ttl, _, at = _step(message, at)
        if kind == _OPT:
            if extended:
                raise _malformed("two OPT records")
            upper, extended = ttl >> 24 << 4, True
    return upper


def _bounded(ttl: int) -> int:
    """A TTL with its highest bit set counts as 0 (RFC 2181, 8)."""
    return ttl if ttl <= _MAX_TTL else 0


def _negative_ttl(name: _Name, zones: Mapping[_Name, int]) -> int | None:
    """How long a negative answer for a name is valid, by the SOA of its zone; None without one."""
    at = 0
    while zones:
        ttl = zones.get(name[at:])
        if ttl is not None:
            return ttl
        if at == len(name):
            break
        at += 1 + name[at]
    return None


def _malformed(what: str) -> _FailureError:
    return _FailureError(f"sent a malformed message ({what})")


def _step(message: bytes, at: int) -> tuple[int, int, int, int, int]:
    """Skip a record: its type, class and TTL, where its data start and where they end."""
    while length := message[at]:
        if length >= 192:  # a pointer (RFC 1035, 4.1.4)
            at += 1
            break
        if length >= 64:
            raise _malformed("a label of an unknown kind")
        at += 1 + length
    kind, group, ttl, length = _unpack_record(message, at + 1)
    begin = at + 11
    if begin + length > len(message):
        raise _malformed("a record beyond its end")
    return kind, group, ttl, begin, begin + length


def _name(message: bytes, at: int, end: int) -> tuple[_Name, int]:
    """The name that starts here and ends before `end`, as spelled, and where it ends (RFC 1035, 4.1.4)."""
    begin, behind = at, 0
    name = b""
    pointers = 0
    while True:
        if at >= end:
            raise _malformed("a name without an end")
        length = message[at]
        if 0 < length < 64:
            at += 1 + length
            if at - begin <= _MAX_NAME:
                continue
        elif 64 <= length < 192:
            raise _malformed("a label of an unknown kind")
        elif length and at + 1 >= end:
            raise _malformed("a name without an end")
        name += message[begin:at]
        if len(name) > _MAX_NAME:
            raise _malformed("a name that is too long")
        if not length:
            return name, behind or at + 1
        if pointers == MAX_POINTERS:
            raise _malformed("a name with too many pointers")
        pointers += 1
        behind = behind or at + 2
        # The target of a pointer lies wholly before the piece that it ends, so there is no loop.
        end, at = begin, (length & 0x3F) << 8 | message[at + 1]
        begin = at
        if at < HEADER:
            raise _malformed("a pointer into the header")


def _whole_name(message: bytes, at: int, end: int) -> _Name:
    """A name that is the whole of a record's data, or its end."""
    name, behind = _name(message, at, end)
    if behind != end:
        raise _malformed("octets after a name")
    return name


def _pointer(at: int) -> bytes:
    """A compression pointer to this offset, which is at most `_MAX_POINTER`."""
    return (0xC000 | at).to_bytes(2, "big")


def _labels(name: _Name) -> list[bytes]:
    labels = []
    at = 0
    while at < len(name):
        behind = at + 1 + name[at]
        labels.append(name[at + 1 : behind])
        at = behind
    return labels


def text(labels: Sequence[bytes]) -> str:
    """A name as text without final dot, in the spelling that `assay.resolver.wire` describes."""
    joined = b".".join(labels)
    if joined.count(b".") >= len(labels) > 0:
        return ".".join([label.decode("latin-1").translate(_ESCAPED) for label in labels])
    return joined.decode("ascii", "surrogateescape")


#: What a master file escapes (RFC 1035, 5), as dnspython writes it.
_ESCAPED = {octet: f"\\{octet:03d}" for octet in range(256) if not 0x20 < octet < 0x7F} | {
    ord(special): "\\" + special for special in '"().;\\@$'
}


def _distinct(message: bytes, records: Sequence[Record], spans: Sequence[_Span]) -> list[Record]:
    """The records, each once; case does not count in names (RFC 4343), but the strings of a text do."""
    distinct: dict[object, Record] = {}
    for record, (_, begin, end) in zip(records, spans, strict=True):
        match record:
            case str():
                distinct.setdefault(record.lower(), record)
            case MX():
                distinct.setdefault((record.preference, record.exchange.lower()), record)
            case _:
                distinct.setdefault(message[begin:end], record)
    return list(distinct.values())


def _read_a(message: bytes, at: int, end: int) -> IPv4Address:
    if end - at != 4:
        raise _malformed("an IPv4 address of other than 4 octets")
    return IPv4Address(message[at:end])


def _read_aaaa(message: bytes, at: int, end: int) -> IPv6Address:
    if end - at != 16:
        raise _malformed("an IPv6 address of other than 16 octets")
    return IPv6Address(message[at:end])


def _read_mx(message: bytes, at: int, end: int) -> MX:
    if end - at < 3:
        raise _malformed("an MX that is too short")
    (preference,) = _unpack_preference(message, at)
    return MX(preference, text(_labels(_whole_name(message, at + 2, end))))


def _read_ptr(message: bytes, at: int, end: int) -> str:
    return text(_labels(_whole_name(message, at, end)))


def _read_txt(message: bytes, at: int, end: int) -> bytes:
    """The strings of one record, joined (RFC 7208, 3.3)."""
    strings = []
    while at < end:
        behind = at + 1 + message[at]
        strings.append(message[at + 1 : behind])
        at = behind
    if not strings or at != end:
        raise _malformed("a text of no strings, or one beyond its end")
    return b"".join(strings)


#: By kind: the type's number, and what reads the data of such a record.
_KINDS: dict[RecordType, tuple[int, Callable[[bytes, int, int], Record]]] = {
    RecordType.A: (_A, _read_a),
    RecordType.AAAA: (_AAAA, _read_aaaa),
    RecordType.MX: (_MX, _read_mx),
    RecordType.PTR: (_PTR, _read_ptr),
    RecordType.TXT: (_TXT, _read_txt),
}
