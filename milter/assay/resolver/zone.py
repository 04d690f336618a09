# SPDX-License-Identifier: GPL-3.0-or-later
"""The operator's local zone, which answers before the DNS.

It fixes what others publish: a wrong or missing SPF, DMARC or DKIM record of one domain. It is a master file
(RFC 1035, 5) without an origin: owners may be of any domains, relative names are below the root, SOA and
NS may be omitted, and so may TTLs. Wildcards work (RFC 4592, 3.3.1). ``$INCLUDE`` is refused: a zone is one file.

An owner that is in the zone is answered from it; for a type it lacks there, the DNS is asked, except in an
*authoritative* zone. A CNAME is followed within the zone and from there into the DNS.
"""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Any

import dns.exception
import dns.name
import dns.rdataclass
import dns.rdatatype
import dns.tokenizer
import dns.zone
import dns.zonefile

from assay import files
from assay.inquiry import MX, Answer, Outcome, Question, Record, RecordType
from assay.resolver import names, wire

MAX_CNAMES = 8  # our choice: BIND and unbound follow 16 and 11; a local file needs fewer than three
DEFAULT_TTL = 300  # seconds, for records without one


class ZoneError(ValueError):
    """A zone that cannot be used. The message names the file and, for a fault in its text, the line."""


class LocalZone:
    """A zone in memory. It never changes, so any thread may ask."""

    def __init__(self, text: str, *, source: str = "zone", authoritative: bool = False) -> None:
        """
        :param text: a master file.
        :param source: its name in errors, such as its path.
        :param authoritative: types that an owner lacks do not exist; the DNS is not asked for them.
        :raises ZoneError: the text is not a master file, or has a CNAME loop.
        """
        self._answers: dict[tuple[str, RecordType], Answer] = {}
        self._aliases: dict[str, str] = {}
        self._owners: set[str] = set()
        self._authoritative = authoritative
        zone = _parse(text, source)
        for owner, node in zone.nodes.items():
            name = _text(owner).lower()
            self._owners.add(name)
            for rdataset in node.rdatasets:
                if rdataset.rdtype == dns.rdatatype.CNAME:
                    self._aliases[name] = _text(rdataset[0].target)
                for kind, code in wire.TYPES.items():
                    if rdataset.rdtype == code:
                        records = tuple(_CONVERSIONS[kind](rdata) for rdata in rdataset)
                        self._answers[name, kind] = Answer(Outcome.FOUND, records, ttl=rdataset.ttl)
        self._branches = {
            ".".join(labels[start:])
            for labels in (name.split(".") for name in self._owners)
            for start in range(len(labels))
        }
        self._has_wildcards = any(name.startswith("*.") for name in self._owners)
        for name in self._aliases:
            self._refuse_loop(name, source)

    @classmethod
    def load(cls, path: Path, *, authoritative: bool = False) -> LocalZone:
        """Read a zone from a file.

        :raises ZoneError: the file cannot be read or is not a master file.
        """
        try:
            content = files.read_text(path)
        except OSError as error:
            raise ZoneError(f"{path}: {error.strerror}") from error
        except UnicodeDecodeError as error:
            line = error.object.count(b"\n", 0, error.start) + 1
            raise ZoneError(f"{path}:{line}: not UTF-8") from error
        return cls(content, source=str(path), authoritative=authoritative)

    def answer(self, question: Question) -> Answer | Question:
        """The zone's answer, or the question for the DNS: the same one, or that of a CNAME that leads there."""
        name = question.name.lower().removesuffix(".")
        for _ in range(MAX_CNAMES):
            owner = self._owner(name)
            if owner is None:
                break
            answer = self._answers.get((owner, question.type))
            if answer is not None:
                return answer
            alias = self._aliases.get(owner)
            if alias is None:
                if self._authoritative:
                    return Answer(Outcome.NODATA, ttl=DEFAULT_TTL)
                break
            question = Question(alias, question.type)
            name = alias.lower()
        return question

    def last_word(self, question: Question) -> Answer:
        """The answer to a question that `answer` returned, if there is no DNS to ask."""
        name = question.name.lower().removesuffix(".")
        exists = name in self._branches or self._owner(name) is not None
        return Answer(Outcome.NODATA if exists else Outcome.NXDOMAIN, ttl=DEFAULT_TTL)

    def _owner(self, name: str) -> str | None:
        """The owner in the zone whose records apply to this name: itself, or the wildcard that matches it."""
        if name in self._owners:
            return name
        if not self._has_wildcards or name in self._branches:
            return None
        parent = name.partition(".")[2]
        while parent:
            if "*." + parent in self._owners:
                return "*." + parent
            if parent in self._branches:  # RFC 4592, 3.3.1: only the closest encloser's wildcard counts
                return None
            parent = parent.partition(".")[2]
        return None

    def _refuse_loop(self, name: str, source: str) -> None:
        target: str | None = name
        for _ in range(MAX_CNAMES):
            owner = self._owner(target.lower()) if target is not None else None
            if owner is None:
                return
            target = self._aliases.get(owner)
        raise ZoneError(f"{source}: CNAME loop, or more than {MAX_CNAMES} CNAMEs in a row, at {name}")


class _Tokens(dns.tokenizer.Tokenizer):
    """Records where a record started: faults are often found only at its end, when `where` is a line further."""

    begun = 1

    def get(self, want_leading: bool = False, want_comment: bool = False) -> dns.tokenizer.Token:
        if want_leading and want_comment:  # the reader asks this only at the start of a record
            self.begun = self.where()[1]
        return super().get(want_leading, want_comment)


def _parse(text: str, source: str) -> dns.zone.Zone:
    zone = dns.zone.Zone(dns.name.root, relativize=False)
    tokens = _Tokens(text, source)
    with zone.writer(True) as transaction:
        reader = dns.zonefile.Reader(tokens, dns.rdataclass.IN, transaction, default_ttl=DEFAULT_TTL)
        try:
            reader.read()
        except (dns.exception.DNSException, ValueError) as error:
            said = str(error).removeprefix(f"{source}:{tokens.where()[1]}: ").removeprefix("caught exception ")
            raise ZoneError(f"{source}:{tokens.begun}: {said}") from error
    return zone


def _text(name: dns.name.Name) -> str:
    """A name, spelled as those in the answers of the DNS."""
    return names.text(name.labels[:-1])


#: From dnspython's records (typed only as `Any` there) to ours.
_CONVERSIONS: dict[RecordType, Callable[[Any], Record]] = {
    RecordType.A: lambda rdata: IPv4Address(rdata.address),
    RecordType.AAAA: lambda rdata: IPv6Address(rdata.address),
    RecordType.MX: lambda rdata: MX(rdata.preference, _text(rdata.exchange)),
    RecordType.PTR: lambda rdata: _text(rdata.target),
    RecordType.TXT: lambda rdata: b"".join(rdata.strings),  # RFC 7208, 3.3
}
