# SPDX-License-Identifier: GPL-3.0-or-later
"""Find the reports in a mail, and who sent it."""

from __future__ import annotations

import binascii
import email.utils
import re
from base64 import b64decode
from collections.abc import Iterator
from datetime import UTC, datetime
from email.message import Message
from email.parser import BytesParser

from msgspec import Struct

from assay.model.message import Header, HeaderField, split_message
from assay.protocol import authres, dmarc
from assay.protocol.report.received import ReportSender
from assay.reports.incoming.texts import UnreadableError, text
from assay.reports.incoming.unpack import looks_like_report

MAX_PARTS = 100  # of a mail, our choice: a report has two or three
MAX_PART_DEPTH = 8  # our choice: a report has two levels, and one that is forwarded three
MAX_REPORTS = 10  # in one mail, our choice: RFC 9990, 3.5.1 has one
MAX_FEEDBACK_OCTETS = 65_536  # of the fields of a failure report, our choice: they are about a kilobyte

MAX_FIELD = 4096  # octets of a Content-Type and the like, our choice: a long file name makes some hundreds

#: Fields whose parameters the library parses in quadratic time. It takes any of three line ends.
_CONTENT_FIELD = re.compile(
    rb"(?:\A|(?<=[\r\n]))content-[a-z-]{1,30}:(?>[^\r\n]*(?>(?:(?:\r\n|\r|\n)[ \t][^\r\n]*)*))", re.IGNORECASE
)
_SAMPLE_TYPES = ("message/rfc822", "text/rfc822-headers", "message/rfc822-headers", "text/rfc822")


class Feedback(Struct, frozen=True):
    """A failure report (RFC 5965): its fields, one in a line, and what it is about.

    :ivar arrived: when the mail was written, for a report that does not say when the message arrived.
    :ivar report_id: the Message-ID of the mail.
    :ivar author_domain: of the message that failed; `message_id` likewise.
    """

    fields: str
    arrived: datetime
    report_id: str
    contact: str
    author_domain: str = ""
    message_id: str = ""


class OpenedMail(Struct, frozen=True):
    """A mail with reports.

    :ivar attachments: what may be a report, as it was attached.
    :ivar further: how many there are beyond `MAX_REPORTS`.
    """

    sender: ReportSender
    attachments: tuple[bytes, ...] = ()
    feedback: Feedback | None = None
    further: int = 0


def open_mail(octets: bytes, authserv_id: str) -> OpenedMail:
    """Find the reports in a mail.

    :param authserv_id: who wrote the Authentication-Results field that is believed; empty for nobody.
    :raises UnreadableError: there are more parts, more levels of them, or longer fields than the bounds allow.
    """
    if any(len(match[0]) > MAX_FIELD for match in _CONTENT_FIELD.finditer(octets)):
        raise UnreadableError(f"a field such as Content-Type is longer than {MAX_FIELD} octets")
    header, _ = split_message(octets)
    author = dmarc.author(header.all("From"))
    domain = "" if author.domain is None else author.domain.name
    sender = ReportSender(domain, _dmarc(header, authserv_id) if authserv_id else "")
    try:
        message = BytesParser().parsebytes(octets)
        parts = list(_leaves(message, MAX_PART_DEPTH))
    except RecursionError:
        raise UnreadableError("the mail has parts in parts in parts, too deep to read") from None
    if len(parts) > MAX_PARTS:
        raise UnreadableError(f"the mail has more than {MAX_PARTS} parts")
    feedback = _feedback(message, parts, text(author.mailbox))
    attachments = [] if feedback is not None else [found for part in parts if (found := _attachment(part))]
    return OpenedMail(sender, tuple(attachments[:MAX_REPORTS]), feedback, max(0, len(attachments) - MAX_REPORTS))


def _dmarc(header: Header, authserv_id: str) -> str:
    """Our own result of DMARC: the topmost field with our name. Others in our name were removed on the way in."""
    for field in header.all("Authentication-Results"):
        read = authres.parse(field.value)
        if isinstance(read, authres.AuthenticationResults) and read.authserv_id.lower() == authserv_id.lower():
            return next((text(found.result) for found in read.results if found.method == "dmarc"), "")
    return ""


