# SPDX-License-Identifier: GPL-3.0-or-later
"""Reports that others send about our domains: DMARC aggregate and failure reports, and TLS reports.

Octets of a mail or a file come in, frozen values go out::

    for arrival in read(octets, authserv_id="mx.example.org"):
        arrival.report  # ReceivedAggregate, ReceivedFailure, ReceivedTls or Unreadable

Anyone can send such a mail. So a child process with bounds on time, memory and descriptors unpacks and parses it
(`confine`), and what cannot be read is `Unreadable`, with the reason. parsedmarc does the parsing (`parse`).
"""

from assay.protocol.report.received import (
    AggregateRow,
    AppliedPolicy,
    Arrival,
    PolicyReason,
    Received,
    ReceivedAggregate,
    ReceivedFailure,
    ReceivedTls,
    ReportedSignature,
    ReportedSpf,
    ReportSender,
    TlsFailure,
    TlsPolicy,
    Unreadable,
)
from assay.reports.incoming.read import read
from assay.reports.incoming.screen import screen

__all__ = [
    "AggregateRow",
    "AppliedPolicy",
    "Arrival",
    "PolicyReason",
    "Received",
    "ReceivedAggregate",
    "ReceivedFailure",
    "ReceivedTls",
    "ReportSender",
    "ReportedSignature",
    "ReportedSpf",
    "TlsFailure",
    "TlsPolicy",
    "Unreadable",
    "read",
    "screen",
]
