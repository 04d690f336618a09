# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a message is itself a report, a bounce or another answer by a program.

Such mail must not cause a report: two sites that answer each other's reports never stop. What can be known is what the
envelope and the header say, before the body is there:

- the null reverse-path: bounces and most other automatic answers (RFC 5321, 4.5.5; RFC 3834, 3.3);
- ``multipart/report``: bounces, dispositions, abuse and failure reports, TLS reports (RFC 6522, 3; RFC 8460, 5.3);
- the Subject of an aggregate report, also with something before it, and in any case (RFC 9990, 3.5.2);
- a file with the name of an aggregate report as the whole message (RFC 9990, 3.5.2);
- ``TLS-Report-Domain`` (RFC 8460, 5.3);
- an answer by a program: Auto-Submitted with another word than ``no`` and ``auto-generated`` (RFC 3834, 5.2). The
  latter is what every shop says in its confirmations, which their domains want to hear of;
- one of our own addresses for reports and their bounces among sender and recipients.

It is about what a message claims. A stranger who lets his mail look like a report only gets no report about it.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from enum import StrEnum

from assay.model.message import Header, HeaderField
from assay.model.smtp import Envelope

_MAX_READ = 1000  # octets of a field that is looked at; the Subject of a report has 700 at most


class ReportMail(StrEnum):
    """Why a message counts as a report, in words for a postmaster."""

    NULL_SENDER = "null reverse-path"
    OUR_ADDRESS = "to or from an address of ours for reports"
    MULTIPART_REPORT = "multipart/report"
    SUBJECT = "Subject of an aggregate report"
    FILE = "file name of an aggregate report"
    TLS_REPORT = "TLS-Report-Domain"
    ANSWER = "answer by a program (Auto-Submitted)"


_REPORT = re.compile(rb"\s*+multipart\s*+/\s*+report\b", re.IGNORECASE)
_SUBJECT = re.compile(rb"\breport\s++domain\s*+:.*?\bsubmitter\s*+:", re.IGNORECASE | re.DOTALL)
_FILE = re.compile(rb"![0-9]{8,12}![0-9]{8,12}(?:![a-z0-9]{1,100})?\.(?:xml|zip|gz)", re.IGNORECASE)
_AUTO_SUBMITTED = re.compile(rb"\s*+(?:\([^()]*+\)\s*+)?([a-z-]++)", re.IGNORECASE)


def report_mail(envelope: Envelope, header: Header, ours: Collection[str] = ()) -> ReportMail | None:
    """Why a message counts as a report or an answer, None if it does not.

    :param ours: the addresses to which reports and the bounces of ours come, in lower case.
    """
    if envelope.reverse_path.is_null:
        return ReportMail.NULL_SENDER
    if ours and any(_is_among(address, ours) for address in (envelope.reverse_path.text, *envelope.recipients)):
        return ReportMail.OUR_ADDRESS
    # Each message comes here, and nearly none matches: a character that is missing is found out at once.
    types = header.all("Content-Type")
    for field in types:
        if _REPORT.match(field.value[:_MAX_READ]):
            return ReportMail.MULTIPART_REPORT
    for field in header.all("Subject"):
        if field.value.count(b":") > 1 and _SUBJECT.search(_read(field)):
            return ReportMail.SUBJECT
    for field in (*types, *header.all("Content-Disposition")):
        if b"!" in field.value and _FILE.search(_read(field)):
            return ReportMail.FILE
    if header.all("TLS-Report-Domain"):
        return ReportMail.TLS_REPORT
    for word in _auto_submitted(header):
        if word not in (b"no", b"auto-generated"):
            return ReportMail.ANSWER
    return None


def is_automatic(header: Header) -> bool:
    """Whether a message says that a program sent it, as an answer or not (RFC 3834, 5.2)."""
    return any(word != b"no" for word in _auto_submitted(header))


def _auto_submitted(header: Header) -> list[bytes]:
    fields = header.all("Auto-Submitted")
    return [match[1].lower() for field in fields if (match := _AUTO_SUBMITTED.match(_read(field)))] if fields else []


def _is_among(address: str, ours: Collection[str]) -> bool:
    """Whether an address is one of ours, also with an extension, such as the token of a bounce address."""
    local_part, at, domain = address.lower().rpartition("@")
    return local_part + at + domain in ours or local_part.partition("+")[0] + at + domain in ours


def _read(field: HeaderField) -> bytes:
    """As much of a value as is looked at."""
    return field.unfolded[:_MAX_READ]
