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
from assay.protocol.report.render import NAMESPACE, Schema, render

__all__ = [
    "MAX_SIGNATURES",
    "NAMESPACE",
    "AggregateReport",
    "Disposition",
    "DkimResult",
    "OverrideReason",
    "OverrideType",
    "PolicyPublished",
    "ReportMetadata",
    "ReportRecord",
    "Schema",
    "SpfResult",
    "published",
    "render",
    "reported_signatures",
]
