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
from collections.abc import Mapping
from contextlib import suppress

import dns.rcode
from msgspec import Struct

from assay.inquiry import Answer, Outcome, RecordType
from assay.resolver.names import (
    HEADER,
    MAX_OFFSET,
    FailureError,
    Name,
    labels_of,
    malformed,
    pointer,
    read_name,
    text,
    whole_name,
)
from assay.resolver.records import KINDS, Span, distinct

#: Records in one message. Seventy addresses fit into a datagram of 1,232 octets, and no sender of mail needs more. Each
#: may cost a name of 127 labels, which is five milliseconds for all of them.
MAX_RECORDS = 256
#: CNAMEs in one message, as many as BIND follows (its max-query-restarts was 16 for decades).
MAX_ALIASES = 16

_IN = 1  # class; RFC 1035, 3.2.4
_NS, _CNAME, _SOA, _OPT = 2, 5, 6, 41
_NOERROR, _NXDOMAIN = 0, 3
_BRIEF = (2, 5)  #: SERVFAIL and REFUSED
_MAX_TTL = 0x7FFF_FFFF  # seconds; RFC 2181, 8
#: Of the header's flags: an answer (QR) to a standard query (OPCODE 0); AA, RA (RFC 1035, 4.1.1), AD (RFC 4035, 3.2.3).
_KIND, _ANSWER, _AA, _RA, _AD = 0xF800, 0x8000, 0x0400, 0x0080, 0x0020

_unpack_header = struct.Struct("!HHHHHH").unpack_from
_unpack_question = struct.Struct("!HH").unpack_from  # after its name: type, class
_unpack_record = struct.Struct("!HHIH").unpack_from  # after its owner: type, class, TTL, length
_unpack_minimum = struct.Struct("!I").unpack_from


class Response(Struct, frozen=True):
    """A nameserver's answer.

    If `alias` is not empty, the end of a CNAME chain is unanswered: ask for that name. A failure that is `brief` may be
    over in a moment: the server could not or would not look the name up. One that is `unusable` is an answer, but one
    that cannot be understood or is beyond our bounds.
    """

    answer: Answer
    alias: str = ""
    brief: bool = False
    unusable: bool = False


class _NoAnswerError(FailureError):
    """The server says nothing about the name."""


class _BriefError(_NoAnswerError):
    """The server cannot, or will not, look the name up now."""


def read(message: bytes, kind: RecordType, trust_ad: bool = False) -> Response:
    """Read a nameserver's answer to a question for records of this kind. Never raises.

    An RCODE other than NOERROR and NXDOMAIN, a message that cannot be understood, one that is beyond the bounds above
    and one of a server that does not look names up for us are TEMPFAIL, with a reason that completes the sentence "the
    server ...".
    """
    try:
        return _read(message, kind, trust_ad)
    except FailureError as failure:
        brief, unusable = isinstance(failure, _BriefError), not isinstance(failure, _NoAnswerError)
        return Response(Answer(Outcome.TEMPFAIL, reason=str(failure)), brief=brief, unusable=unusable)
    except (struct.error, IndexError):
        return Response(Answer(Outcome.TEMPFAIL, reason="sent a malformed message (it ends too soon)"), unusable=True)


