# SPDX-License-Identifier: GPL-3.0-or-later
"""Our signatures on a report: without them no receiver trusts it (RFC 9990, 3.5.2)."""

from __future__ import annotations

from assay.keys import Signing
from assay.model.message import Header
from assay.model.name import Mailbox, ReversePath
from assay.model.smtp import Client, Envelope
from assay.policy import SignDecision
from assay.protocol import dkim, report
from assay.session.outgoing import Outgoing


class UnsignedError(Exception):
    """A report cannot be signed, so no receiver would trust it. The message says why."""


def signed(mail: report.Mail, signing: Signing, sender: Mailbox, now: int) -> list[bytes]:
    """A message with our signatures on top, in pieces.

    :raises UnsignedError: nothing signs for the sender.
    """
    envelope = Envelope(ReversePath.parse(str(sender)))
    outgoing = Outgoing(signing, Client(), envelope)
    hashes = dkim.BodyHashes(outgoing.header_complete(mail.header, SignDecision(sign=sender.domain)))
    body = list(mail.body)
    for piece in body:
        hashes.update(piece)
    made = outgoing.sign(mail.header, hashes, now)
    if not made.signers:
        raise UnsignedError(f"not signed: {made.why}")
    top = b"".join(
        b"DKIM-Signature: " + edit.value.replace("\r\n", "\n").replace("\n", "\r\n").encode() + b"\r\n"
        for edit in reversed(made.edits)
    )
    return [top, _octets(mail.header), *body]


def _octets(header: Header) -> bytes:
    return b"".join(field.raw for field in header) + b"\r\n"
