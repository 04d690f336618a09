# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads the answers that nearly all are, straight from their octets (RFC 1035, 4).

dnspython makes a hundred objects of a message, of which we want a few; that was most of what a lookup cost. So the
usual message is read here: a CNAME chain in order and records of the asked type behind it, or an SOA in place of both;
beside them nothing but NS, A, AAAA, and an OPT without options. Whatever else a message has, and whatever is wrong with
it, is dnspython's affair: `read` then says None. It never gives an answer that dnspython would not give; a test holds
the two against each other.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address

from msgspec import Struct

from assay.inquiry import MX, Answer, Outcome, Record, RecordType

HEADER = 12  # octets; RFC 1035, 4.1.1
_IN = 1  # class; RFC 1035, 3.2.4
_A, _NS, _CNAME, _SOA, _PTR, _MX, _TXT, _AAAA, _OPT = 1, 2, 5, 6, 12, 15, 16, 28, 41
_NOERROR, _NXDOMAIN = 0, 3
_MAX_TTL = 0x7FFF_FFFF  # seconds; RFC 2181, 8
_MAX_NAME = 255  # octets; RFC 1035, 2.3.4
#: Compression pointers followed for one name, so that its work is bounded; servers write one, seldom two.
_MAX_POINTERS = 8
_MAX_POINTER = 0x3FFF  # octets from the message's beginning; RFC 1035, 4.1.4
#: CNAMEs in one message; as many as we follow ourselves.
_MAX_ALIASES = 8

_unpack_header = struct.Struct("!HHHHHH").unpack_from
_unpack_question = struct.Struct("!HH").unpack_from  # behind its name: type, class
_unpack_record = struct.Struct("!HHIH").unpack_from  # behind its owner: type, class, TTL, length
_unpack_preference = struct.Struct("!H").unpack_from
_unpack_numbers = struct.Struct("!IIIII").unpack_from  # of an SOA: serial, refresh, retry, expire, minimum


class Reply(Struct, frozen=True):
    """What a nameserver said. Where `alias` is not empty, it left the end of a CNAME chain unanswered: ask for that."""

    answer: Answer
    alias: str = ""


class _UnusualError(Exception):
    """Something that dnspython has to look at."""


def read(message: bytes, kind: RecordType, trust_ad: bool) -> Reply | None:
    """Read an answer to a question for records of this kind; None if it is not a usual one. Never raises."""
    try:
        return Reply(_read(message, kind, trust_ad))
    except (_UnusualError, struct.error):  # struct.error: the message ends too soon
        return None


def _read(message: bytes, kind: RecordType, trust_ad: bool) -> Answer:
    _, flags, questions, answers, authorities, additionals = _unpack_header(message)
    rcode = flags & 0x000F
    if flags & 0xF800 != 0x8000 or questions != 1 or rcode not in (_NOERROR, _NXDOMAIN):  # QR, and OPCODE 0
        raise _UnusualError
    name, at = _name(message, HEADER, len(message))
    code, convert = _KINDS[kind]
    if _unpack_question(message, at) != (code, _IN):
        raise _UnusualError
    at += 4
    chain, pointer = [_folded(name)], _pointer(HEADER)
    ttl = _MAX_TTL
    records: list[Record] = []
    for _ in range(answers):
        # Nearly every owner is a pointer to the name that has just been read: look no further then.
        if message.startswith(pointer, at):
            at += 2
        else:
            owner, at = _name(message, at, len(message))
            if _folded(owner) != chain[-1]:
                raise _UnusualError
        got, lives, at, end = _record(message, at)
        ttl = min(ttl, lives)
        if got == code:
            records.append(convert(message, at, end))
        elif got == _CNAME and not records and len(chain) <= _MAX_ALIASES:
            target = _folded(_whole_name(message, at, end))
            if target in chain or at > _MAX_POINTER:
                raise _UnusualError
            chain.append(target)
            pointer = _pointer(at)
        else:
            raise _UnusualError
        at = end
    soa = None
    for _ in range(authorities):
        owner, at = _name(message, at, len(message))
        got, lives, at, end = _record(message, at)
        if got == _SOA and soa is None:
            soa = _folded(owner), min(lives, _minimum(message, at, end))
        elif got == _NS:
            _whole_name(message, at, end)
        else:
            raise _UnusualError
        at = end
    _skip_additional(message, at, additionals)
    secure = trust_ad and bool(flags & 0x0020)  # AD
    if records:
        if rcode != _NOERROR or _repeats(records):
            raise _UnusualError
        return Answer(Outcome.FOUND, tuple(records), secure, ttl)
    if soa is None or len(chain) > 1:
        raise _UnusualError
    zone, minimum = soa
    if chain[0][len(chain[0]) - len(zone) :] != zone:
        raise _UnusualError
    # RFC 2308, 5: a negative answer lives for the SOA's TTL or its minimum, whichever is less.
    return Answer(Outcome.NXDOMAIN if rcode == _NXDOMAIN else Outcome.NODATA, (), secure, min(ttl, minimum))


