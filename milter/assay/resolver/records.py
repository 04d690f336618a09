# SPDX-License-Identifier: GPL-3.0-or-later
"""The data of the records that evaluators ask for, from their octets (RFC 1035, 3.3)."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from ipaddress import IPv4Address, IPv6Address

from assay.inquiry import MX, Record, RecordType
from assay.resolver.names import labels_of, malformed, text, whole_name

#: A record that was skipped: its TTL, where its data start and where they end.
Span = tuple[int, int, int]

_unpack_preference = struct.Struct("!H").unpack_from


def distinct(message: bytes, records: Sequence[Record], spans: Sequence[Span]) -> list[Record]:
    """The records, each once; case does not count in names (RFC 4343), but the strings of a text do."""
    found: dict[object, Record] = {}
    for record, (_, begin, end) in zip(records, spans, strict=True):
        match record:
            case str():
                found.setdefault(record.lower(), record)
            case MX():
                found.setdefault((record.preference, record.exchange.lower()), record)
            case _:
                found.setdefault(message[begin:end], record)
    return list(found.values())


def _read_a(message: bytes, at: int, end: int) -> IPv4Address:
    if end - at != 4:
        raise malformed("an IPv4 address of other than 4 octets")
    return IPv4Address(message[at:end])


def _read_aaaa(message: bytes, at: int, end: int) -> IPv6Address:
    if end - at != 16:
        raise malformed("an IPv6 address of other than 16 octets")
    return IPv6Address(message[at:end])


def _read_mx(message: bytes, at: int, end: int) -> MX:
    if end - at < 3:
        raise malformed("an MX that is too short")
    (preference,) = _unpack_preference(message, at)
    return MX(preference, text(labels_of(whole_name(message, at + 2, end))))


def _read_ptr(message: bytes, at: int, end: int) -> str:
    return text(labels_of(whole_name(message, at, end)))


def _read_txt(message: bytes, at: int, end: int) -> bytes:
    """The strings of one record, joined (RFC 7208, 3.3)."""
    strings = []
    while at < end:
        behind = at + 1 + message[at]
        strings.append(message[at + 1 : behind])
        at = behind
    if not strings or at != end:
        raise malformed("a text of no strings, or one beyond its end")
    return b"".join(strings)


#: By kind: the type's number, and what reads the data of such a record.
KINDS: dict[RecordType, tuple[int, Callable[[bytes, int, int], Record]]] = {
    RecordType.A: (1, _read_a),
    RecordType.AAAA: (28, _read_aaaa),
    RecordType.MX: (15, _read_mx),
    RecordType.PTR: (12, _read_ptr),
    RecordType.TXT: (16, _read_txt),
}
