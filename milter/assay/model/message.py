# SPDX-License-Identifier: GPL-3.0-or-later
"""The header of a message as it was received, byte for byte, and how to find a field in it.

DKIM's ``simple`` canonicalization (RFC 6376, 3.4.1) needs every byte: the case of the name, the space after the
colon, the folding. So a field is two pieces of bytes and never a decoded string.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from msgspec import Struct
from msgspec.structs import force_setattr

_NO_FIELD_NAME = re.compile(rb"[\x00-\x20\x7f]")  # RFC 5322, 2.2: printable ASCII; the colon is checked separately
_MBOX_LINE = re.compile(rb"From [ \t]*+[^: \t]")


class HeaderField(Struct, frozen=True):
    """One header field (RFC 5322, 2.2).

    `name` is what stands before the colon. `value` is everything after it, the leading space included, folded with
    CRLF, without the final CRLF. `key` is the name to compare by: lower case, without the white space that may stand
    before the colon; it is always made from `name`, whatever is passed in.
    """

    name: bytes
    value: bytes
    key: bytes = b""

    def __post_init__(self) -> None:
        force_setattr(self, "key", self.name.rstrip(b" \t").lower())

    @property
    def raw(self) -> bytes:
        """The field as it was in the message, with its final CRLF."""
        return b"%s:%s\r\n" % (self.name, self.value)

    @property
    def unfolded(self) -> bytes:
        """The value on one line (RFC 5322, 2.2.3), without the white space around it."""
        return self.value.replace(b"\r\n", b"").strip(b" \t")


class Header(Struct, frozen=True):
    """The fields of a message from top to bottom."""

    fields: tuple[HeaderField, ...] = ()
    _index: dict[bytes, tuple[HeaderField, ...]] = {}  # by key; always made from `fields`
    #: The names, in lower case, that more than one field has; always made from `fields`.
    repeated: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        index: dict[bytes, tuple[HeaderField, ...]] = {}
        further: dict[bytes, list[HeaderField]] = {}
        for field in self.fields:
            if field.key in index:
                further.setdefault(field.key, []).append(field)
            else:
                index[field.key] = (field,)
        for key, fields in further.items():
            index[key] += tuple(fields)
        force_setattr(self, "_index", index)
        force_setattr(self, "repeated", frozenset([key.decode("ascii", "replace") for key in further]))

    def __hash__(self) -> int:
        return hash(self.fields)

    def __repr__(self) -> str:
        return f"Header({self.fields!r})"

    def __iter__(self) -> Iterator[HeaderField]:
        return iter(self.fields)

    def all(self, name: str) -> tuple[HeaderField, ...]:
        """The fields called `name`, in any case, from top to bottom."""
        return self._index.get(name.lower().encode(), ())


NO_HEADER = Header()


def field_from_milter(name: bytes, value: bytes) -> HeaderField:
    """Make a field from what libmilter passes, where a folded value has LF line ends (design of the protocol)."""
    return HeaderField(name, value.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n") if b"\n" in value else value)


def split_message(message: bytes) -> tuple[Header, bytes]:
    """Split a saved message into header and body, as an MTA does.

    The first line shows how lines end. CRLF: the message is as it was on the wire, where a bare CR or LF is data,
    which signatures cover (RFC 6376, 3.4) and smuggled messages are made of. LF: it is a Unix file, and each line
    end is read as CRLF. The first line that is neither a field nor a continuation ends the header and, unless it is
    empty, starts the body, as in Postfix. An mbox ``From `` line at the top is dropped; ``From :`` is a field.

    :returns: the header, and the body with CRLF line ends.
    """
    if _MBOX_LINE.match(message):
        message = message.partition(b"\n")[2]
    if not message.partition(b"\n")[0].endswith(b"\r"):
        message = message.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
    lines = message.split(b"\r\n")
    fields: list[list[bytes]] = []
    body_at = len(lines)
    for number, line in enumerate(lines):
        if line[:1] in (b" ", b"\t") and fields:
            fields[-1].append(line)
            continue
        if not line:
            body_at = number + 1
            break
        name, colon, _ = line.partition(b":")
        if not colon or not name or _NO_FIELD_NAME.search(name.rstrip(b" \t")):
            body_at = number
            break
        fields.append([line])
    return Header(tuple(_parse_fields(fields))), b"\r\n".join(lines[body_at:])


def _parse_fields(fields: Iterable[list[bytes]]) -> Iterator[HeaderField]:
    for lines in fields:
        name, _, value = b"\r\n".join(lines).partition(b":")
        yield HeaderField(name, value)
