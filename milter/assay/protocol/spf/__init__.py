# SPDX-License-Identifier: GPL-3.0-or-later
"""Sender Policy Framework (RFC 7208): may this client send mail for this domain?

`check_mail_from` and `check_helo` are the two checks of a transaction; both are inquiries that end in an `Evaluation`.
`render` writes one as the value of a Received-SPF field. `parse` reads a record, for those who publish one.
"""

from assay.protocol.spf.check import Selector, check_host
from assay.protocol.spf.evaluation import Evaluation, Event, Identity, Limits, Result, Step
from assay.protocol.spf.identity import check_helo, check_mail_from
from assay.protocol.spf.received import render
from assay.protocol.spf.record import Record, parse, parse_terms, select

__all__ = [
    "Evaluation",
    "Event",
    "Identity",
    "Limits",
    "Record",
    "Result",
    "Selector",
    "Step",
    "check_helo",
    "check_host",
    "check_mail_from",
    "parse",
    "parse_terms",
    "render",
    "select",
]
