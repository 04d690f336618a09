# SPDX-License-Identifier: GPL-3.0-or-later
"""How DNS messages are written on an encrypted connection: what `dot` and `doh` have in common."""

from __future__ import annotations

from typing import Protocol

from assay.resolver.transport import ExchangeFault


class BrokenError(Exception):
    """What a server sent ends the connection. The text completes the sentence "the server ..."."""


class Framing(Protocol):
    """How messages are written on one connection."""

    @property
    def capacity(self) -> int:
        """How many queries the connection can take at a time; 0 if it takes no more at all."""

    def opening(self) -> bytes:
        """What is sent first."""

    def ask(self, asked: bytes, authentic: bool) -> tuple[int, bytes]:
        """A query: its number on this connection, and the octets to send."""

    def identifier(self, number: int) -> int:
        """The identifier of the message with a query of this number."""

    def cancel(self, number: int) -> tuple[bool, bytes]:
        """Give a query up: whether no answer will come, and the octets to send."""

    def receive(self, octets: bytes) -> tuple[list[tuple[int, bytes | ExchangeFault]], bytes]:
        """Take what was received: answers, by the numbers of their queries, and the octets to send.

        :raises BrokenError: the connection cannot be used any more.
        """
