# SPDX-License-Identifier: GPL-3.0-or-later
"""The header of a reported message without what identifies people (RFC 6590; RFC 9991, 7).

Local parts become a keyed hash, so that a receiver of several reports sees which concern the same person, and not whom.
Only fields that help to find out why authentication failed keep their values: any other may hold a name, a token or a
link that acts for the recipient. Display names and comments in addresses go too, and the copy of the header that a
signature may hold (z=). A value that two programs may read in two ways is not shown. The Message-ID stays, by which the
author's domain finds the message in its own logs.
"""

from __future__ import annotations

import hmac
import re
from base64 import b32encode

from assay.model.message import Header, HeaderField
from assay.model.name import Mailbox
from assay.model.printable import marked_ascii
from assay.protocol.report.encoded_words import HIDDEN, uncovered
from assay.protocol.report.local_parts import AT, replace_local_parts
from assay.protocol.syntax.address import AddressFault, parse_addresses

MAX_HEADER = 32_768  # octets of the header in a report; our choice: the fields beyond it are left out
MAX_NAME = 100  # octets of a field name; our choice: registered ones have 40
_MAX_LINE = 900  # octets; with a name less than 998 (RFC 5322, 2.1.1)
_HASH_OCTETS = 10  # that make 16 characters

_ADDRESSES = frozenset(
    ("from", "sender", "to", "cc", "reply-to", "resent-from", "resent-sender", "resent-to", "resent-cc")
)
_SCRUBBED = frozenset(
    (
        "date",
        "mime-version",
        "content-transfer-encoding",
        "list-id",
        "precedence",
        "auto-submitted",
        "message-id",
        "received",
        "return-path",
        "subject",
        "content-type",
        "dkim-signature",
        "authentication-results",
        "received-spf",
        "arc-seal",
        "arc-message-signature",
        "arc-authentication-results",
    )
)

#: Words and quoted strings, which may not end.
_VALUE = r'(?>(?:"(?>(?:[^"\\]++|\\.)*)"?+|[^\s();"]++)+)'
#: A login has no domain that shows where it begins. In a comment of Postfix it may have any characters.
_LOGIN = re.compile(
    r"(authenticated sender: ?).*?(?=\){1,2}(?:\s++by\b|\s*+\Z)|\Z)"
    rf"|((?:\bauth(?:id)?=|\bauthid |\bauth: ?[a-z0-9-]++ |\buser=|userid )){_VALUE}",
    re.IGNORECASE | re.DOTALL,
)
#: A recipient without a domain.
_FOR = re.compile(
    r'(\bfor[ \t\r\n]++)(?:<(?>(?:"(?>(?:[^"\\]++|\\.)*)"|[^<>@"]++)*)>'
    r'|(?>(?:"(?>(?:[^"\\]++|\\.)*)"|[^ \t\r\n<>@;()"]++)+)(?=[ \t\r\n]*+(?:[;(]|\Z)))',
    re.IGNORECASE | re.DOTALL,
)
#: The identity in a signature, in which white space means nothing (RFC 6376, 3.5, i=; 2.11).
_IDENTITY = re.compile(r"((?:\A|;)[ \t\r\n]*+i[ \t\r\n]*+=)([^;@]*+)(?=@)")
#: The copy of the header in a signature (RFC 6376, 3.5, z=).
_COPY = re.compile(r"((?:\A|;)[ \t\r\n]*+z[ \t\r\n]*+=)[^;]*+")
_MESSAGE_ID = re.compile(r"[ \t\r\n]*+<[^<> \t\r\n]++>[ \t\r\n]*+")


class Redactor:
    """Replaces local parts by their hashes.

    :ivar note: what it does, for the reader of the report.
    """

    note: tuple[str, ...] = (
        "Only the header is included. The local parts of addresses are replaced by a hash,",
        "and fields that may identify people have no value.",
    )

    def __init__(self, key: bytes) -> None:
        """:param key: a secret, always the same: the same address gets the same hash (RFC 6590, 3, step 1)."""
        self._key = key

    def local_part(self, text: str) -> str:
        """What stands for a local part: 16 letters and digits."""
        digest = hmac.digest(self._key, text.encode("utf-8", "surrogateescape"), "sha256")
        return b32encode(digest[:_HASH_OCTETS]).decode().lower()

    def mailbox(self, mailbox: Mailbox) -> str:
        """An address without its local part."""
        return f"{self.local_part(mailbox.local_part)}@{mailbox.domain}"

    def text(self, text: str) -> str:
        """A text with all addresses in it redacted; `HIDDEN` if it is not clear what they are."""
        text = uncovered(text).replace("%40", "@")  # as in the name of a file
        replaced = replace_local_parts(text, self.local_part)
        return HIDDEN if replaced is None else _LOGIN.sub(rf"\1\2{HIDDEN}", replaced)

    def header(self, header: Header) -> tuple[list[HeaderField], bool]:
        """The fields to report, and whether all are among them."""
        fields: list[HeaderField] = []
        left = MAX_HEADER
        for field in header:
            redacted = self._field(field)
            left -= len(redacted.raw)
            if left < 0:
                return fields, False
            fields.append(redacted)
        return fields, True

    def _field(self, field: HeaderField) -> HeaderField:
        text = self._value(field)
        # A line that ends otherwise, or begins without white space, would be read as another field.
        lines = [marked_ascii(line.replace("\t", " ")).strip(" ")[:_MAX_LINE] for line in text.split("\r\n")]
        name = marked_ascii(self.text(field.name.decode("utf-8", "surrogateescape"))).replace(" ", "")[:MAX_NAME]
        value = "\r\n ".join(line for line in lines if line)
        return HeaderField(name.encode(), f" {value}".encode())

    def _value(self, field: HeaderField) -> str:
        """What may be said of a field."""
        key = field.key.decode("ascii", "replace")
        text = field.value.decode("utf-8", "surrogateescape")
        if key in _ADDRESSES:
            return " " + self._addresses(field)
        if key not in _SCRUBBED:
            return f" {HIDDEN}"
        if key == "message-id" and _MESSAGE_ID.fullmatch(text):
            return text
        if key in ("dkim-signature", "arc-message-signature"):
            text = _COPY.sub(rf"\1{HIDDEN}", text)
            text = _IDENTITY.sub(lambda match: match[1] + "".join(match[2].split()), text)
        if key == "return-path" and not AT.search(text) and text.strip() != "<>":
            return f" {HIDDEN}"
        if key == "received":
            text = _FOR.sub(rf"\1{HIDDEN}", text)
        return self.text(text)

    def _addresses(self, field: HeaderField) -> str:
        """The addresses of a field, without display names and comments."""
        parsed = parse_addresses(field.value)
        if isinstance(parsed, AddressFault):
            return f"(not readable: {parsed.reason})"
        return ",\r\n ".join(
            f"<{self.local_part(each.local_part)}@{self.text(each.domain)}>" for each in parsed.mailboxes
        )


class Unredacted(Redactor):
    """Replaces nothing, for an operator who has an agreement with the receivers of his reports."""

    note = ("Only the header is included.",)

    def __init__(self) -> None:
        super().__init__(b"")

    def local_part(self, text: str) -> str:
        """It itself."""
        return text

    def text(self, text: str) -> str:
        """It itself."""
        return text

    def _value(self, field: HeaderField) -> str:
        return field.value.decode("utf-8", "surrogateescape")
