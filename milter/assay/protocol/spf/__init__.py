# SPDX-License-Identifier: GPL-3.0-or-later
"""Sender Policy Framework (RFC 7208): may this client send mail for this domain?

A `Request` names the client and one of the two identities of a transaction; `check` is the inquiry that ends in an
`Evaluation`, and a `Narrator` sees each of its steps. `render` writes an evaluation as the value of a Received-SPF
field. `parse` reads a record, for its publisher.
"""

from assay.protocol.spf.check import check, check_host
from assay.protocol.spf.narration import Event, Narrator, Step
from assay.protocol.spf.observer import Observer
from assay.protocol.spf.received import render
from assay.protocol.spf.record import SpfRecord, parse, parse_terms, select
from assay.protocol.spf.request import Request, Selector
from assay.protocol.spf.result import Evaluation, Identity, Limits, Result

__all__ = [
    "Evaluation",
    "Event",
    "Identity",
    "Limits",
    "Narrator",
    "Observer",
    "Request",
    "Result",
    "Selector",
    "SpfRecord",
    "Step",
    "check",
    "check_host",
    "parse",
    "parse_terms",
    "render",
    "select",
]
