# SPDX-License-Identifier: GPL-3.0-or-later
"""The author domain: the domain in the message's From field (RFC 9989, 4.2 and 5.3.1).

A message has one author domain if every reader finds the same one: two mailboxes in one domain are fine, in U-labels or
A-labels, and a group counts by its mailboxes (RFC 6854). If the field is not valid by RFC 5322, or programs read it
differently, or there are several, every domain that any program could take for the author's is collected, because
attackers exploit the difference (RFC 9989, 4.4 and 11.5). If that is one, in whatever form, it is the author domain.
If there are several, the message cannot pass for any, and the strictest of their policies applies
(`evaluate_several`). If there is none, or too many to ask for, DMARC cannot be applied, and the operator decides.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from msgspec import Struct

from assay.model.message import HeaderField
from assay.model.name import MAX_DOMAIN_LENGTH, MAX_LABEL_LENGTH, Domain, InvalidNameError, Mailbox
from assay.protocol.syntax.address import AddressList, HeaderMailbox, parse_addresses
from assay.protocol.syntax.readings import MAX_READINGS, possible_addresses

#: Our choice: each costs the questions of a tree walk (RFC 9989, 11.5: "a small number"). No honest message needs more
#: than two.
MAX_AUTHOR_DOMAINS = 4
MAX_FROM_FIELDS = 10  # our choice: each is parsed; RFC 5322, 3.6 allows exactly one

#: Found around a field's name only if the sender wants programs to disagree on which fields are From fields.
_PADDING = b" \t\r\n\0"


class Author(Struct, frozen=True):
    """The author that the message names.

    `domain` is the author domain, or None where `fault` says why there is not just one. `mailbox` is the first address
    as text, of any length; empty without a domain, or where its local part is not clear. `display_name` is the text
    before it, with encoded words unchanged. `domains` are all that a program could take for the author domain: the
    one, several, or none where there are more than MAX_AUTHOR_DOMAINS.
    """

    domain: Domain | None
    mailbox: str = ""
    fault: str = ""
    display_name: str = ""
    domains: tuple[Domain, ...] = ()


def author(fields: Sequence[HeaderField]) -> Author:
    """Find the author domain.

    :param fields: the From fields of the message, or all its fields; fields with another name are ignored.
    :returns: exactly one domain or the fault that says why there is none. Never raises.
    """
    found = from_fields(fields)
    if not found:
        return Author(None, fault="no From field")
    if len(found) > MAX_FROM_FIELDS:
        return Author(None, fault=f"more than {MAX_FROM_FIELDS} From fields")
    if len(found) == 1:
        usual = _usual(found[0])
        if usual is not None:
            return usual
    addresses: list[HeaderMailbox] = []
    domains: dict[Domain, None] = {}
    fault = ""
    for field in found:
        read = parse_addresses(field.value)
        if isinstance(read, AddressList):
            mailboxes, names = read.mailboxes, _names(read.mailboxes)
            fault = fault or ("" if mailboxes else "group without a mailbox")
        else:
            possible = possible_addresses(field.value)
            if possible is None:
                return Author(None, fault=f"malformed From field: more than {MAX_READINGS} possible addresses")
            mailboxes = possible
            names = _likely(_names(mailboxes))
            fault = fault or read.reason
        if any(_UNDECODED.search(mailbox.domain) for mailbox in mailboxes):
            return Author(None, fault="malformed From field: domain with octets that are not UTF-8")
        addresses += mailboxes
        domains |= dict.fromkeys(names)
        if len(domains) > MAX_AUTHOR_DOMAINS:
            return Author(None, fault=f"more than {MAX_AUTHOR_DOMAINS} possible author domains")
    if len(domains) == 1:
        (domain,) = domains
        mailbox = str(Mailbox(addresses[0].local_part, domain)) if _is_sure(addresses, fault) else ""
        return Author(domain, mailbox, "", addresses[0].display_name, (domain,))
    if domains:
        return Author(None, fault=_several(len(domains), len(found), fault), domains=tuple(domains))
    return Author(None, fault=f"no author domain in the From field: {fault or 'address without a domain name'}")


def _usual(field: HeaderField) -> Author | None:
    """The author in the usual field: one mailbox at a host name. The general way finds the same."""
    read = parse_addresses(field.value)
    if not isinstance(read, AddressList) or len(read.mailboxes) != 1:
        return None
    mailbox = read.mailboxes[0]
    domain = _parsed(mailbox.domain)
    if domain is None or not domain.is_host_name:
        return None
    address = str(Mailbox(mailbox.local_part, domain)) if mailbox.local_part else ""
    return Author(domain, address, "", mailbox.display_name, (domain,))


def from_fields(fields: Sequence[HeaderField]) -> list[HeaderField]:
    """The fields that some reader could take for a From field."""
    return [field for field in fields if field.key.strip(_PADDING) == b"from"]


def _several(domains: int, fields: int, fault: str) -> str:
    if fields > 1:
        return f"{domains} author domains in {fields} From fields"
    return (
        f"{domains} possible author domains in a malformed From field: {fault}"
        if fault
        else f"{domains} author domains"
    )


def _is_sure(addresses: Sequence[HeaderMailbox], fault: str) -> bool:
    """Whether every reader reads the first address: in a malformed field, only if there is no other."""
    return bool(addresses[0].local_part) and (not fault or len({address.local_part for address in addresses}) == 1)


def _likely(domains: list[Domain]) -> list[Domain]:
    """Of several possible domains, those with more than one label, if there are any.

    A word after an "@" in a malformed display name is not a mail domain, and must not hide the author of an honest
    message.
    """
    return [domain for domain in domains if "." in domain.name] or domains


def _names(mailboxes: Iterable[HeaderMailbox]) -> list[Domain]:
    """The domains of mailboxes, each once."""
    texts = dict.fromkeys(mailbox.domain for mailbox in mailboxes)
    return list(dict.fromkeys(name for text in texts for name in _names_of(text)))


def _names_of(text: str) -> list[Domain]:
    """The names that a domain, as written, can stand for: none for an address literal."""
    if text.startswith("["):
        return []
    name = _parsed(text)
    if name is not None and name.is_host_name:
        return [name]
    # Some programs stop reading at an empty label or a character that a host name cannot have.
    first = _BREAK.split(text.lstrip("."), maxsplit=1)[0].rstrip(".")
    found = (name or _carried(text), _carried(first) if "." in first else None)
    return [domain for domain in found if domain is not None]


def _parsed(text: str) -> Domain | None:
    try:
        return Domain.parse(text)
    except InvalidNameError:
        return None


#: What a host name cannot contain, in any script.
_BREAK = re.compile("[.\u3002\uff0e\uff61]{2}|[!#$%&'*+/=?^`{|}~]")
#: Programs treat them differently: Sendmail, for example, expands its own macros there.
_UNDECODED = re.compile("[\udc80-\udcff]")
_DOT = re.compile("[.\u3002\uff0e\uff61]+")
#: In octets: Punycode makes what is kept of a U-label without an A-label at most three times as long.
_MAX_STAND_IN = 18


def _carried(text: str) -> Domain | None:
    """For a text that the DNS cannot carry, the nearest name below the same domain.

    Nothing can be published at such a name, but the domain above it may have a policy, also for names that do not exist
    (RFC 9989, 4.10.1), and that applies to this stand-in.
    """
    name = ""
    for label in reversed(_DOT.split(text[-4 * MAX_DOMAIN_LENGTH :])):
        if label:
            longer = f"{_carried_label(label)}.{name}"
            if len(longer) > MAX_DOMAIN_LENGTH + 1:
                break
            name = longer
    return _parsed(name)


def _carried_label(label: str) -> str:
    if not label.isascii():
        try:
            return Domain.parse(label).name
        except (
            InvalidNameError
        ):  # symbols for example, which older IDNA allowed and which are registered here and there
            label = "xn--" + label[:_MAX_STAND_IN].lower().encode("punycode").decode("ascii")
    return label[:MAX_LABEL_LENGTH]
