# SPDX-License-Identifier: GPL-3.0-or-later
"""Mail to the bounce addresses of our reports.

Not all of it says that a report came back: people reply, programs answer, and a relay warns that a report is late. Only
a notification in the form of RFC 3464, from the null reverse-path, with a delivery that failed, is a bounce. Other
mail must not stop a destination.
"""

from __future__ import annotations

import re
from binascii import Error, a2b_base64, a2b_qp

from assay.model.message import Header, split_message
from assay.model.name import ReversePath
from assay.model.printable import marked

MAX_TOKEN = 64  # characters, our choice: ours have 16
#: Of a mail that are looked at, our choice: the words for people come before the status, and the report after it.
MAX_NOTIFICATION_OCTETS = 262_144
MAX_PARTS = 10  # that are looked at, our choice: the status is the second of three (RFC 3464, 2)
MAX_DELIVERIES = 100  # in a notification, our choice: each of our reports goes to one address
_MAX_FIELD = 1000  # octets of a Content-Type that are read; our choice

#: RFC 3464, 2.1, and the same with addresses in UTF-8 (RFC 6533, 4).
_STATUS_TYPES = (b"message/delivery-status", b"message/global-delivery-status")
_ACTION = re.compile(rb"(?>(?:\([^()]*+\)|[ \t])*)([a-z]++)", re.IGNORECASE)
_TYPE = re.compile(rb"([a-z]++/[a-z-]++)[ \t]*+(?:;|\Z)", re.IGNORECASE)
_PARAMETER = re.compile(rb';[ \t]*+([a-z-]++)=(?:"([^"\\]*+)"|([^][\\ \t()<>@,;:"/?=]++))', re.IGNORECASE)
_EMPTY_LINES = re.compile(rb"\r\n(?>(?:[ \t]*+\r\n)+)")


def bounce_token(recipient: str, bounces: str) -> str | None:
    """What names the report that came back.

    :param recipient: of the mail.
    :param bounces: ``reports.bounces``.
    :returns: the token, printable; empty for an address without; None for another address.
    """
    local_part, at, domain = recipient.lower().rpartition("@")
    ours, _, our_domain = bounces.lower().rpartition("@")
    name, _, token = local_part.partition("+")
    if not at or not ours or (name, domain) != (ours, our_domain):
        return None
    return marked(token[:MAX_TOKEN])


def why_no_bounce(sender: ReversePath, mail: bytes) -> str:
    """Why a mail does not say that a report came back, in one clause; empty if it does.

    :param mail: the whole of it. Only the first `MAX_NOTIFICATION_OCTETS` are read.
    """
    if not sender.is_null:  # RFC 3464, 2
        return "it has a sender, so it is a reply, not a bounce"
    status = _delivery_status(mail[:MAX_NOTIFICATION_OCTETS])
    if status is None:
        return "it is not a delivery status notification"
    # RFC 3464, 2.1: fields about the message, and after an empty line, which some programs forget, about a delivery.
    groups = _EMPTY_LINES.split(status.strip(b"\r\n"), MAX_DELIVERIES)[:MAX_DELIVERIES]
    actions = {
        match[1].lower()
        for group in groups
        for field in split_message(group + b"\r\n")[0].all("Action")
        if (match := _ACTION.match(field.unfolded))
    }
    if b"failed" in actions:  # RFC 3464, 2.3.3: the others are delayed, delivered, relayed and expanded
        return ""
    return "it does not say that the delivery failed"


def _delivery_status(mail: bytes) -> bytes | None:
    """What a notification says of the deliveries, with CRLF line ends; None if the mail is no notification."""
    header, body = split_message(mail)
    content_type = _content_type(header)
    parameters = {name.lower(): quoted or token for name, quoted, token in _PARAMETER.findall(content_type)}
    boundary = parameters.get(b"boundary", b"")
    # RFC 3464, 2
    if parameters.get(b"report-type", b"").lower() != b"delivery-status" or not boundary:
        return None
    if _media_type(content_type) != b"multipart/report":
        return None
    delimiter = re.compile(rb"(?:\A|\r\n)--" + re.escape(boundary) + rb"[ \t]*+\r\n")
    for part in delimiter.split(body, MAX_PARTS)[1:]:
        fields, content = split_message(part)
        if _media_type(_content_type(fields)) in _STATUS_TYPES:
            encodings = fields.all("Content-Transfer-Encoding")
            return _decoded(content, encodings[0].unfolded.lower() if encodings else b"")
    return None


def _content_type(header: Header) -> bytes:
    """The Content-Type of a message or a part; empty if it has none or several."""
    fields = header.all("Content-Type")
    return fields[0].unfolded[:_MAX_FIELD] if len(fields) == 1 else b""


def _media_type(content_type: bytes) -> bytes:
    """In lower case; empty if there is none."""
    match = _TYPE.match(content_type)
    return match[1].lower() if match else b""


def _decoded(content: bytes, encoding: bytes) -> bytes:
    """RFC 3464, 2.1 requires 7bit, which not all programs obey. What cannot be decoded is as if it were not there."""
    try:
        if encoding == b"base64":
            content = a2b_base64(content)
        elif encoding == b"quoted-printable":
            content = a2b_qp(content)
    except Error:
        return b""
    return content.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
