# SPDX-License-Identifier: GPL-3.0-or-later
"""A failure report about one message, or several alike (RFC 9991, which updates RFC 6591 and RFC 5965).

It holds the header and nothing of the body, and no local part in clear (see `redaction`). The recipients of the message
are not named.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from email.utils import format_datetime
from enum import StrEnum
from hashlib import sha256

from msgspec import Struct

from assay.model.message import NO_HEADER, Header
from assay.model.name import Mailbox, ReversePath
from assay.model.printable import marked_ascii
from assay.protocol.report.mail import Letterhead, Mail, header, text_part
from assay.protocol.report.redaction import Redactor

MAX_VALUE = 900  # octets of a field of the report; our choice: with its name it fits into a line (RFC 5322, 2.1.1)
MAX_SUBJECT = 200  # characters of the original's, repeated in the report's
MAX_INCIDENTS = (1 << 32) - 1  # RFC 5965, 3.2: a number of 32 bits


class AuthFailure(StrEnum):
    """Which failure a report is about (RFC 6591, 3.3; RFC 9991, 4)."""

    DMARC = "dmarc"
    BODYHASH = "bodyhash"  #: of a DKIM signature: the body was changed
    REVOKED = "revoked"  #: of a DKIM signature: its key was withdrawn
    SIGNATURE = "signature"  #: of a DKIM signature, for any other reason
    SPF = "spf"


class DeliveryResult(StrEnum):
    """What became of the message (RFC 6591, 3.2.2)."""

    DELIVERED = "delivered"
    SPAM = "spam"
    POLICY = "policy"  #: not delivered to the inbox, because authentication failed
    REJECT = "reject"
    OTHER = "other"


class FailedSignature(Struct, frozen=True):
    """A signature that failed: its d=, its s= and its i=, empty where it has none."""

    domain: str
    selector: str
    identity: str = ""


class PublishedSpf(Struct, frozen=True):
    """An SPF record: where it is, and its text, empty where there is none."""

    domain: str
    text: str


class FailureReport(Struct, frozen=True):
    """What a failure report says (RFC 9991, 4).

    `reported_domain` is the author domain. `dkim_aligned` and `spf_aligned` are whether each mechanism passed for an
    aligned domain. `authentication_results` is the value of a field that we would write, with the result of the failed
    method and no other (RFC 6591, 3.1). `arrival` is in seconds since the epoch; `incidents` is how many messages the
    report stands for, of which `header` is one. `signature` has to be there if the signature of an aligned domain
    failed, and `spf_record` if SPF failed for one. `complete` is whether `header` is all of the message's.
    `envelope_id` is ENVID (RFC 3461, 4.4), or the queue id. `generator` is the program, such as ``assay/0.1``.
    `reporting_mta` is the host that took the message (RFC 5965, 3.2), the receiver's domain if it is empty.
    """

    reported_domain: str
    auth_failure: AuthFailure
    dkim_aligned: bool
    spf_aligned: bool
    authentication_results: str
    delivery_result: DeliveryResult
    arrival: int
    generator: str
    source_ip: str = ""
    mail_from: ReversePath | None = None
    envelope_id: str = ""
    incidents: int = 1
    signature: FailedSignature | None = None
    spf_record: PublishedSpf | None = None
    header: Header = NO_HEADER
    complete: bool = True
    reporting_mta: str = ""


def failure_mail(
    report: FailureReport, letterhead: Letterhead, recipients: Sequence[Mailbox], redactor: Redactor
) -> Mail:
    """The message with a failure report: a note, the report and the redacted header (RFC 5965, 2).

    :param recipients: at least one.
    """
    original, complete = redactor.header(report.header)
    parts = [
        text_part(_note(report, redactor, complete and report.complete)),
        b"Content-Type: message/feedback-report\r\n\r\n" + _feedback(report, letterhead, redactor),
        # RFC 6591, 3.1: the header alone.
        b"Content-Type: text/rfc822-headers\r\n\r\n" + b"".join([field.raw for field in original]),
    ]
    # Nobody can write a text that holds its own hash, so no part ends early.
    identifier = sha256(b"\0".join(parts)).hexdigest()[:32]
    boundary = f"=_{identifier}"
    fields = header(
        letterhead,
        recipients,
        _subject(report, redactor),
        identifier,
        f'multipart/report; report-type=feedback-report;\r\n boundary="{boundary}"',
    )
    body = b"".join([f"--{boundary}\r\n".encode() + part + b"\r\n" for part in parts])
    return Mail(fields, iter((body + f"--{boundary}--\r\n".encode(),)))


def _subject(report: FailureReport, redactor: Redactor) -> str:
    """The Subject of the original after "FW:" (RFC 5965, 2, f)."""
    subjects = report.header.all("Subject")
    text = redactor.text(subjects[0].unfolded.decode("utf-8", "surrogateescape")) if subjects else ""
    text = marked_ascii(text[:MAX_SUBJECT]).strip()
    return f"FW: {text}" if text else f"DMARC failure report about {_value(report.reported_domain)}"


def _feedback(report: FailureReport, letterhead: Letterhead, redactor: Redactor) -> bytes:
    """The machine-readable part, one line a field (RFC 5965, 3; RFC 6591, 3.2; RFC 9991, 4)."""
    failed = [name for name, aligned in (("dkim", report.dkim_aligned), ("spf", report.spf_aligned)) if not aligned]
    fields = {
        "Feedback-Type": "auth-failure",
        "User-Agent": report.generator,
        "Version": "1",
        "Auth-Failure": report.auth_failure.value,
        "Authentication-Results": redactor.text(" ".join(report.authentication_results.split())),
        # RFC 9991, 4: what failed; "none" if all that was attempted succeeded.
        "Identity-Alignment": ", ".join(failed) or "none",
        "Delivery-Result": report.delivery_result.value,
        "Reported-Domain": report.reported_domain,
        "Reporting-MTA": f"dns; {report.reporting_mta or letterhead.receiver}",
        "Arrival-Date": format_datetime(datetime.fromtimestamp(report.arrival, UTC)),
    }
    if report.source_ip:
        # RFC 5965, 3.2 wants the tag "IPv6:" of address literals. It is left out: parsedmarc cannot read it.
        fields["Source-IP"] = report.source_ip
    if report.mail_from is not None and report.mail_from.is_null:
        fields["Original-Mail-From"] = "<>"
    elif report.mail_from is not None and report.mail_from.mailbox is not None:
        fields["Original-Mail-From"] = f"<{redactor.mailbox(report.mail_from.mailbox)}>"
    if report.envelope_id:
        fields["Original-Envelope-Id"] = report.envelope_id
    if report.incidents > 1:
        fields["Incidents"] = str(min(report.incidents, MAX_INCIDENTS))
    if report.signature is not None:
        fields |= _signature(report.signature, redactor)
    if report.spf_record is not None:
        fields["SPF-DNS"] = _spf_dns(report.spf_record)
    return "".join(f"{name}: {_value(value)}\r\n" for name, value in fields.items()).encode()


def _signature(signature: FailedSignature, redactor: Redactor) -> dict[str, str]:
    local_part, _, domain = signature.identity.rpartition("@")  # RFC 6376, 3.5, i=: "@" and d= where there is none
    identity = f"{redactor.local_part(local_part) if local_part else ''}@{domain or signature.domain}"
    return {"DKIM-Domain": signature.domain, "DKIM-Identity": identity, "DKIM-Selector": signature.selector}


def _spf_dns(record: PublishedSpf) -> str:
    """RFC 6591, 4: the type of the record, its name and its text in quotes. A text that is too long is cut."""
    text = record.text[: MAX_VALUE // 2].replace("\\", "\\\\").replace('"', '\\"')
    return f'txt : {record.domain} : "{text}"'


def _value(text: str) -> str:
    """The value of a field, in one line of printable ASCII (RFC 5965, 7.1 allows 7 bits only)."""
    return marked_ascii(text[:MAX_VALUE]).strip()


def _note(report: FailureReport, redactor: Redactor, complete: bool) -> Iterator[str]:
    """What a person reads."""
    arrival = datetime.fromtimestamp(report.arrival, UTC)
    messages = "a message" if report.incidents == 1 else f"{report.incidents} messages like the one below"
    yield f"This is a DMARC failure report (RFC 9991) about {messages}"
    yield f"with {_value(report.reported_domain)} in From, received on {arrival:%Y-%m-%d at %H:%M} UTC."
    yield ""
    yield "The DMARC record of the domain asks for it (ruf=)."
    yield from redactor.note
    if not complete:
        yield "The header is longer than what is included."
