# SPDX-License-Identifier: GPL-3.0-or-later
"""Whose mail a message is: its direction, and the standing of its origin."""

from __future__ import annotations

from collections.abc import Collection
from enum import StrEnum

from msgspec import Struct, field

from assay.model.network import Networks
from assay.model.smtp import Address
from assay.policy.addresses import Entries


class Direction(StrEnum):
    """The direction of a message, which determines the strands of its transaction."""

    INBOUND = "inbound"  #: from outside: it is judged
    OUTBOUND = "outbound"  #: from our own hosts and users: it is not judged
    RETURNED = "returned"  #: from an MTA of ours that already wrote results in our name: not changed


class Standing(Struct, frozen=True):
    """The standing of a message's origin.

    `exempt` is why the message is not judged, empty if it is. `spared` is why failures of a judged message are recorded
    but not acted on. `cleaned`: whether fields that claim our name are removed. `relayed`: the client is a relay of
    ours, and the client to judge is in its Received field.
    """

    direction: Direction = Direction.INBOUND
    exempt: str = ""
    spared: str = ""
    cleaned: bool = True
    relayed: bool = False


#: The standing of almost every client.
STRANGER = Standing()


class Trust(Struct, frozen=True):
    """The operator's settings about senders: whose mail is not judged, or is judged and spared.

    `daemon_names` are names of the MTA's own services that accept mail from our users. `trusted_results` are networks
    of MTAs whose results in our name are genuine. Mail from `exempt_senders` and to `exempt_recipients` is judged and
    spared.
    """

    internal: Networks = field(default_factory=Networks)
    relays: Networks = field(default_factory=Networks)
    relay_names: frozenset[str] = frozenset()
    trusted_results: Networks = field(default_factory=Networks)
    daemon_names: frozenset[str] = frozenset()
    judge_authenticated: bool = False
    exempt_senders: Entries = Entries()
    exempt_recipients: Entries = Entries()

    def names_relay(self, name: str) -> bool:
        """Whether this is the name of a relay. Anybody may claim it: see `of_client`."""
        return bool(self.relay_names) and name.removesuffix(".").lower() in self.relay_names

    def of_client(
        self, address: Address | None, daemon: str, *, local: bool = True, confirmed: Collection[str] = ()
    ) -> Standing:
        """The standing of this client's mail, before the message is known.

        :param daemon: the name of the MTA's service that accepted the connection.
        :param local: whether a missing address means the MTA's own host, and not an unknown client.
        :param confirmed: names of the address that lead back to it. Others count for nothing: whoever has the reverse
            zone of an address can write any name into it.
        """
        results = address is not None and self.trusted_results.find(address) is not None  # RFC 8601, 5
        exempt = self._why_internal(address, daemon, local=local)
        if exempt:
            return Standing(Direction.RETURNED if results else Direction.OUTBOUND, exempt, cleaned=not results)
        relayed = self._is_relay(address, confirmed)
        return Standing(cleaned=not results, relayed=relayed) if results or relayed else STRANGER

    def _is_relay(self, address: Address | None, confirmed: Collection[str]) -> bool:
        if address is None:
            return False
        return self.relays.find(address) is not None or any(map(self.names_relay, confirmed))

    def _why_internal(self, address: Address | None, daemon: str, *, local: bool) -> str:
        if daemon in self.daemon_names:
            return f"daemon {daemon}"
        if address is None:
            return "no network client" if local else ""
        network = self.internal.find(address)
        return f"internal network {network}" if network is not None else ""

    def of_message(self, client: Standing, sender: str, authenticated: str) -> Standing:
        """The standing of a message from this client.

        :param sender: the reverse-path without angle brackets, empty for the null one.
        :param authenticated: the login name (RFC 4954), empty for none.
        """
        if client.exempt:
            return client
        if authenticated and not self.judge_authenticated:
            return Standing(Direction.OUTBOUND, "authenticated", cleaned=client.cleaned)
        if sender and self.exempt_senders.hold(sender):
            return Standing(spared="exempt sender", cleaned=client.cleaned, relayed=client.relayed)
        return client

    def of_relayed(self, message: Standing, address: Address | None, confirmed: Collection[str] = ()) -> Standing:
        """The standing of a message once its Received field names the client of our relay.

        :param address: of that client; None if the field has none.
        :param confirmed: names of the address that lead back to it. What the field says about names counts for nothing.
        """
        if address is not None and (address.is_loopback or self._is_relay(address, confirmed)):
            # The next Received field is from that relay. A loopback address is that of the relay's own host, not of
            # ours: a content filter that returns all mail to the relay, strangers' mail included.
            return message
        network = self.internal.find(address) if address is not None else None
        if network is None:
            return Standing(spared=message.spared, cleaned=message.cleaned)
        return Standing(Direction.OUTBOUND, f"internal network {network}, behind a relay", cleaned=message.cleaned)

    def spares_recipient(self, recipient: str) -> str:
        """Why failures of a message to this recipient are not acted on; empty if they are.

        :param recipient: the forward-path without angle brackets.
        """
        return "exempt recipient" if self.exempt_recipients.hold(recipient) else ""
