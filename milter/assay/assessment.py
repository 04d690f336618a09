# SPDX-License-Identifier: GPL-3.0-or-later
"""Floor 3: all evaluations of one message, frozen. Policy judges it, the trace fields report it, the log records it."""

from __future__ import annotations

from msgspec import Struct

from assay.model.message import NO_HEADER, Header
from assay.model.smtp import Client, Envelope
from assay.protocol import arc, dkim, dmarc, iprev, senderid, spf


class Assessment(Struct, frozen=True):
    """Who the message claims to be from, and the result of each method.

    `exempt` says why nothing was evaluated (``"internal network 10.0.0.0/8"``); it is empty for a message that was
    judged. `dkim` has one evaluation for each signature, and is empty for a message without any. Another evaluation is
    None if its method was not tried: the message is exempt, the method is switched off, or there was nothing to check
    (no client address).
    """

    client: Client
    envelope: Envelope
    exempt: str = ""
    author: dmarc.Author | None = None
    iprev: iprev.Evaluation | None = None
    spf_helo: spf.Evaluation | None = None
    spf_mail_from: spf.Evaluation | None = None
    dkim: tuple[dkim.Evaluation, ...] = ()
    dkim_skipped: int = 0  #: signatures beyond the bound, not tried
    arc: arc.Evaluation | None = None
    sender_id: senderid.Evaluation | None = None
    dmarc: dmarc.Evaluation | None = None
    unread_received: bytes = b""  #: the value of a relay's Received field that does not say who its client is
    header: Header = NO_HEADER
