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
    Destinations,
    Recipient,
    ReportUri,
    Tag,
    UriError,
    Usability,
    evaluate_destinations,
    parse_mailto,
    size_limits,
)
from assay.protocol.report.error_report import ErrorReport, error_mail
from assay.protocol.report.failure import (
    AuthFailure,
    DeliveryResult,
    FailedSignature,
    FailureReport,
    PublishedSpf,
    failure_mail,
)
from assay.protocol.report.mail import Letterhead, Mail
from assay.protocol.report.options import (
    FailureKind,
    auth_failure,
    published_spf,
    requested_failure_reports,
    signature_to_report,
)
from assay.protocol.report.parts import Divider, RecordTooLargeError
from assay.protocol.report.redaction import Redactor, Unredacted
from assay.protocol.report.render import NAMESPACE, Schema, render
from assay.protocol.report.report_mail import ReportMail, is_automatic, report_mail
from assay.protocol.report.submission import (
    AROUND,
    aggregate_mail,
    compressed,
    derived_id,
    file_name,
    file_room,
    mail_size,
    report_id,
    subject,
)

__all__ = [
    "AROUND",
    "MAX_DESTINATIONS",
    "MAX_SIGNATURES",
    "NAMESPACE",
    "AggregateReport",
    "AuthFailure",
    "DeliveryResult",
    "Destinations",
    "Disposition",
    "Divider",
    "DkimResult",
    "ErrorReport",
    "FailedSignature",
    "FailureKind",
    "FailureReport",
    "Letterhead",
    "Mail",
    "OverrideReason",
    "OverrideType",
    "PolicyPublished",
    "PublishedSpf",
    "Recipient",
    "RecordTooLargeError",
    "Redactor",
    "ReportMail",
    "ReportMetadata",
    "ReportRecord",
    "ReportUri",
    "Schema",
    "SpfResult",
    "Tag",
    "Unredacted",
    "UriError",
    "Usability",
    "aggregate_mail",
    "auth_failure",
    "compressed",
    "derived_id",
    "error_mail",
    "evaluate_destinations",
    "failure_mail",
    "file_name",
    "file_room",
    "is_automatic",
    "mail_size",
    "parse_mailto",
    "published",
    "published_spf",
    "render",
    "report_id",
    "report_mail",
    "reported_signatures",
    "requested_failure_reports",
    "signature_to_report",
    "size_limits",
    "subject",
]
