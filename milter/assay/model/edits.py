# SPDX-License-Identifier: GPL-3.0-or-later
"""What is changed in a message: edits as data, in the order in which they are performed."""

from __future__ import annotations

from msgspec import Struct


class Insert(Struct, frozen=True):
    """Insert a field above all others, the MTA's own Received included (RFC 8601, 4 and 4.1).

    `value` is folded with CRLF.
    """

    name: str
    value: str


class Remove(Struct, frozen=True):
    """Remove the `occurrence`-th field of this name, counted from 1 at the top of the message as received."""

    name: str
    occurrence: int


class Change(Struct, frozen=True):
    """Give the `occurrence`-th field of this name another value, folded with CRLF.

    The value is octets: what a stranger wrote may be in any charset, and is kept as it is.
    """

    name: str
    occurrence: int
    value: bytes


class AddRecipient(Struct, frozen=True):
    """Add a recipient to the envelope, without angle brackets."""

    path: str


Edit = Insert | Remove | Change | AddRecipient
