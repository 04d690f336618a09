# SPDX-License-Identifier: GPL-3.0-or-later
"""Domain names in a message, with their compression, and as text (RFC 1035, 4.1.4). The work for each is bounded."""

from __future__ import annotations

from collections.abc import Sequence

HEADER = 12  # octets; RFC 1035, 4.1.1
#: Compression pointers followed for one name, so that its work is bounded; servers write one, seldom two.
MAX_POINTERS = 8
_MAX_NAME = 254  # octets without the root's; RFC 1035, 2.3.4
MAX_OFFSET = 0x3FFF  # that a pointer can have, in octets from the start of the message; RFC 1035, 4.1.4

#: A name as it goes over the wire, whole, in lower case and without the root's octet. Lower-casing cannot hit a length:
#: lengths are below 64, letters start at 65.
Name = bytes


class FailureError(Exception):
    """A message that is not a usable answer. The text completes the sentence "the server ..."."""


def malformed(what: str) -> FailureError:
    """A message that nobody can read, and what is wrong with it."""
    return FailureError(f"sent a malformed message ({what})")


def read_name(message: bytes, at: int, end: int) -> tuple[Name, int]:
    """The name that starts here and ends before `end`, as spelled, and where it ends (RFC 1035, 4.1.4)."""
    begin, behind = at, 0
    name = b""
    pointers = 0
    while True:
        if at >= end:
            raise malformed("a name without an end")
        length = message[at]
        if 0 < length < 64:
            at += 1 + length
            if at - begin <= _MAX_NAME:
                continue
        elif 64 <= length < 192:
            raise malformed("a label of an unknown kind")
        elif length and at + 1 >= end:
            raise malformed("a name without an end")
        name += message[begin:at]
        if len(name) > _MAX_NAME:
            raise malformed("a name that is too long")
        if not length:
            return name, behind or at + 1
        if pointers == MAX_POINTERS:
            raise malformed("a name with too many pointers")
        pointers += 1
        behind = behind or at + 2
        # The target of a pointer lies wholly before the piece that it ends, so there is no loop.
        end, at = begin, (length & 0x3F) << 8 | message[at + 1]
        begin = at
        if at < HEADER:
            raise malformed("a pointer into the header")


def whole_name(message: bytes, at: int, end: int) -> Name:
    """A name that is the whole of a record's data, or its end."""
    name, behind = read_name(message, at, end)
    if behind != end:
        raise malformed("octets after a name")
    return name


def pointer(at: int) -> bytes:
    """A compression pointer to this offset, which is at most `MAX_OFFSET`."""
    return (0xC000 | at).to_bytes(2, "big")


def labels_of(name: Name) -> list[bytes]:
    """The labels of a name."""
    labels = []
    at = 0
    while at < len(name):
        behind = at + 1 + name[at]
        labels.append(name[at + 1 : behind])
        at = behind
    return labels


def text(labels: Sequence[bytes]) -> str:
    """A name as text without final dot, in the spelling that `assay.resolver.wire` describes."""
    joined = b".".join(labels)
    if joined.count(b".") >= len(labels) > 0:
        return ".".join([label.decode("latin-1").translate(_ESCAPED) for label in labels])
    return joined.decode("ascii", "surrogateescape")


#: What a master file escapes (RFC 1035, 5), as dnspython writes it.
_ESCAPED = {octet: f"\\{octet:03d}" for octet in range(256) if not 0x20 < octet < 0x7F} | {
    ord(special): "\\" + special for special in '"().;\\@$'
}
