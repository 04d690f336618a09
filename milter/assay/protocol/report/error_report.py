# SPDX-License-Identifier: GPL-3.0-or-later
"""A short message in place of an aggregate report that is too large for its destination (RFC 7489, 7.2.2).

RFC 9990 no longer has it, as it no longer has the size limits of URIs; but records still have these, and without it
the destination does not learn that there was a report.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from email.utils import format_datetime
from urllib.parse import quote

from msgspec import Struct

from assay.model.name import Domain, Mailbox
from assay.protocol.report.mail import Letterhead, Mail, header, text_part


class ErrorReport(Struct, frozen=True):
    """What could not be sent.

    :ivar date: when that was found out, in seconds since the epoch.
    :ivar domain: the policy domain.
    :ivar report_id: of the report that is too large.
    :ivar octets: of the message with it.
    :ivar day: the day that it is about, by any time of it.
    :ivar contact: of who reports.
    """

    date: int
    domain: str
    report_id: str
    octets: int
    day: int
    contact: str


def error_mail(error: ErrorReport, letterhead: Letterhead, recipient: Mailbox, identifier: str) -> Mail:
    """The message with an error report.

    :param identifier: the left half of its Message-ID.
    :raises ValueError: the policy domain is not a host name.
    """
    domain = Domain.parse_host(error.domain)
    # It has the words of a report's Subject, so that other reporters see that it is not ordinary mail. It does not
    # begin with them, so that no receiver looks for a report in it.
    subject = (
        f"Not sent: Report Domain: {domain}\r\n Submitter: {letterhead.receiver}\r\n Report-ID: <{error.report_id}>"
    )
    boundary = f"=_{identifier}"
    fields = header(letterhead, (recipient,), subject, identifier, f'multipart/mixed;\r\n boundary="{boundary}"')
    return Mail(fields, _parts(error, letterhead, recipient, boundary))


def _parts(error: ErrorReport, letterhead: Letterhead, recipient: Mailbox, boundary: str) -> Iterator[bytes]:
    for lines in (_pairs(error, letterhead, recipient), _note(error)):
        yield f"--{boundary}\r\n".encode() + text_part(lines)
    yield f"--{boundary}--\r\n".encode()


def _pairs(error: ErrorReport, letterhead: Letterhead, recipient: Mailbox) -> Iterator[str]:
    yield f"Report-Date: {format_datetime(datetime.fromtimestamp(error.date, UTC))}"
    yield f"Report-Domain: {error.domain}"
    yield f"Report-ID: {error.report_id}"
    yield f"Report-Size: {error.octets}"
    yield f"Submitter: {letterhead.receiver}"
    yield f"Submitting-URI: mailto:{quote(str(recipient), safe='@+')}"


def _note(error: ErrorReport) -> Iterator[str]:
    day = datetime.fromtimestamp(error.day, UTC)
    yield f"There is a DMARC aggregate report about mail from {error.domain}"
    yield f"that came on {day:%Y-%m-%d} (UTC). It is too large to be sent to this address,"
    yield "also in parts."
    yield ""
    yield f"The DMARC record of {error.domain} asks for reports (rua=). A larger size limit"
    yield 'after the address, such as "!10m", or none, lets the next ones come.'
    yield ""
    yield f"Contact: {error.contact}"
