# SPDX-License-Identifier: GPL-3.0-or-later
"""Questions to DNS messages and DNS messages to answers (RFC 1035, 4; RFC 6891).

Queries are made here, since they are thirty fixed bytes around a name; answers are read by `usual`, and all that is not
usual by dnspython. No socket and no clock.

A name in a `Question` is raw: each character between two dots is one octet of a label, whatever it is; there are no
escapes. A name in an answer comes back the same way, an octet beyond ASCII as a lone surrogate (``surrogateescape``).
Only a name with a dot *inside* a label keeps dnspython's escapes (``a\\.b``), so that it equals no other name.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address
from typing import Any

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdataclass
import dns.rdatatype

from assay.inquiry import MX, Answer, Outcome, Question, Record, RecordType
from assay.resolver import usual
from assay.resolver.usual import HEADER, Reply

MAX_LABEL = 63  # octets; RFC 1035, 2.3.4
MAX_NAME = 253  # octets as text; RFC 1035, 2.3.4 allows 255 on the wire
#: UDP octets we take: no fragments on any path (RFC 9715, 3.2, and the DNS flag day of 2020).
EDNS_PAYLOAD = 1232

TYPES: dict[RecordType, dns.rdatatype.RdataType] = {
    RecordType.A: dns.rdatatype.A,
    RecordType.AAAA: dns.rdatatype.AAAA,
    RecordType.MX: dns.rdatatype.MX,
    RecordType.PTR: dns.rdatatype.PTR,
    RecordType.TXT: dns.rdatatype.TXT,
}
_SUFFIXES = {kind: struct.pack("!HH", code, dns.rdataclass.IN) for kind, code in TYPES.items()}
#: Header flags as plain numbers: an enumeration's take ten times as long.
_QR, _TC, _RD, _AD = (int(flag) for flag in (dns.flags.QR, dns.flags.TC, dns.flags.RD, dns.flags.AD))
#: The question a health probe asks: every resolver knows the root's nameservers (RFC 1035, 4.1.2: name, type, class).
PROBE = b"\0" + struct.pack("!HH", dns.rdatatype.NS, dns.rdataclass.IN)
#: RFC 6891, 6.1.2: root name, OPT, payload, no extended RCODE, version or flags, no options.
_OPT = b"\0" + struct.pack("!HHIH", dns.rdatatype.OPT, EDNS_PAYLOAD, 0, 0)


def section(question: Question) -> bytes | None:
    """The question as it stands in a message (RFC 1035, 4.1.2), or None for a name the DNS cannot carry.

    In lower case: servers repeat the question's case in their answers, and what is cached for one asker shall not show
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


def query(identifier: int, asked: bytes, authentic: bool = False) -> bytes:
    """A recursive query.

    :param identifier: 16 unpredictable bits (RFC 5452, 9.2).
    :param asked: the question section.
    :param authentic: ask for the AD bit (RFC 6840, 5.7).
    """
    flags = _RD | _AD if authentic else _RD
    return struct.pack("!HHHHHH", identifier, flags, 1, 0, 0, 1) + asked + _OPT


def answers(message: bytes, identifier: int, asked: bytes) -> bool:
    """Whether a message answers our query: its number, and our question repeated (RFC 5452, 9.1).

    A server that did not understand the question may leave it out (RFC 1035, 4.1.1), but then it answers nothing.
    """
    if len(message) < HEADER:
        return False
    number, flags, questions = struct.unpack_from("!HHH", message)
    if number != identifier or not flags & _QR:
        return False
    if questions == 0:
        return bool(flags & 0x000F)  # the RCODE (RFC 1035, 4.1.1)
    # Lower-casing cannot hit a length octet: those are below 64, letters begin at 65. Types and classes are as low.
    return questions == 1 and message[HEADER : HEADER + len(asked)].lower() == asked


def is_truncated(message: bytes) -> bool:
    """Whether the TC bit is set: ask again over TCP (RFC 7766, 5)."""
    return bool(message[2] & _TC >> 8)


def read(message: bytes, kind: RecordType, trust_ad: bool = False) -> Reply:
    """Read a nameserver's answer to a question for records of this kind. Never raises.

    An RCODE other than NOERROR and NXDOMAIN, and a message that cannot be understood, are TEMPFAIL with a reason that
    completes the sentence "the server ...".
    """
    reply = usual.read(message, kind, trust_ad)
    return read_any(message, kind, trust_ad) if reply is None else reply


def read_any(message: bytes, kind: RecordType, trust_ad: bool = False) -> Reply:
    """What `read` does, by dnspython alone."""
    try:
        parsed = dns.message.from_wire(message, ignore_trailing=True)
        rcode = parsed.rcode()
        if rcode not in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
            word = dns.rcode.to_text(rcode)  # a bare number for one without a name
            return _failed(f"answered RCODE {word}" if word.isdigit() else f"answered {word}")
        if not isinstance(parsed, dns.message.QueryMessage):
            return _failed("sent a message that is no answer")
        chain = parsed.resolve_chaining()
    except dns.message.ChainTooLong:
        return _failed("answered with too many CNAMEs")
    except dns.message.AnswerForNXDOMAIN:
        return _failed("answered NXDOMAIN with records")
    except (dns.exception.DNSException, ValueError) as error:  # ValueError: an unknown opcode's or type's number
        return _failed(f"sent a malformed message ({type(error).__name__})")
    secure = trust_ad and bool(parsed.flags & dns.flags.AD)
    ttl = chain.minimum_ttl
    if chain.answer is not None:
        if (chain.answer.rdclass, chain.answer.rdtype) != (dns.rdataclass.IN, TYPES[kind]):
            return _failed("answered another question")
        convert = CONVERSIONS[kind]
        return Reply(Answer(Outcome.FOUND, tuple(convert(rdata) for rdata in chain.answer), secure, ttl))
    # RFC 6604, 3: the RCODE is that of the last name in the chain.
    outcome = Outcome.NXDOMAIN if rcode == dns.rcode.NXDOMAIN else Outcome.NODATA
    if not any(rrset.rdtype == dns.rdatatype.SOA for rrset in parsed.authority):
        if chain.cnames and outcome is Outcome.NODATA:
            return Reply(Answer(outcome, (), secure, ttl), text(chain.canonical_name))
        ttl = 0  # RFC 2308, 5: without an SOA a negative answer should not be kept
    return Reply(Answer(outcome, (), secure, ttl))


def text(name: dns.name.Name) -> str:
    """A name as text without final dot; see this module's head for odd octets."""
    labels = name.labels[:-1] if name.is_absolute() else name.labels
    if any(b"." in label for label in labels):
        return name.to_text(omit_final_dot=True)
    return b".".join(labels).decode("ascii", "surrogateescape")


def _failed(reason: str) -> Reply:
    return Reply(Answer(Outcome.TEMPFAIL, reason=reason))


#: From dnspython's records (typed no closer than `Any` there) to ours.
CONVERSIONS: dict[RecordType, Callable[[Any], Record]] = {
    RecordType.A: lambda rdata: IPv4Address(rdata.address),
    RecordType.AAAA: lambda rdata: IPv6Address(rdata.address),
    RecordType.MX: lambda rdata: MX(rdata.preference, text(rdata.exchange)),
    RecordType.PTR: lambda rdata: text(rdata.target),
    RecordType.TXT: lambda rdata: b"".join(rdata.strings),  # RFC 7208, 3.3
}