def _leaves(part: Message, depth: int) -> Iterator[Message]:
    """The parts that have content. A mail in a mail is looked into, but not the message that a report is about."""
    kind = part.get_content_type()
    inner = part.get_payload()
    is_container = kind.startswith("multipart/") or kind == "message/rfc822"
    if not is_container or not isinstance(inner, list):
        yield part
        return
    if not depth:
        raise UnreadableError(f"the parts of the mail are nested more than {MAX_PART_DEPTH} levels deep")
    for sub in inner[: MAX_PARTS + 1]:
        if kind == "multipart/report" and isinstance(sub, Message) and sub.get_content_type() == "message/rfc822":
            yield sub
        elif isinstance(sub, Message):
            yield from _leaves(sub, depth - 1)


def _attachment(part: Message) -> bytes:
    """A part that may be a report; empty if it is none. Text for people may begin like one, so it needs a name."""
    kind = part.get_content_type()
    if kind.startswith(("message/", "multipart/", "image/")):
        return b""
    if kind in ("text/plain", "text/html") and not _has_name(part):
        return b""
    content = part.get_payload(decode=True)
    return content if isinstance(content, bytes) and looks_like_report(content) else b""


def _has_name(part: Message) -> bool:
    """The name itself is not decoded: a stranger chooses its charset."""
    return bool(part.get_param("filename", header="content-disposition") or part.get_param("name"))


def _feedback(message: Message, parts: list[Message], contact: str) -> Feedback | None:
    found = next((part for part in parts if part.get_content_type() == "message/feedback-report"), None)
    if found is None:
        return None
    try:
        written = email.utils.parsedate_to_datetime(str(message.get("Date", "")))
    except (ValueError, OverflowError):
        written = datetime.fromtimestamp(0, UTC)
    sample = next((part for part in parts if part is not found and part.get_content_type() in _SAMPLE_TYPES), None)
    about = _sample(sample) if sample is not None else None
    author_domain = message_id = ""
    if about is not None:
        fields = [
            HeaderField(b"From", str(value).encode("utf-8", "surrogateescape")) for value in about.get_all("From", [])
        ]
        author = dmarc.author(fields)
        author_domain = "" if author.domain is None else author.domain.name
        message_id = text(about.get("Message-ID"))
    fields_text = _feedback_fields(found)
    if len(fields_text) > MAX_FEEDBACK_OCTETS:
        raise UnreadableError(f"the fields of the failure report are longer than {MAX_FEEDBACK_OCTETS // 1024} KiB")
    return Feedback(
        fields_text,
        written if written.tzinfo is not None else written.replace(tzinfo=UTC),
        text(message.get("Message-ID")),
        contact,
        author_domain,
        message_id,
    )


def _sample(part: Message) -> Message | None:
    """The header of the message that failed."""
    inner = part.get_payload()
    if isinstance(inner, list):
        return inner[0] if inner and isinstance(inner[0], Message) else None
    content = part.get_payload(decode=True)
    return BytesParser().parsebytes(content, headersonly=True) if isinstance(content, bytes) else None


def _feedback_fields(part: Message) -> str:
    """The fields, unfolded. The library reads the part as a mail, of which they are the header."""
    inner = part.get_payload()
    fields = inner[0] if isinstance(inner, list) and inner else part
    if not isinstance(fields, Message):
        return ""
    if str(part.get("Content-Transfer-Encoding", "")).strip().lower() == "base64":  # RFC 2045, 6.4 forbids it
        try:
            content = b64decode(fields.as_bytes().strip())
        except (binascii.Error, ValueError):
            return ""
        fields = BytesParser().parsebytes(content, headersonly=True)
    lines = [f"{name}: {' '.join(str(value).split())}" for name, value in fields.items()]
    rest = fields.get_payload()
    if isinstance(rest, str):  # an empty line among the fields ends what the library takes for them
        lines += rest.splitlines()
    return "\n".join(lines)
