# SPDX-License-Identifier: GPL-3.0-or-later
"""What dnspython reads in a DNS message: the measure of our own reader."""

from __future__ import annotations

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

from assay.inquiry import MX, Answer, Outcome, Record, RecordType
from assay.resolver.message import MAX_RECORDS, Response, read
from assay.resolver.wire import TYPES

#: Why our reader may have no answer where dnspython has one: its bounds, and servers that do not recurse.
OURS = (
    f"answered with more than {MAX_RECORDS} records",
    "answered with too many CNAMEs",
    "sent a malformed message (a name with too many pointers)",
    "sent a malformed message (a pointer into the header)",
    "sent a malformed message (several questions)",
    "answered another question",
    "referred us to other nameservers",
    "does not recurse for us",
)


def agree(octets: bytes, kind: RecordType, trust_ad: bool = False) -> bool:
    """Whether the two readers read the same, or one of them has a reason not to.

    dnspython looks into all records and refuses a message for what it finds there; ours steps over those that answer
    nothing.
    """
    ours, theirs = read(octets, kind, trust_ad), read_by_dnspython(octets, kind, trust_ad)
    if theirs.answer.outcome is Outcome.TEMPFAIL:
        return True
    if ours.answer.outcome is Outcome.TEMPFAIL:
        return ours.answer.reason in OURS
    return by_set(ours) == by_set(theirs)


def by_set(reply: Response) -> tuple[Outcome, frozenset[Record], int, bool, int, str, str]:
    """A reply to compare by: the DNS keeps no order among records, and no case in names."""
    answer = reply.answer
    records = frozenset(map(_folded, answer.records))
    return answer.outcome, records, len(answer.records), answer.secure, answer.ttl, answer.reason, reply.alias.lower()


def _folded(record: Record) -> Record:
    match record:
        case str():
            return record.lower()
        case MX():
            return MX(record.preference, record.exchange.lower())
    return record


def read_by_dnspython(octets: bytes, kind: RecordType, trust_ad: bool = False) -> Response:
    """Read a message with dnspython alone."""
    try:
        parsed = dns.message.from_wire(octets, ignore_trailing=True)
        rcode = parsed.rcode()
        if rcode not in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
            word = dns.rcode.to_text(rcode)
            return _failed(f"answered RCODE {word}" if word.isdigit() else f"answered {word}")
        if not isinstance(parsed, dns.message.QueryMessage):
            return _failed("sent a message that is not an answer")
        chain = parsed.resolve_chaining()
    except (dns.exception.DNSException, ValueError) as error:
        return _failed(f"sent a malformed message ({type(error).__name__})")
    secure = trust_ad and bool(parsed.flags & dns.flags.AD)
    ttl = chain.minimum_ttl
    if chain.answer is not None:
        if (chain.answer.rdclass, chain.answer.rdtype) != (dns.rdataclass.IN, TYPES[kind]):
            return _failed("answered another question")
        convert = _CONVERSIONS[kind]
        return Response(Answer(Outcome.FOUND, tuple(convert(rdata) for rdata in chain.answer), secure, ttl))
    outcome = Outcome.NXDOMAIN if rcode == dns.rcode.NXDOMAIN else Outcome.NODATA
    if not _is_in_a_zone(chain.canonical_name, parsed):
        if chain.cnames and outcome is Outcome.NODATA:
            ttl = min(link.ttl for link in chain.cnames)  # dnspython's has a default of its own
            return Response(Answer(outcome, (), secure, ttl), _text(chain.canonical_name))
        ttl = 0
    return Response(Answer(outcome, (), secure, ttl))


def _is_in_a_zone(name: dns.name.Name, parsed: dns.message.Message) -> bool:
    zones = [rrset for rrset in parsed.authority if rrset.match(rrset.name, dns.rdataclass.IN, dns.rdatatype.SOA, 0)]
    return any(name.is_subdomain(zone.name) for zone in zones)


def _failed(reason: str) -> Response:
    return Response(Answer(Outcome.TEMPFAIL, reason=reason))


def _text(name: dns.name.Name) -> str:
    labels = name.labels[:-1]
    if any(b"." in label for label in labels):
        return name.to_text(omit_final_dot=True)
    return b".".join(labels).decode("ascii", "surrogateescape")


_CONVERSIONS: dict[RecordType, Callable[[Any], Record]] = {
    RecordType.A: lambda rdata: IPv4Address(rdata.address),
    RecordType.AAAA: lambda rdata: IPv6Address(rdata.address),
    RecordType.MX: lambda rdata: MX(rdata.preference, _text(rdata.exchange)),
    RecordType.PTR: lambda rdata: _text(rdata.target),
    RecordType.TXT: lambda rdata: b"".join(rdata.strings),
}
