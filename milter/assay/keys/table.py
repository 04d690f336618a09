# SPDX-License-Identifier: GPL-3.0-or-later
"""Which keys sign for an address: the rows of ``[[sign.domain]]``, and what all tables have in common."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Protocol

from msgspec import Struct
from msgspec.structs import replace

from assay.model.name import Domain, InvalidNameError, Mailbox
from assay.protocol import dkim


class Signatory(Struct, frozen=True):
    """Who signs, and how: a domain (d=) with its keys.

    `reserve` are keys that no longer sign and are still published. `identity` is i=, empty for none. `place` is the row
    of the configuration, for explanations.
    """

    domain: Domain
    keys: tuple[dkim.SigningKey, ...]
    rules: dkim.SigningRules = dkim.DEFAULT_SIGNING_RULES
    identity: str = ""
    place: str = ""
    reserve: tuple[dkim.SigningKey, ...] = ()

    def with_keys(self, keys: Iterable[dkim.SigningKey]) -> Signatory:
        """The same with further keys."""
        return replace(self, keys=tuple(dict.fromkeys((*self.keys, *keys))))


#: The identity that is the author's address.
AUTHOR = "author"


def signer_of(identity: str, address: Mailbox, domain: Domain) -> str:
    """The i= for an address.

    :param identity: what the operator wrote, in which ``%`` stands for the domain of the address; `AUTHOR` for the
        address itself; empty for none.
    :param domain: d=.
    :returns: empty for none, also if its domain is not at or below d=, as RFC 6376, 3.5 requires.
    """
    if identity == AUTHOR and address.local_part:
        text = str(address)
    else:
        text = (
            "@%".replace("%", address.domain.name) if identity == AUTHOR else identity.replace("%", address.domain.name)
        )
    local_part, at, name = text.rpartition("@")
    try:
        below = Domain.parse_host(name)
    except InvalidNameError:
        return ""
    return f"{local_part}@{below.name}" if at and below.is_at_or_below(domain) else ""


def someone(domain: Domain) -> Mailbox:
    """An address in a subdomain of a domain."""
    return Mailbox("someone", Domain(f"sub.{domain}"))


class Table(Protocol):
    """Finds the signatories for an address."""

    @property
    def domains(self) -> frozenset[str]:
        """The domains that the table names, to suggest the nearest one."""

    @property
    def rules(self) -> Sequence[dkim.SigningRules]:
        """How its signatories sign."""

    @property
    def signatories(self) -> Sequence[Signatory]:
        """All that may sign, each once, with an identity below the domain if there can be one (t=s forbids it)."""

    def find(self, address: Mailbox) -> Iterator[Signatory]:
        """Those that sign for an address, the first match first. The local part may be empty for unknown."""

    def near_misses(self, address: Mailbox) -> Iterator[str]:
        """The rows that would match an address but for one thing, each as one clause that says so."""


class DomainRow(Struct, frozen=True):
    """One ``[[sign.domain]]``. `subdomains`: it also signs for all domains below its own. `identity` is as the operator
    wrote it, see `signer_of`."""

    signatory: Signatory
    subdomains: bool = False
    identity: str = ""


class DomainTable(Struct, frozen=True):
    """All ``[[sign.domain]]``, by domain."""

    rows: Mapping[str, DomainRow]

    @property
    def domains(self) -> frozenset[str]:
        """See `Table`."""
        return frozenset(self.rows)

    @property
    def rules(self) -> Sequence[dkim.SigningRules]:
        """See `Table`."""
        return [row.signatory.rules for row in self.rows.values()]

    @property
    def signatories(self) -> Sequence[Signatory]:
        """See `Table`."""
        return [
            replace(
                row.signatory, identity=signer_of(row.identity, someone(row.signatory.domain), row.signatory.domain)
            )
            if row.subdomains or row.identity != AUTHOR
            else row.signatory
            for row in self.rows.values()
        ]

    def find(self, address: Mailbox) -> Iterator[Signatory]:
        """See `Table`. The row of the domain itself, or of the nearest domain above it that signs for subdomains."""
        name = address.domain.name
        while name:
            row = self.rows.get(name)
            if row is not None and (row.subdomains or name == address.domain.name):
                identity = signer_of(row.identity, address, row.signatory.domain)
                yield replace(row.signatory, identity=identity) if identity else row.signatory
                return
            name = name.partition(".")[2]

    def near_misses(self, address: Mailbox) -> Iterator[str]:
        """See `Table`."""
        name = address.domain.name.partition(".")[2]
        while name:
            row = self.rows.get(name)
            if row is not None and not row.subdomains:
                yield f"{row.signatory.place} ({name}) does not sign for subdomains"
            name = name.partition(".")[2]
