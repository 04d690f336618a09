# SPDX-License-Identifier: GPL-3.0-or-later
"""DNS messages over TLS, each with its length in front (RFC 7858, 3.3)."""

from __future__ import annotations

import os

from assay.resolver import wire
from assay.resolver.framing import BrokenError
from assay.resolver.names import HEADER
from assay.resolver.streams import MAX_ANSWER
from assay.resolver.transport import Cause, ExchangeFault

#: Queries on one connection at a time: as many as unbound works on.
CAPACITY = 32
TOO_LONG = ExchangeFault(Cause.TOO_LONG, f"has an answer of more than {MAX_ANSWER} octets")


class Lengths:
    """The messages of one connection. The number of a query is the identifier of its message."""

    capacity = CAPACITY

    def __init__(self) -> None:
        self._taken: set[int] = set()
        self._received = bytearray()
        self._skip = 0  # octets of an answer that is too long, and of which no more is kept

    def opening(self) -> bytes:
        """Nothing: a query is the first thing that is sent."""
        return b""

    def ask(self, asked: bytes, authentic: bool) -> tuple[int, bytes]:
        """A query, padded so that its length does not say what is asked (RFC 8467, 4.1)."""
        number = int.from_bytes(os.urandom(2), "big")
        while number in self._taken:
            number = int.from_bytes(os.urandom(2), "big")
        self._taken.add(number)
        message = wire.query(number, asked, authentic, padded=True)
        return number, len(message).to_bytes(2, "big") + message

    def identifier(self, number: int) -> int:
        """The number itself."""
        return number

    def cancel(self, number: int) -> tuple[bool, bytes]:
        """The server answers anyway."""
        return number not in self._taken, b""

    def receive(self, octets: bytes) -> tuple[list[tuple[int, bytes | ExchangeFault]], bytes]:
        """The answers that are complete.

        :raises BrokenError: a message that is shorter than its header.
        """
        found: list[tuple[int, bytes | ExchangeFault]] = []
        received = self._received
        received += octets
        while True:
            if self._skip:
                skipped = min(self._skip, len(received))
                del received[:skipped]
                self._skip -= skipped
            if len(received) < 4:
                break
            length = int.from_bytes(received[:2], "big")
            number = int.from_bytes(received[2:4], "big")
            if length < HEADER:
                raise BrokenError("sent a message that is not an answer")
            if length > MAX_ANSWER:
                self._skip = 2 + length
                found.append((number, TOO_LONG))
            elif len(received) >= 2 + length:
                found.append((number, bytes(received[2 : 2 + length])))
                del received[: 2 + length]
            else:
                break
            self._taken.discard(number)
        return found, b""
