# SPDX-License-Identifier: GPL-3.0-or-later
"""An aggregate report on its way: its identifier, its file and the message around it (RFC 9990, 3.5).

Everything follows from the report, so one that is sent again has the same identifier, file name and octets, and its
receiver can tell (RFC 9990, 3.5.2 and 3.5.4).
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from hashlib import sha256

from assay.model.name import Domain, Mailbox
from assay.protocol.report.aggregate import AggregateReport, PolicyPublished
from assay.protocol.report.mail import BASE64_OCTETS, Letterhead, Mail, base64_lines, header, text_part

_ID_LENGTH = 32  # hexadecimal digits: 128 bits
#: The unique-id of a file name, which has to be the Report-ID too (RFC 9990, 3.1.4 and 3.5.2).
_UNIQUE_ID = re.compile(r"[A-Za-z0-9]+")
AROUND = 1900  # octets of header, signature and note
GZIP_BITS = 16 + zlib.MAX_WBITS  # for zlib: a header without file name and time (RFC 1952, 2.3)


def report_id(receiver: Domain, policy: PolicyPublished, begin: int, end: int, *, source: str) -> str:
    """The Report-ID: another one for each domain, configuration, period and source (RFC 9990, 3.5.1).

    It is made of letters and digits, so that it is also the unique-id of the file name.

    :param receiver: the domain that reports.
    :param source: what tells apart the stores of one receiver, such as the name of the host: each reports other
        messages about the same domain, and none may be taken for a duplicate (RFC 9990, 3.5.2).
    """
    parts = [receiver.name, source, str(begin), str(end), *map(str, _values(policy))]
    return sha256("\n".join(parts).encode("utf-8", "surrogateescape")).hexdigest()[:_ID_LENGTH]


def derived_id(identifier: str, *parts: object) -> str:
    """The identifier of something that is made in place of a report, such as a part of it.

    :param identifier: the Report-ID.
    :param parts: what distinguishes it from others that are made in place of the same report.
    """
    return sha256("\n".join([identifier, *map(str, parts)]).encode()).hexdigest()[:_ID_LENGTH]


def _values(policy: PolicyPublished) -> Iterator[object]:
    return (getattr(policy, field) for field in policy.__struct_fields__)


def file_name(report: AggregateReport, receiver: Domain) -> str:
    """The name of the compressed file (RFC 9990, 3.5.2).

    :raises ValueError: the policy domain is not a host name, or the Report-ID not of letters and digits: there is no
        such name.
    """
    metadata = report.metadata
    if not _UNIQUE_ID.fullmatch(metadata.report_id):
        raise ValueError("a Report-ID has letters and digits only")
    domain = Domain.parse_host(report.policy.domain)
    return f"{receiver}!{domain}!{metadata.begin}!{metadata.end}!{metadata.report_id}.xml.gz"


def subject(report: AggregateReport, receiver: Domain) -> str:
    """The Subject, folded (RFC 9990, 3.5.2): its words are matched with regard to case.

    :raises ValueError: the policy domain is not a host name.
    """
    domain = Domain.parse_host(report.policy.domain)
    return f"Report Domain: {domain}\r\n Submitter: {receiver}\r\n Report-ID: <{report.metadata.report_id}>"


def compressed(xml: Iterable[bytes]) -> Iterator[bytes]:
    """The gzip file of a report, which holds no time: the same report is the same file (RFC 1952, 2.3.1)."""
    compressor = zlib.compressobj(wbits=GZIP_BITS)
    for piece in xml:
        octets = compressor.compress(piece)
        if octets:
            yield octets
    yield compressor.flush()


def aggregate_mail(
    report: AggregateReport, file: Iterable[bytes], letterhead: Letterhead, recipients: Sequence[Mailbox]
) -> Mail:
    """The message with a report (RFC 9990, 3.5.2).

    :param file: what `compressed` made, in pieces.
    :param recipients: all that get this message, at least one.
    :raises ValueError: as `file_name`.
    """
    identifier = report.metadata.report_id
    name = file_name(report, letterhead.receiver)
    boundary = f"=_{identifier}"  # "=_" is in no base64, and nobody knows the rest before
    fields = header(
        letterhead,
        recipients,
        subject(report, letterhead.receiver),
        identifier,
        f'multipart/mixed;\r\n boundary="{boundary}"',
    )
    return Mail(fields, _parts(report, file, name, boundary))


def mail_size(file_octets: int, around: int = AROUND) -> int:
    """How many octets the signed message with a file has, within some hundreds.

    :param file_octets: of the file as `compressed` made it.
    :param around: octets of all that is not the file.
    """
    lines = -(-file_octets // BASE64_OCTETS)
    return 4 * -(-file_octets // 3) + 2 * lines + around


def file_room(mail_octets: int, around: int = AROUND) -> int:
    """How many octets a file has at most, if the message with it has at most some; 0 if there is no room."""
    return max(0, (mail_octets - around) // (4 * BASE64_OCTETS // 3 + 2) * BASE64_OCTETS)


def _parts(report: AggregateReport, file: Iterable[bytes], name: str, boundary: str) -> Iterator[bytes]:
    yield f"--{boundary}\r\n".encode() + text_part(_note(report))
    yield (
        f"--{boundary}\r\n"
        f'Content-Type: application/gzip;\r\n name="{name}"\r\n'  # RFC 6713, 3
        f'Content-Disposition: attachment;\r\n filename="{name}"\r\n'
        "Content-Transfer-Encoding: base64\r\n\r\n"
    ).encode()
    yield from base64_lines(file)
    yield f"--{boundary}--\r\n".encode()


def _note(report: AggregateReport) -> Iterator[str]:
    """What a person reads who finds the report in a mailbox."""
    metadata, domain = report.metadata, report.policy.domain
    begin, end = (datetime.fromtimestamp(time, UTC) for time in (metadata.begin, metadata.end))
    yield f"This is a DMARC aggregate report (RFC 9990) about mail from {domain}"
    if report.parts:
        yield f"(part {report.part} of {report.parts}; each is a report of its own, and they add up)"
    yield f"that came between {begin:%Y-%m-%d %H:%M} and {end:%Y-%m-%d %H:%M} UTC."
    yield ""
    yield f"The DMARC record of {domain} asks for it (rua=)."
    yield "The report itself is attached."
    yield ""
    yield f"Reported by: {metadata.org_name}"
    yield f"Contact: {metadata.email}"
    if metadata.extra_contact_info:
        yield f"See also: {metadata.extra_contact_info}"
