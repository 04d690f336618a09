# SPDX-License-Identifier: GPL-3.0-or-later
"""What an MTA may change in a message after it was signed, as far as the message itself shows it.

Seen while the body passes, at the cost of a few per cent of its hash; nothing is kept. docs/signing.md has the settings
of the MTAs that avoid each.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from enum import StrEnum

from assay.model.message import Header, HeaderField

MAX_LINE = 998  # RFC 5322, 2.1.1, and RFC 5321, 4.5.3.1.6: octets without CRLF; MTAs break longer lines


class Hazard(StrEnum):
    """A reason why a signature may not survive, as the log names it."""

    EIGHT_BIT = "8bit"  #: converted to quoted-printable for a next hop without 8BITMIME (RFC 6152, 3)
    LONG_LINE = "long-line"  #: broken into shorter ones
    INCOMPLETE_ADDRESS = "incomplete-address"  #: gets the domain of the MTA


#: What each means, for people.
MEANING = {
    Hazard.EIGHT_BIT: "the body has 8-bit octets: an MTA converts it if the next hop does not offer 8BITMIME",
    Hazard.LONG_LINE: f"a line of the body or of a signed field has more than {MAX_LINE} octets: MTAs break it",
    Hazard.INCOMPLETE_ADDRESS: "an address in From, Sender, Reply-To, To or Cc has no domain: Sendmail adds its own",
}

_OF_ADDRESSES = ("From", "Sender", "Reply-To", "To", "Cc")
#: A quoted string or a comment without another one in it; at the end of the field it may be open.
_ASIDE = re.compile(rb'"(?:[^"\\]|\\.)*"?|\((?:[^()\\]|\\.)*\)?', re.DOTALL)
_BETWEEN = re.compile(rb"[,;]")

#: Fields that the MTA removes or adds after the signature, which allows it.
_HARMLESS = (
    ("Bcc", True, "the MTA removes Bcc; the signature does not cover it"),
    ("Return-Path", True, "the MTA removes Return-Path; the signature does not cover it"),
    ("Date", False, "there is no Date; the signature allows the MTA to add it"),
    ("Message-ID", False, "there is no Message-ID; the signature allows the MTA to add it"),
)


class BodyHazards:
    """Looks at a body as it passes."""

    __slots__ = ("_eight_bit", "_line", "_long")

    def __init__(self) -> None:
        self._eight_bit = self._long = False
        self._line = 0  # octets of the line that the last chunk left open

    def update(self, chunk: bytes) -> None:
        """The next part of the body, cut anywhere."""
        self._eight_bit = self._eight_bit or not chunk.isascii()
        if not self._long:
            self._measure(chunk)

    def _measure(self, chunk: bytes) -> None:
        """Jump from line end to line end, each time as far as a line may reach: all lines between are shorter."""
        start, end = 0, len(chunk)
        longest = MAX_LINE + len(b"\r\n")
        while start + longest - self._line <= end:
            found = chunk.rfind(b"\n", start, start + longest - self._line)
            if found < 0:
                self._long = True
                return
            start, self._line = found + 1, 0
        found = chunk.rfind(b"\n", start)
        self._line = self._line + end - start if found < 0 else end - found - 1

    @property
    def found(self) -> tuple[Hazard, ...]:
        """The hazards so far."""
        # A line that is still open has no line end yet.
        longest = self._long or self._line > MAX_LINE
        seen = ((Hazard.EIGHT_BIT, self._eight_bit), (Hazard.LONG_LINE, longest))
        return tuple(hazard for hazard, is_there in seen if is_there)


def header_hazards(header: Header, signed: Iterable[str]) -> tuple[Hazard, ...]:
    """The hazards that a header shows.

    :param signed: the names of the fields that are signed: a line of another may break.
    """
    long = any(_has_long_line(field) for name in signed for field in header.all(name))
    fields = (field for name in _OF_ADDRESSES for field in header.all(name))
    incomplete = any(_has_incomplete(field.value) for field in fields)
    seen = ((Hazard.LONG_LINE, long), (Hazard.INCOMPLETE_ADDRESS, incomplete))
    return tuple(hazard for hazard, is_there in seen if is_there)


def _has_long_line(field: HeaderField) -> bool:
    if len(field.name) + len(field.value) < MAX_LINE:  # with the colon, it is not longer even on one line
        return False
    return max(map(len, field.raw.split(b"\r\n"))) > MAX_LINE


def _has_incomplete(value: bytes) -> bool:
    """Whether a list of addresses has one without a domain, such as ``joe``. Anything else may be wrong with it."""
    plain = _ASIDE.sub(lambda match: b"q" if match[0].startswith(b'"') else b" ", value)
    for piece in _BETWEEN.split(plain):
        _, bracket, route = piece.partition(b"<")
        address = route.partition(b">")[0] if bracket else piece.rpartition(b":")[2]  # after the name of a group
        if address.strip() and b"@" not in address:
            return True
    return False


def harmless_changes(header: Header) -> Iterator[str]:
    """What the MTA will change in the header without harm, each as one clause."""
    for name, present, text in _HARMLESS:
        if bool(header.all(name)) is present:
            yield text
