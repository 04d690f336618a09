# SPDX-License-Identifier: GPL-3.0-or-later
"""The author domain: whose name the message bears in its From field (RFC 9989, 4.2 and 5.3.1).

DMARC applies to a message with exactly one From field that names exactly one domain. Two mailboxes in one domain are
fine, in U-labels or A-labels; a group counts by its mailboxes (RFC 6854), so an empty one has no domain. All else
yields no domain but a fault, because two readers of the same bytes would find two authors, and an attacker lives on
the difference (RFC 9989, 4.4 and 11.5). What to do with such a message is the operator's policy.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from assay.model.message import HeaderField
from assay.model.name import Domain, InvalidNameError, Mailbox
from assay.protocol.syntax.address import AddressList, Fault, HeaderMailbox, parse_addresses

MAX_AUTHOR_DOMAINS = 5  # our choice, for those who evaluate each of several domains (RFC 9989, 11.5: "a small number")

#: What surrounds a field's name only where somebody wants two programs to disagree on which fields are From fields.
_PADDING = b" \t\r\n\0"


class Author(Struct, frozen=True):
    """Who the message says it is from.

    `domain` is the author domain, or None where `fault` says why there is none. `mailbox` is the first address as
    text, empty without a domain, and as long as the sender likes. `display_name` is what stands before it, encoded
    words as they are. `domains` are all different domains, at most MAX_AUTHOR_DOMAINS, where the field could be read:
    more than one are a fault, but an operator may want each of them evaluated (RFC 9989, 11.5).
    """

    domain: Domain | None
    mailbox: str = ""
    fault: str = ""
    display_name: str = ""
    domains: tuple[Domain, ...] = ()


def author(fields: Sequence[HeaderField]) -> Author:
    """Find the author domain.

    :param fields: the From fields of the message, or all its fields; fields with another name are passed over.
    :returns: exactly one domain or the fault that says why there is none. Never raises.
    """
    found = from_fields(fields)
    if not found:
        return Author(None, fault="no From field")
    if len(found) > 1:  # RFC 5322, 3.6: exactly one
        return Author(None, fault=f"{len(found)} From fields")
    if found[0].name != found[0].name.strip(_PADDING):
        # RFC 5322, 4.5.2 has it as obsolete syntax; readers that know the present syntax only see no From field.
        return Author(None, fault="white space around the name of the From field")
    addresses = parse_addresses(found[0].value)
    if isinstance(addresses, Fault):
        return Author(None, fault=f"malformed From field: {addresses.reason}")
    return _author_of(addresses)


def from_fields(fields: Sequence[HeaderField]) -> list[HeaderField]:
    """Those that some reader could take for a From field."""
    return [field for field in fields if field.key.strip(_PADDING) == b"from"]


def _author_of(addresses: AddressList) -> Author:
    if not addresses.mailboxes:
        return Author(None, fault="group without mailbox in the From field")
    mailboxes: list[Mailbox] = []
    for one in addresses.mailboxes:
        domain = _domain_of(one)
        if isinstance(domain, Fault):
            return Author(None, fault=f"malformed From field: {domain.reason}")
        mailboxes.append(Mailbox(one.local_part, domain))
    domains = tuple(dict.fromkeys(mailbox.domain for mailbox in mailboxes))
    if len(domains) > 1:
        fault = "two author domains" if len(domains) == 2 else f"{len(domains)} author domains"
        return Author(None, fault=fault, domains=domains[:MAX_AUTHOR_DOMAINS])
    return Author(domains[0], str(mailboxes[0]), "", addresses.mailboxes[0].display_name, domains)


def _domain_of(mailbox: HeaderMailbox) -> Domain | Fault:
    if mailbox.domain.startswith("["):
        return Fault("address literal instead of a domain")
    try:
        return Domain.parse(mailbox.domain)
    except InvalidNameError as error:
        return Fault(str(error))