def _name(message: bytes, at: int, end: int) -> tuple[list[bytes], int]:
    """The labels of a name that begins here and ends before `end`, and where it ends (RFC 1035, 4.1.4)."""
    labels: list[bytes] = []
    begin, behind = at, 0
    octets, pointers = 1, 0
    while True:
        if at >= end:
            raise _UnusualError
        length = message[at]
        at += 1
        if length == 0:
            return labels, behind or at
        if length < 64:
            octets += 1 + length
            if octets > _MAX_NAME or at + length > end:
                raise _UnusualError
            labels.append(message[at : at + length])
            at += length
        elif length >= 192 and at < end and pointers < _MAX_POINTERS:
            pointers += 1
            behind = behind or at + 1
            # What a pointer leads to lies before the piece that it ends, whole: so there is no loop.
            at, end = (length & 0x3F) << 8 | message[at], begin
            begin = at
            if at < HEADER:
                raise _UnusualError
        else:
            raise _UnusualError


def _whole_name(message: bytes, at: int, end: int) -> list[bytes]:
    """The labels of a name that is all of a record's data, or its end."""
    labels, behind = _name(message, at, end)
    if behind != end:
        raise _UnusualError
    return labels


def _folded(labels: list[bytes]) -> list[bytes]:
    """A name to compare by: without regard to the case of ASCII letters (RFC 4343)."""
    return [label.lower() for label in labels]


def _pointer(at: int) -> bytes:
    """A compression pointer to this place, which is at most `_MAX_POINTER`."""
    return (0xC000 | at).to_bytes(2, "big")


def _record(message: bytes, at: int) -> tuple[int, int, int, int]:
    """Of a record whose owner ends here: type, TTL, where its data begin and where they end."""
    kind, group, ttl, length = _unpack_record(message, at)
    begin = at + 10
    end = begin + length
    if group != _IN or ttl > _MAX_TTL or end > len(message):
        raise _UnusualError
    return kind, ttl, begin, end


def _skip_additional(message: bytes, at: int, count: int) -> None:
    """Make sure that the additional section is a usual one. Nothing is read from it."""
    extended = False
    for _ in range(count):
        owner, at = _name(message, at, len(message))
        kind, group, ttl, length = _unpack_record(message, at)
        at += 10 + length
        if kind == _OPT:  # RFC 6891, 6.1.2: the class is a size; of the TTL, the upper half has the RCODE's upper bits
            good = not (extended or owner or length or ttl >> 16)
            extended = True
        else:
            good = group == _IN and (kind, length) in ((_A, 4), (_AAAA, 16))
        if not good or at > len(message):
            raise _UnusualError


def _repeats(records: list[Record]) -> bool:
    """Whether a record stands there twice; case does not count in names."""
    if len(records) == 1:
        return False
    keys = {
        record.lower()
        if isinstance(record, str)
        else (record.preference, record.exchange.lower())
        if isinstance(record, MX)
        else record
        for record in records
    }
    return len(keys) < len(records)


def _text(labels: list[bytes]) -> str:
    """A name as text, in the spelling of `assay.resolver.wire`."""
    if any(b"." in label for label in labels):
        raise _UnusualError
    return b".".join(labels).decode("ascii", "surrogateescape")


def _minimum(message: bytes, at: int, end: int) -> int:
    """The minimum of an SOA (RFC 1035, 3.3.13)."""
    _, at = _name(message, at, end)
    _, at = _name(message, at, end)
    if at + 20 != end:
        raise _UnusualError
    _, *times = _unpack_numbers(message, at)
    if max(times) > _MAX_TTL:
        raise _UnusualError
    return int(times[-1])


def _read_a(message: bytes, at: int, end: int) -> IPv4Address:
    if end - at != 4:
        raise _UnusualError
    return IPv4Address(message[at:end])


def _read_aaaa(message: bytes, at: int, end: int) -> IPv6Address:
    if end - at != 16:
        raise _UnusualError
    return IPv6Address(message[at:end])


def _read_mx(message: bytes, at: int, end: int) -> MX:
    if end - at < 3:
        raise _UnusualError
    (preference,) = _unpack_preference(message, at)
    return MX(preference, _text(_whole_name(message, at + 2, end)))


def _read_ptr(message: bytes, at: int, end: int) -> str:
    return _text(_whole_name(message, at, end))


def _read_txt(message: bytes, at: int, end: int) -> bytes:
    """The strings of one record, joined (RFC 7208, 3.3)."""
    strings = []
    while at < end:
        behind = at + 1 + message[at]
        strings.append(message[at + 1 : behind])
        at = behind
    if not strings or at != end:
        raise _UnusualError
    return b"".join(strings)


#: By kind: the type's number, and what reads the data of such a record.
_KINDS: dict[RecordType, tuple[int, Callable[[bytes, int, int], Record]]] = {
    RecordType.A: (_A, _read_a),
    RecordType.AAAA: (_AAAA, _read_aaaa),
    RecordType.MX: (_MX, _read_mx),
    RecordType.PTR: (_PTR, _read_ptr),
    RecordType.TXT: (_TXT, _read_txt),
}
