# SPDX-License-Identifier: GPL-3.0-or-later
"""What the MTA reports: the connection's client and the transaction's envelope.

They are two objects because their lifetimes differ: a client outlives every message on its connection, an envelope
starts with MAIL and ends with the message (RFC 5321, 3.3).
"""

from __future__ import annotations

from functools import cached_property
from ipaddress import IPv4Address, IPv6Address, ip_address

from msgspec import Struct
from msgspec.structs import replace

from assay.model.name import ReversePath

Address = IPv4Address | IPv6Address


def parse_address(text: str) -> Address | None:
    """Read an address as MTAs write it: bare, ``IPv6:`` tagged, in brackets, with a zone.

    An IPv4-mapped IPv6 address becomes the IPv4 address it stands for (RFC 4291, 2.5.5.2): a dual-stack MTA reports
    its IPv4 clients that way. Returns None for a text that is not an address.
    """
    text = text.strip().strip("[]")
    if text[:5].lower() == "ipv6:":
        text = text[5:]
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return canonical_address(address)


def canonical_address(address: Address) -> Address:
    """The address itself, or the IPv4 address that an IPv4-mapped one stands for."""
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


class Client(Struct, frozen=True, dict=True):
    """The SMTP client of a connection.

    `address` is None where there is none (a local pipe or an unknown address family). `name` is what the MTA resolved
    for it, empty where it did not. `helo` is the last HELO or EHLO argument as sent, empty before that. `daemon`
    is the name of the MTA's own service that took the connection (macro ``{daemon_name}``).
    """

    address: Address | None = None
    name: str = ""
    helo: str = ""
    daemon: str = ""

    @cached_property
    def text(self) -> str:
        """The address as text, empty without one. Each message of a connection needs it several times."""
        return "" if self.address is None else str(self.address)

    def greeted(self, helo: str) -> Client:
        """The same client after HELO or EHLO; a second one, after STARTTLS, replaces the first (RFC 3207, 4.2)."""
        return replace(self, helo=helo)


class Envelope(Struct, frozen=True):
    """One transaction's envelope.

    `recipients` are as in RCPT TO, without angle brackets. `authenticated` is the SASL login name, empty for none
    (RFC 4954). `smtputf8` is whether MAIL asked for it (RFC 6531, 3.4). `further_recipients` is how many there were
    beyond those that are kept.
    """

    reverse_path: ReversePath
    recipients: tuple[str, ...] = ()
    queue_id: str = ""
    authenticated: str = ""
    smtputf8: bool = False
    further_recipients: int = 0
