# SPDX-License-Identifier: GPL-3.0-or-later
"""Networks as operators write them: an address, a prefix, an IPv4-mapped prefix."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Network, ip_interface, ip_network

from msgspec import Struct

from assay.model.smtp import Address

_MAPPED_PREFIX = 96  # bits before the IPv4 address in ::ffff:a.b.c.d (RFC 4291, 2.5.5.2)


class Networks(Struct, frozen=True):
    """A set of networks, in which an address can be looked up."""

    members: tuple[IPv4Network | IPv6Network, ...] = ()

    @classmethod
    def parse(cls, texts: Iterable[str]) -> Networks:
        """Read networks; one text may hold several, separated by commas.

        :raises ValueError: a text that is neither an address nor a network; the message quotes it.
        """
        return cls(tuple(_network(part.strip()) for text in texts for part in text.split(",") if part.strip()))

    def find(self, address: Address) -> IPv4Network | IPv6Network | None:
        """The first network that contains `address`."""
        for network in self.members:
            if address.version == network.version and address in network:
                return network
        return None


def _network(text: str) -> IPv4Network | IPv6Network:
    plain = text.removeprefix("[").replace("]", "")
    try:
        # With a zone (fe80::1%eth0) it is an address of one link, and no client's address has one.
        network = ip_network(plain if "%" not in plain else "", strict=False)
    except ValueError:
        raise ValueError(f"{text!r} is not an IP address or a network such as 192.0.2.0/24 or 2001:db8::/32") from None
    address = ip_interface(plain).ip
    if address != network.network_address:  # which of the two is meant?
        raise ValueError(f"{text!r} is an address inside a network; write {network}, or {address} for that host alone")
    mapped = network.network_address.ipv4_mapped if isinstance(network, IPv6Network) else None
    if mapped is not None and network.prefixlen >= _MAPPED_PREFIX:
        # Clients are compared in their IPv4 form (assay.model.smtp.canonical_address).
        return IPv4Network((mapped, network.prefixlen - _MAPPED_PREFIX))
    return network
