# SPDX-License-Identifier: GPL-3.0-or-later
"""A report as a message of ours: header and body in octets (RFC 5322; MIME, RFC 2045 and RFC 2047).

Nothing is drawn or read from a clock, so the same report is the same octets whenever it is sent again. All is ASCII
with short lines, so no MTA on the way converts it and breaks our signature.
"""

from __future__ import annotations

from base64 import b64encode, encodebytes
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from email.utils import format_datetime

from msgspec import Struct

from assay.model.message import Header, HeaderField
from assay.model.name import Domain, Mailbox
from assay.model.printable import escaped

MAX_DISPLAY_NAME = 100  # characters of the organization's name in From
_MAX_LINE = 998  # octets; RFC 5322, 2.1.1
BASE64_OCTETS = 57  # that make a line of 76 characters (RFC 2045, 6.8)
_WORD_OCTETS = 42  # that make an encoded-word of 68 characters: a line with one has at most 76 (RFC 2047, 2)


class Mail(Struct, frozen=True):
    """A message to send. `body` goes with the header as it is, in pieces that can be read once."""

    header: Header
    body: Iterator[bytes]

    def octets(self) -> Iterator[bytes]:
        """The whole message, in pieces."""
        yield b"".join([field.raw for field in self.header]) + b"\r\n"
        yield from self.body


class Letterhead(Struct, frozen=True):
    """Who sends a report.

    `name` is the organization's, `sender` the address in From, and `receiver` the domain that reports: in the Subject,
    in the names of files and in the Message-ID. `date` is when the report is first sent, in seconds since the epoch.
    """

    name: str
    sender: Mailbox
    receiver: Domain
    date: int


def header(
    letterhead: Letterhead, recipients: Sequence[Mailbox], subject: str, identifier: str, content_type: str
) -> Header:
    """The header of a report.

    :param subject: in ASCII, folded with CRLF where it is long.
    :param identifier: the left half of the Message-ID.
    :param content_type: folded likewise.
    """
    to = ",\r\n ".join(f"<{recipient}>" for recipient in recipients)
    date = format_datetime(datetime.fromtimestamp(letterhead.date, UTC))
    fields = {
        "From": f"{_display_name(letterhead.name)}\r\n <{letterhead.sender}>",
        "To": to,
        "Subject": subject,
        "Date": date,
        "Message-ID": f"<{identifier}@{letterhead.receiver}>",
        "Auto-Submitted": "auto-generated",  # RFC 3834, 5.2: nobody answers it by a program
        "MIME-Version": "1.0",
        "Content-Type": content_type,
    }
    return Header(tuple([HeaderField(name.encode(), f" {value}".encode()) for name, value in fields.items()]))


def text_part(lines: Iterable[str]) -> bytes:
    """A part with words for people, in base64 if they are not ASCII or have long lines."""
    lines = [escaped(line) for line in lines]
    text = "".join(f"{line}\r\n" for line in lines)
    if text.isascii() and all(len(line) < _MAX_LINE for line in lines):
        return f"Content-Type: text/plain; charset=us-ascii\r\n\r\n{text}".encode()
    fields = "Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: base64\r\n\r\n"
    return fields.encode() + b"".join(base64_lines([text.encode("utf-8")]))


def base64_lines(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Octets in base64, in lines of 76 characters (RFC 2045, 6.8)."""
    rest = b""
    for piece in pieces:
        rest += piece
        whole = len(rest) - len(rest) % BASE64_OCTETS
        if whole:
            yield encodebytes(rest[:whole]).replace(b"\n", b"\r\n")
            rest = rest[whole:]
    if rest:
        yield encodebytes(rest).replace(b"\n", b"\r\n")


def _display_name(name: str) -> str:
    """A display name: a quoted string, or encoded-words (RFC 2047, 5), one a line."""
    name = escaped(name[:MAX_DISPLAY_NAME])
    if name.isascii():
        return '"' + name.replace("\\", "\\\\").replace('"', '\\"') + '"'
    words: list[bytes] = [b""]
    for character in name:  # RFC 2047, 5: no character is split between two words
        octets = character.encode()
        if len(words[-1]) + len(octets) > _WORD_OCTETS:
            words.append(b"")
        words[-1] += octets
    return "\r\n ".join(f"=?utf-8?b?{b64encode(word).decode()}?=" for word in words)
