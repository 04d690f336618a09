# SPDX-License-Identifier: GPL-3.0-or-later
"""The evaluations of a client itself: IPREV of its address and SPF of its HELO name.

They belong to the connection and serve all its messages. Behind our own relay each message has its own client, so there
they belong to the message.
"""

from __future__ import annotations

from collections.abc import Collection

from assay.inquiry import Pending, Urgency
from assay.memory import Memory
from assay.model.smtp import Address, Client
from assay.protocol import iprev, spf
from assay.session.inquiries import Inquiries
from assay.session.remembered import check_iprev, check_spf
from assay.session.settings import Settings


def confirmed_names(inquiries: Inquiries, memory: Memory, address: Address) -> Collection[str]:
    """The names of a possible relay of ours that lead back to its address. Waits for them."""
    return inquiries.start(check_iprev(memory, address), urgency=Urgency.VERDICT).result().confirmed


class Origin:
    """The evaluations of one client."""

    __slots__ = ("_inquiries", "_iprev", "_memory", "_settings", "_spf_helo", "receiver")

    def __init__(self, settings: Settings, inquiries: Inquiries, memory: Memory, receiver: str) -> None:
        """:param receiver: our own host name, for SPF's ``%{r}`` (RFC 7208, 7.2)."""
        self._settings = settings
        self._memory = memory
        self._inquiries = inquiries
        self.receiver = receiver
        self._iprev: Pending[iprev.Evaluation] | None = None
        self._spf_helo: Pending[spf.Evaluation] | None = None

    def connected(self, client: Client) -> None:
        """Start the evaluations of the client's address."""
        if self._settings.iprev and client.address is not None:
            self._iprev = self._inquiries.start(check_iprev(self._memory, client.address))

    def greeted(self, client: Client) -> None:
        """Start the evaluation of its HELO name; a second one, after STARTTLS, replaces the first."""
        if self._spf_helo is not None:
            self._inquiries.give_up(self._spf_helo)
            self._spf_helo = None
        if client.address is not None:
            request = spf.Request(
                client.address,
                client.helo,
                receiver=self.receiver,
                limits=self._settings.spf_limits,
                explain=self._settings.spf_explanations,
            ).of_helo()
            driver = self._inquiries.driver(self._settings.spf_seconds)
            self._spf_helo = self._inquiries.start(check_spf(self._memory, request), driver, Urgency.VERDICT)

    def iprev(self) -> iprev.Evaluation | None:
        """Wait for IPREV; None if it was not tried."""
        return self._iprev.result() if self._iprev is not None else None

    def spf_helo(self) -> spf.Evaluation | None:
        """Wait for SPF of the HELO identity; None if it was not tried."""
        return self._spf_helo.result() if self._spf_helo is not None else None
