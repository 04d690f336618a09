# SPDX-License-Identifier: GPL-3.0-or-later
"""Mail to the bounce addresses of our reports."""

from __future__ import annotations

import re

from assay.model.message import split_message
from assay.model.printable import marked
from assay.protocol import report

MAX_TOKEN = 64  # characters, our choice: ours have 16

#: Of a delivery status notification (RFC 3464, 2.3.3).
_ACTION = re.compile(rb"^Action:[ \t]*([a-z]+)", re.IGNORECASE | re.MULTILINE)


def bounce_token(recipient: str, bounces: str) -> str | None:
    """What names the report that came back.

    :param recipient: of the mail.
    :param bounces: ``reports.bounces``.
    :returns: the token, printable; empty for an address without; None for another address.
    """
    local_part, at, domain = recipient.lower().rpartition("@")
    ours, _, our_domain = bounces.lower().rpartition("@")
    name, _, token = local_part.partition("+")
    if not at or not ours or (name, domain) != (ours, our_domain):
        return None
    return marked(token[:MAX_TOKEN])


def is_warning(mail: bytes) -> bool:
    """Whether a mail does not say that the report failed: a notification that it is late or has arrived, or an
    automatic reply that is no notification, such as "out of office"."""
    actions = {action.lower() for action in _ACTION.findall(mail)}
    if actions:
        return b"failed" not in actions
    header, _ = split_message(mail)
    return report.is_automatic(header)
