# SPDX-License-Identifier: GPL-3.0-or-later
"""Read a mail or a file with reports."""

from __future__ import annotations

import codecs
from collections.abc import Iterator

import msgspec

from assay.model.wording import counted
from assay.protocol.report.received import Arrival, Received, ReportSender, Unreadable
from assay.reports.incoming import parse
from assay.reports.incoming.confine import confined
from assay.reports.incoming.mail import MAX_REPORTS, open_mail
from assay.reports.incoming.scan import ENCODINGS, decode, scan
from assay.reports.incoming.texts import UnreadableError, domain
from assay.reports.incoming.unpack import looks_like_report, unpack

MAX_MAIL_OCTETS = 32 * 1024 * 1024  # our choice: MTAs accept 10 to 25 MiB

for _encoding in (*ENCODINGS, "cp437", "idna", "punycode", "raw-unicode-escape"):
    codecs.lookup(_encoding)  # the process that reads cannot open the file in which it is; zip has names in cp437
domain("\u00fc.example")  # likewise the tables of IDNA

_decoder = msgspec.msgpack.Decoder(tuple[Arrival, ...])


def read(octets: bytes, *, authserv_id: str = "") -> tuple[Arrival, ...]:
    """Read the reports in a mail or file. Call it in a process with one thread: it forks.

    :param octets: a mail as received, or the content of a file: XML or JSON, as it is or in a gzip or zip file.
    :param authserv_id: who wrote the Authentication-Results field of a mail that is believed; empty for nobody.
    :returns: at least one. What is not a report, or exceeds a bound, is `Unreadable`.
    :raises RuntimeError: a bug; the message is the traceback.
    :raises OSError: there is no process or descriptor left.
    """
    if len(octets) > MAX_MAIL_OCTETS:
        return (Arrival(ReportSender(), Unreadable(f"it is larger than {MAX_MAIL_OCTETS // 1048576} MiB")),)
    try:
        result = confined(lambda: msgspec.msgpack.encode(tuple(arrivals(octets, authserv_id))))
    except UnreadableError as error:
        return (Arrival(ReportSender(), Unreadable(str(error))),)
    return _decoder.decode(result)


def arrivals(octets: bytes, authserv_id: str) -> Iterator[Arrival]:
    """Read the reports, without bounds on memory and time."""
    if looks_like_report(octets):
        yield Arrival(ReportSender(), _try(octets))
        return
    try:
        mail = open_mail(octets, authserv_id)
    except UnreadableError as error:
        yield Arrival(ReportSender(), Unreadable(str(error)))
        return
    if mail.feedback is not None:
        try:
            yield Arrival(mail.sender, parse.failure(mail.feedback, mail.sender))
        except UnreadableError as error:
            yield Arrival(mail.sender, Unreadable(str(error)))
    elif not mail.attachments:
        yield Arrival(mail.sender, Unreadable("there is no report in it"))
    for attachment in mail.attachments:
        yield Arrival(mail.sender, _try(attachment))
    if mail.further:
        yield Arrival(
            mail.sender, Unreadable(f"{counted(mail.further, 'report')} beyond the first {MAX_REPORTS} in one mail")
        )


def _try(octets: bytes) -> Received | Unreadable:
    try:
        return _report(decode(unpack(octets)))
    except UnreadableError as error:
        return Unreadable(str(error))


def _report(text: str) -> Received:
    """:raises UnreadableError: it is none."""
    if text.startswith("<"):
        return parse.aggregate(text, scan(text))
    if text.startswith("{"):
        return parse.tls(text)
    raise UnreadableError("it is neither XML nor JSON")