def _read(message: bytes, kind: RecordType, trust_ad: bool) -> Response:
    _, flags, questions, answers, authorities, additionals = _unpack_header(message)
    if flags & _KIND != _ANSWER:
        raise FailureError("sent a message that is not an answer")
    if answers + authorities + additionals > MAX_RECORDS:
        raise FailureError(f"answered with more than {MAX_RECORDS} records")
    if questions > 1:
        raise malformed("several questions")
    code, convert = KINDS[kind]
    asked, at = b"", HEADER
    if questions:
        asked, at = read_name(message, at, len(message))
        asked = asked.lower()
        if _unpack_question(message, at) != (code, _IN):
            raise FailureError("answered another question")
        at += 4
    at, found, aliases = _answer_section(message, at, answers, code, asked)
    at, zones, refers = _authority_section(message, at, authorities)
    rcode = _upper_rcode(message, at, additionals) | flags & 0x000F
    if rcode not in (_NOERROR, _NXDOMAIN):
        word = dns.rcode.to_text(dns.rcode.Rcode.make(rcode))  # a bare number for one without a name
        kind_of_failure = _BriefError if rcode in _BRIEF else _NoAnswerError
        raise kind_of_failure(f"answered RCODE {word}" if word.isdigit() else f"answered {word}")
    if not questions:  # the server did not understand it (RFC 1035, 4.1.1), and should have reported that
        raise malformed("no question")

    name, ttl = asked, _MAX_TTL
    secure = trust_ad and bool(flags & _AD)
    for _ in range(MAX_ALIASES):
        spans = found.get(name)
        if spans is not None:
            if rcode == _NXDOMAIN:
                raise FailureError("answered NXDOMAIN with records")
            records = [convert(message, begin, end) for _, begin, end in spans]
            if len(records) > 1:
                records = distinct(message, records, spans)
            return Response(Answer(Outcome.FOUND, tuple(records), secure, min(ttl, min(spans)[0])))
        if name not in aliases:
            break
        name, lives = aliases[name]
        ttl = min(ttl, lives)
    else:
        raise FailureError("answered with too many CNAMEs")

    # RFC 6604, 3: the RCODE is that of the last name in the chain.
    outcome = Outcome.NXDOMAIN if rcode == _NXDOMAIN else Outcome.NODATA
    least = _negative_ttl(name, zones)
    if least is not None:
        return Response(Answer(outcome, (), secure, min(ttl, least)))
    if name != asked and outcome is Outcome.NODATA:
        return Response(Answer(outcome, (), secure, ttl), text(labels_of(name)))
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
    with suppress(FailureError, struct.error, IndexError):
        _, _, questions, *counts = _unpack_header(message)
        at = read_name(message, HEADER, len(message))[1] + 4 if questions else HEADER
        for _ in range(min(sum(counts), MAX_RECORDS)):
            kind, _, ttl, begin, at = _step(message, at)
            if kind != _OPT:
                octets[begin - 6 : begin - 2] = max(0, _bounded(ttl) - seconds).to_bytes(4, "big")
    return bytes(octets)


def _answer_section(
    message: bytes, at: int, count: int, code: int, asked: Name
) -> tuple[int, dict[Name, list[Span]], dict[Name, tuple[Name, int]]]:
    """Where the section ends; by owner, the records of a type, and the CNAMEs with their TTLs."""
    found: dict[Name, list[Span]] = {}
    aliases: dict[Name, tuple[Name, int]] = {}
    # Nearly every owner is a pointer to the name that was asked for or to the target of a CNAME.
    known = {pointer(HEADER): asked}
    for _ in range(count):
        owner = known.get(message[at : at + 2])
        if owner is None:
            owner, at = read_name(message, at, len(message))
            owner = owner.lower()
        else:
            at += 2
        kind, group, ttl, length = _unpack_record(message, at)
        begin = at + 10
        at = begin + length
        if at > len(message):
            raise malformed("a record beyond its end")
        if group != _IN:
            continue
        ttl = _bounded(ttl)
        if kind == code:
            if owner in found:
                found[owner].append((ttl, begin, at))
            else:
                found[owner] = [(ttl, begin, at)]
        elif kind == _CNAME and owner not in aliases:
            target = whole_name(message, begin, at).lower()
            aliases[owner] = target, ttl
            if begin <= MAX_OFFSET:
                known[pointer(begin)] = target
    return at, found, aliases


def _authority_section(message: bytes, at: int, count: int) -> tuple[int, dict[Name, int], bool]:
    """Where the section ends; the zones whose SOA it has, with the lifetime of negative answers; whether it has NS."""
    zones: dict[Name, int] = {}
    refers = False
    for _ in range(count):
        owner = at
        kind, group, ttl, begin, at = _step(message, at)
        if group != _IN:
            continue
        if kind == _NS:
            refers = True
        elif kind == _SOA:
            zone, _ = read_name(message, owner, len(message))
            _, numbers = read_name(message, begin, at)
            _, numbers = read_name(message, numbers, at)
            if numbers + 20 != at:  # serial, refresh, retry, expire, minimum (RFC 1035, 3.3.13)
                raise malformed("an SOA without its numbers")
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
                raise malformed("two OPT records")
            upper, extended = ttl >> 24 << 4, True
    return upper


def _bounded(ttl: int) -> int:
    """A TTL with its highest bit set counts as 0 (RFC 2181, 8)."""
    return ttl if ttl <= _MAX_TTL else 0


def _negative_ttl(name: Name, zones: Mapping[Name, int]) -> int | None:
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


def _step(message: bytes, at: int) -> tuple[int, int, int, int, int]:
    """Skip a record: its type, class and TTL, where its data start and where they end."""
    while length := message[at]:
        if length >= 192:  # a pointer (RFC 1035, 4.1.4)
            at += 1
            break
        if length >= 64:
            raise malformed("a label of an unknown kind")
        at += 1 + length
    kind, group, ttl, length = _unpack_record(message, at + 1)
    begin = at + 11
    if begin + length > len(message):
        raise malformed("a record beyond its end")
    return kind, group, ttl, begin, begin + length
