# SPDX-License-Identifier: GPL-3.0-or-later
"""Addresses and domains as rules and lists compare them: by what they name, not by their spelling.

``Ann@EXAMPLE.net``, ``"Ann"@example.net.`` and ``@relay.example:Ann@example.net`` are one mailbox (RFC 5321, 2.3.11 and
4.1.2), and U-labels name what their A-labels do (RFC 5890, 2.3.2.4). Whether ``Ann`` and ``ann`` are one mailbox is up
to their host. Almost every host treats them so, and so do lists and rules, unless the operator wants exact local parts.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from msgspec import Struct

from assay.caches import remember
from assay.model.name import Domain, InvalidNameError, Mailbox, parse_mailbox, quote_local_part
from assay.model.smtp import parse_address

_NOT_LOCAL = re.compile(r"[\s<>]")


def normal_mailbox(mailbox: Mailbox, *, exact: bool = False) -> str:
    """A mailbox in normal form, for comparison.

    :param exact: local parts differ by case.
    """
    local_part = mailbox.local_part if exact else mailbox.local_part.lower()
    return f"{quote_local_part(local_part)}@{mailbox.domain.name}"


def normal_address(text: str, *, exact: bool = False) -> str:
    """An address of the envelope in normal form, for comparison; as near to it as possible if it is not a mailbox.

    :param exact: local parts differ by case.
    """
    folded, unfolded = _forms(text)
    return unfolded if exact else folded


@remember("addresses")
def _forms(text: str) -> tuple[str, str]:
    """The form with a lower-case local part, and the one with its case kept."""
    try:
        mailbox = parse_mailbox(text)
    except InvalidNameError:  # such as Postmaster, which needs no domain (RFC 5321, 4.1.1.3), or an address literal
        local, at, domain = text.rpartition("@")
        rest = at + domain.lower().removesuffix(".")
        return local.lower() + rest, local + rest
    return normal_mailbox(mailbox), normal_mailbox(mailbox, exact=True)


def normal_domain(text: str) -> str:
    """A domain in normal form, for comparison: A-labels in lower case, no final dot."""
    if not text.isascii():
        try:
            return Domain.parse(text).name
        except InvalidNameError:
            pass
    return text.lower().removesuffix(".")


def at_or_below(domain: str, domains: frozenset[str]) -> bool:
    """Whether a domain or a domain above it is listed."""
    while domain:
        if domain in domains:
            return True
        domain = domain.partition(".")[2]
    return False


class Entries(Struct, frozen=True):
    """A list of addresses and domains.

    ``joe@example.org`` is that mailbox, ``example.org`` and ``.example.org`` that domain with all below it,
    ``@example.org`` that domain alone, ``*.example.org`` all domains below it; an IP address is itself.

    `delimiters` are the characters that begin a sub-address: with ``+`` the entry ``joe@example.org`` matches
    ``joe+news@example.org`` too.
    """

    addresses: frozenset[str] = frozenset()
    domains: frozenset[str] = frozenset()
    alone: frozenset[str] = frozenset()
    below: frozenset[str] = frozenset()
    exact: bool = False
    delimiters: str = ""

    @classmethod
    def parse(cls, texts: Iterable[str], *, exact: bool = False, delimiters: str = "") -> Entries:
        """Parse entries, each with or without angle brackets.

        :param exact: local parts differ by case.
        :raises ValueError: an entry that could never match; the message quotes it.
        """
        found: dict[str, set[str]] = {"addresses": set(), "domains": set(), "alone": set(), "below": set()}
        for text in texts:
            kind, entry = _entry(text, exact)
            found[kind].add(entry)
        return cls(**{kind: frozenset(entries) for kind, entries in found.items()}, exact=exact, delimiters=delimiters)

    def hold(self, text: str) -> bool:
        """Whether an address, its domain, or a domain above it is listed; likewise for a domain."""
        if not (self.addresses or self.domains or self.alone or self.below):
            return False
        if text.startswith("<") and text.endswith(">"):
            text = text[1:-1]
        if "@" in text:
            address = normal_address(text, exact=self.exact)
            if address in self.addresses or (self.delimiters and self._without_detail(address) in self.addresses):
                return True
            domain = address.rpartition("@")[2]
        else:
            domain = normal_domain(text)
            if domain in self.addresses:
                return True
        return (
            domain in self.alone
            or at_or_below(domain, self.domains)
            or bool(self.below and at_or_below(domain.partition(".")[2], self.below))
        )

    def _without_detail(self, address: str) -> str:
        """The address without its sub-address, which begins at the first delimiter after the first character."""
        local, _, domain = address.rpartition("@")
        cut = min((at for sign in self.delimiters if (at := local.find(sign, 1)) > 0), default=len(local))
        return f"{local[:cut]}@{domain}"


def _entry(text: str, exact: bool) -> tuple[str, str]:
    """The field of `Entries` that an entry belongs to, and its form there."""
    entry = text.strip()
    if entry.startswith("<") and entry.endswith(">"):
        entry = entry[1:-1]
    address = parse_address(entry)
    if address is not None:
        return "addresses", str(address)
    local, at, domain = entry.rpartition("@")
    try:
        if at and not local.startswith('"') and _NOT_LOCAL.search(local):
            raise InvalidNameError("local part with white space or an angle bracket")
        if at and local not in ("", "*"):
            mailbox = parse_mailbox(entry)
            Domain.parse_host(mailbox.domain.name)
            return "addresses", normal_mailbox(mailbox, exact=exact)
        if at:
            return "alone", Domain.parse_host(domain).name
        if entry.startswith("*."):
            return "below", Domain.parse_host(entry[2:]).name
        return "domains", Domain.parse_host(entry.removeprefix(".")).name
    except InvalidNameError as error:
        hint = "; networks are for inside() in a rule" if "/" in entry else ""
        raise ValueError(f"{text!r} is not an address, a domain or an IP address: {error}{hint}") from error
