# SPDX-License-Identifier: GPL-3.0-or-later
"""What is changed in a message: edits as data, in the order in which they are performed."""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import Struct

from assay.model.message import Header, HeaderField


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


class RemoveRecipient(Struct, frozen=True):
    """Remove a recipient from the envelope, written as in RCPT TO, without angle brackets."""

    path: str


class ChangeSender(Struct, frozen=True):
    """Give the envelope another sender, without angle brackets."""

    path: str


Edit = Insert | Remove | Change | AddRecipient | RemoveRecipient | ChangeSender


def edited(header: Header, edits: Iterable[Edit]) -> Header:
    """The header with edits performed in their order, as the MTA will write it, without the MTA's own Received."""
    fields = list(header)
    for edit in edits:
        match edit:
            case Insert(name, value):
                fields.insert(0, HeaderField(name.encode(), b" " + value.encode("utf-8", "surrogateescape")))
            case Remove(name, occurrence):
                place = _find(fields, name, occurrence)
                del fields[place : place + 1]
            case Change(name, occurrence, octets):
                place = _find(fields, name, occurrence)
                fields[place : place + 1] = [HeaderField(field.name, b" " + octets) for field in fields[place:][:1]]
            case AddRecipient() | RemoveRecipient() | ChangeSender():
                pass
    return Header(tuple(fields))


def _find(fields: list[HeaderField], name: str, occurrence: int) -> int:
    """Where the `occurrence`-th field of a name is, counted from 1; the end if there is none."""
    key = name.lower().encode()
    places = [place for place, field in enumerate(fields) if field.key == key]
    return places[occurrence - 1] if occurrence <= len(places) else len(fields)
