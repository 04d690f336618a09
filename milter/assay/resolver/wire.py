# SPDX-License-Identifier: GPL-3.0-or-later
"""Questions as DNS messages, and matching an answer to its question (RFC 1035, 4; RFC 6891). No socket, no clock.

Queries are made here, since they are thirty fixed bytes around a name; `message` reads the answers.

A name in a `Question` is raw: each character between two dots is one octet of a label, whatever it is; there are no
escapes. A name in an answer comes back the same way, an octet beyond ASCII as a lone surrogate (``surrogateescape``).
Only a name with a dot *inside* a label is escaped as in a master file (``a\\.b``), so that it equals no other name.
"""

from __future__ import annotations

import os
import struct

import dns.edns
import dns.flags
import dns.rcode
import dns.rdataclass
import dns.rdatatype

from assay.inquiry import Question, RecordType
from assay.resolver.names import HEADER

MAX_LABEL = 63  # octets; RFC 1035, 2.3.4
MAX_NAME = 253  # octets as text; RFC 1035, 2.3.4 allows 255 on the wire
#: UDP octets that we accept: no fragments on any path (RFC 9715, 3.2, and the DNS flag day of 2020).
EDNS_PAYLOAD = 1232

TYPES: dict[RecordType, dns.rdatatype.RdataType] = {
    RecordType.A: dns.rdatatype.A,
    RecordType.AAAA: dns.rdatatype.AAAA,
    RecordType.MX: dns.rdatatype.MX,
    RecordType.PTR: dns.rdatatype.PTR,
    RecordType.TXT: dns.rdatatype.TXT,
}
_SUFFIXES = {kind: struct.pack("!HH", code, dns.rdataclass.IN) for kind, code in TYPES.items()}
#: Header flags as plain numbers: those of an enumeration take ten times as long.
_QR, _TC, _RD, _AD = (int(flag) for flag in (dns.flags.QR, dns.flags.TC, dns.flags.RD, dns.flags.AD))
_UNKNOWN = (int(dns.rcode.FORMERR), int(dns.rcode.NOTIMP))
#: Octets of a padded query, or a multiple of it (RFC 8467, 4.1).
BLOCK = 128
#: The question a health probe asks: every resolver knows the root's nameservers (RFC 1035, 4.1.2: name, type, class).
PROBE = b"\0" + struct.pack("!HH", dns.rdatatype.NS, dns.rdataclass.IN)
#: RFC 6891, 6.1.2: root name, OPT, payload, no extended RCODE, version or flags, no options.
_OPT = b"\0" + struct.pack("!HHIH", dns.rdatatype.OPT, EDNS_PAYLOAD, 0, 0)


def section(question: Question) -> bytes | None:
    """The question section of a message (RFC 1035, 4.1.2), or None for a name the DNS cannot carry.

    In lower case: servers repeat the question's case in their answers, and what is cached for one asker must not show
    another one's spelling.
    """
    name = question.name
    if not name or len(name) > MAX_NAME or not name.isascii():
        return None
    octets = bytearray()
    for label in name.lower().encode("ascii").split(b"."):
        if not 0 < len(label) <= MAX_LABEL:
            return None
        octets.append(len(label))
        octets += label
    return bytes(octets) + b"\0" + _SUFFIXES[question.type]


def query(identifier: int, asked: bytes, authentic: bool = False, extended: bool = True, padded: bool = False) -> bytes:
    """A recursive query.

    :param identifier: 16 unpredictable bits (RFC 5452, 9.2).
    :param asked: the question section.
    :param authentic: ask for the AD bit (RFC 6840, 5.7).
    :param extended: with EDNS (RFC 6891).
    :param padded: with EDNS, and to a length that says little (RFC 8467, 4.1), for an encrypted path.
    """
    flags = _RD | _AD if authentic else _RD
    if padded:
        missing = -(HEADER + len(asked) + len(_OPT) + 4) % BLOCK
        option = struct.pack("!HHH", 4 + missing, dns.edns.OptionType.PADDING, missing) + bytes(missing)
        return struct.pack("!HHHHHH", identifier, flags, 1, 0, 0, 1) + asked + _OPT[:-2] + option
    return struct.pack("!HHHHHH", identifier, flags, 1, 0, 0, int(extended)) + asked + (_OPT if extended else b"")


def answers(message: bytes, identifier: int, asked: bytes) -> bool:
    """Whether a message answers our query: its number, and our question repeated (RFC 5452, 9.1).

    A server that did not understand the question may omit it (RFC 1035, 4.1.1), but then it has no answer.
    """
    if len(message) < HEADER:
        return False
    number, flags, questions = struct.unpack_from("!HHH", message)
    if number != identifier or not flags & _QR:
        return False
    if questions == 0:
        return bool(flags & 0x000F)  # the RCODE (RFC 1035, 4.1.1)
    # Lower-casing cannot hit a length octet: those are below 64, letters start at 65. Types and classes are as low.
    return questions == 1 and message[HEADER : HEADER + len(asked)].lower() == asked


def in_random_case(asked: bytes) -> bytes:
    """A question section with the case of each letter of its name drawn at random."""
    name = asked[:-4]
    chance = int.from_bytes(os.urandom(len(name) // 8 + 1), "big")
    # Lengths are below 64, so whatever is a letter here is one in the name.
    octets = [octet ^ (chance >> at & 1) << 5 if 97 <= octet <= 122 else octet for at, octet in enumerate(name)]
    return bytes(octets) + asked[-4:]


def repeats(message: bytes, asked: bytes) -> bool:
    """Whether an answer that `answers` accepts repeats our question octet by octet, or has none."""
    return message[4:6] == b"\0\0" or message[HEADER : HEADER + len(asked)] == asked


def truncated(message: bytes) -> bytes:
    """The message with the TC bit set."""
    return message[:2] + bytes([message[2] | _TC >> 8]) + message[3:]


def refuses_extension(message: bytes) -> bool:
    """Whether a server does not support EDNS: it answers FORMERR or NOTIMP, without an OPT record (RFC 6891, 7)."""
    return message[3] & 0x0F in _UNKNOWN and message[10:12] == b"\0\0"


def is_truncated(message: bytes) -> bool:
    """Whether the TC bit is set: ask again over TCP (RFC 7766, 5)."""
    return bool(message[2] & _TC >> 8)
