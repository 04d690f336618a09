# SPDX-License-Identifier: GPL-3.0-or-later
"""DMARC reports: what they say and how they are written (RFC 9990 and RFC 9991).

Pure functions of what is passed in. Nothing here sends, stores or decides which domain gets a report.
"""

from assay.protocol.report.aggregate import (
    MAX_SIGNATURES,
    AggregateReport,
    Disposition,
    DkimResult,
    OverrideReason,
    OverrideType,
    PolicyPublished,
    ReportMetadata,
    ReportRecord,
    SpfResult,
    published,
    reported_signatures,
)
from assay.protocol.report.destinations import (
    MAX_DESTINATIONS,
    Destination,
    Destinations,
    Recipient,
    Tag,
    UriError,
    Usability,
    evaluate_destinations,
    parse_mailto,
)
from assay.protocol.report.mail import Letterhead, Mail
from assay.protocol.report.render import NAMESPACE, Schema, render
from assay.protocol.report.submission import aggregate_mail, compressed, file_name, report_id, subject

__all__ = [
    "MAX_DESTINATIONS",
    "MAX_SIGNATURES",
    "NAMESPACE",
    "AggregateReport",
    "Destination",
    "Destinations",
    "Disposition",
    "DkimResult",
    "Letterhead",
    "Mail",
    "OverrideReason",
    "OverrideType",
    "PolicyPublished",
    "Recipient",
    "ReportMetadata",
    "ReportRecord",
    "Schema",
    "SpfResult",
    "Tag",
    "UriError",
    "Usability",
    "aggregate_mail",
    "compressed",
    "evaluate_destinations",
    "file_name",
    "parse_mailto",
    "published",
    "render",
    "report_id",
    "reported_signatures",
    "subject",
]
