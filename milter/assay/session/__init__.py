# SPDX-License-Identifier: GPL-3.0-or-later
"""Floor 4: one connection and its messages on their way through the SMTP stages. Events in, verdicts out.

A `Session` is one SMTP connection as a milter sees it; it starts a transaction for each message. `deliver` plays a
whole message to it. Nothing here uses a milter library, a thread or a clock.
"""

from assay.session.delivery import Delivery, deliver
from assay.session.inquiries import BEFORE_THE_END, NewDriver
from assay.session.publications import Publications
from assay.session.session import Session
from assay.session.settings import Settings
from assay.session.transaction import Transaction, Verdict

__all__ = [
    "BEFORE_THE_END",
    "Delivery",
    "NewDriver",
    "Publications",
    "Session",
    "Settings",
    "Transaction",
    "Verdict",
    "deliver",
]
