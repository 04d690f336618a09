# SPDX-License-Identifier: GPL-3.0-or-later
"""The senders: what their domains publish, as a zone file for a real name server.

Each domain belongs to a sender with its own mail server, which also sends through three providers: an SPF record
with three includes, the last of which allows the client; a record for the name of the server; an RSA-2048 key; a DMARC
record; a reverse name. TTLs are long, so that a cache that knows an answer keeps it for a whole run.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

SELECTOR = "s2024"
TTL = 7200
_TXT_CUT = 250  # octets of one character-string (RFC 1035, 3.3: 255 at most)


@dataclass(frozen=True, slots=True)
class Domain:
    """One sender. `number` is below 65536, and all names lie below `parent`."""

    number: int
    parent: str = "example"

    @property
    def name(self) -> str:
        return f"sender{self.number}.{self.parent}"

    @property
    def host(self) -> str:
        """The sending host's name, as in HELO."""
        return f"mx.{self.name}"

    @property
    def address(self) -> str:
        """The sending host's address, of the network that is set aside for benchmarks (RFC 2544)."""
        return f"198.18.{self.number >> 8}.{self.number & 255}"

    @property
    def reverse(self) -> str:
        return ".".join(reversed(self.address.split("."))) + ".in-addr.arpa"

    def records(self, key: str) -> Iterator[tuple[str, str, str]]:
        """Name, type and text of every record. `key`: the p= of its DKIM key."""
        name = self.name
        yield self.host, "A", self.address
        yield self.reverse, "PTR", self.host + "."
        yield name, "MX", f"10 {self.host}."
        yield name, "TXT", _quoted(f"v=spf1 include:_a.spf.{name} include:_b.spf.{name} include:_c.spf.{name} -all")
        yield f"_a.spf.{name}", "TXT", _quoted("v=spf1 ip4:192.0.2.0/25 ip4:192.0.2.128/26 ip6:2001:db8:1::/48 ~all")
        yield f"_b.spf.{name}", "TXT", _quoted("v=spf1 ip4:198.51.100.0/25 ip4:203.0.113.0/26 ip6:2001:db8:2::/48 ~all")
        yield f"_c.spf.{name}", "TXT", _quoted("v=spf1 ip4:203.0.113.128/25 ip4:198.18.0.0/15 ip6:2001:db8::/48 ~all")
        yield self.host, "TXT", _quoted("v=spf1 a -all")
        yield f"{SELECTOR}._domainkey.{name}", "TXT", _quoted(f"v=DKIM1; k=rsa; p={key}")
        yield f"_dmarc.{name}", "TXT", _quoted(f"v=DMARC1; p=reject; rua=mailto:dmarc@{name}")


@dataclass(frozen=True, slots=True)
class Stranger:
    """A client that sends for other domains. `host` is its name in HELO."""

    address: str
    host: str


def many_terms(terms: int) -> tuple[str, list[tuple[str, str, str]]]:
    """A domain whose SPF record has a number of ``ip4`` terms before the one that matches, and that record.

    :returns: its name, and records to add to the zone.
    """
    name = f"terms{terms}.example"
    networks = " ".join(f"ip4:192.0.2.{number % 256}" for number in range(terms - 1))
    return name, [(name, "TXT", _quoted(f"v=spf1 {networks} ip4:198.18.0.0/15 -all"))]


def zone_file(domains: list[Domain], key: str, more: list[tuple[str, str, str]], ttl: int = TTL) -> str:
    """All records as the root zone: no other names exist."""
    lines = [f"$TTL {ttl}", ". SOA ns.example. root.example. 1 7200 3600 86400 7200", ". NS ns.example."]
    lines.append("ns.example. A 127.0.0.1")
    for domain in domains:
        lines.extend(f"{name}. {kind} {text}" for name, kind, text in domain.records(key))
    lines.extend(f"{name}. {kind} {text}" for name, kind, text in more)
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    return " ".join(f'"{text[start : start + _TXT_CUT]}"' for start in range(0, len(text), _TXT_CUT))
