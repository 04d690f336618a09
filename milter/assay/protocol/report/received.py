# SPDX-License-Identifier: GPL-3.0-or-later
"""What a report says that others sent us, as plain values that any process can store or show.

Texts are what a stranger wrote, bounded and printable. Domains are A-labels in lower case. Times are Unix seconds. A
field that the report does not have is empty.
"""

from __future__ import annotations

import hashlib
from typing import TypeAlias

from msgspec import Struct

_ID_OCTETS = 16


class ReportSender(Struct, frozen=True):
    """Who sent the mail that a report came in. A report in a file has none.

    :ivar author: the author domain.
    :ivar dmarc: our own result of DMARC for it, from the Authentication-Results field that this site wrote; empty if
        there is none. Only with ``pass`` is it known that the report comes from that domain.
    """

    author: str = ""
    dmarc: str = ""

    @property
    def is_authenticated(self) -> bool:
        """Whether it is known that `author` sent the report. RFC 9990, 3.5.2 requires reports to pass DMARC."""
        return bool(self.author) and self.dmarc == "pass"


class ReceivedReport(Struct, frozen=True):
    """What all reports have.

    :ivar organization: who reports.
    :ivar contact: whom to ask about the report.
    :ivar report_id: the reporter's name for it.
    :ivar domain: the domain of ours that it is about.
    :ivar begin: the begin of the period; `end` its last second.
    """

    organization: str
    contact: str
    report_id: str
    domain: str
    begin: int
    end: int

    @property
    def id(self) -> bytes:
        """16 octets, the same for each copy of a report and for no other report of an honest reporter.

        Anyone can write another report with the same, so it is that of copies of which the sender is not known.
        """
        parts = (type(self).__name__, self.organization.lower(), self.report_id, self.domain, str(self.begin))
        return digest("\0".join((*parts, *self._distinction)).encode("utf-8", "replace"))

    def id_from(self, sender: ReportSender) -> bytes:
        """The id of a copy that came from a sender: only an authenticated sender can have the one that is its own."""
        return digest(self.id + sender.author.encode()) if sender.is_authenticated else self.id

    @property
    def _distinction(self) -> tuple[str, ...]:
        """What else two reports of a reporter differ in."""
        return ()


class AppliedPolicy(Struct, frozen=True):
    """The policy that the reporter found published (RFC 9990, 3.1.1.5): the tags of the record."""

    p: str = ""
    sp: str = ""
    np: str = ""
    adkim: str = ""
    aspf: str = ""
    pct: str = ""
    fo: str = ""
    testing: str = ""
    discovery_method: str = ""


class PolicyReason(Struct, frozen=True):
    """Why what was done is not what was published (RFC 9990, 3.1.1.11)."""

    type: str
    comment: str = ""


class ReportedSignature(Struct, frozen=True):
    """One DKIM signature and its result (RFC 9990, 3.1.1.12)."""

    domain: str
    selector: str
    result: str


class ReportedSpf(Struct, frozen=True):
    """An SPF identity and its result (RFC 9990, 3.1.1.12)."""

    domain: str
    scope: str
    result: str


class AggregateRow(Struct, frozen=True):
    """How many messages of one client had these results (RFC 9990, 3.1.1.7).

    :ivar source: the address of the client.
    :ivar dkim_aligned: whether DKIM made DMARC pass; `spf_aligned` likewise.
    :ivar author_domain: ``header_from``; `sender_domain` is ``envelope_from``, `recipient_domain` ``envelope_to``.
    """

    source: str
    count: int
    disposition: str
    dkim_aligned: bool
    spf_aligned: bool
    author_domain: str
    sender_domain: str = ""
    recipient_domain: str = ""
    reasons: tuple[PolicyReason, ...] = ()
    dkim: tuple[ReportedSignature, ...] = ()
    spf: tuple[ReportedSpf, ...] = ()


class ReceivedAggregate(ReceivedReport, frozen=True, tag="aggregate"):
    """An aggregate report (RFC 7489, appendix C, or RFC 9990).

    :ivar generator: the program that wrote it.
    :ivar errors: what the reporter says went wrong.
    :ivar left_out: how many records could not be used, and `complaint` why the first of them could not.
    """

    policy: AppliedPolicy
    rows: tuple[AggregateRow, ...]
    generator: str = ""
    errors: tuple[str, ...] = ()
    left_out: int = 0
    complaint: str = ""

    @property
    def messages(self) -> int:
        """How many messages it is about."""
        return sum(row.count for row in self.rows)


class ReceivedFailure(ReceivedReport, frozen=True, tag="failure"):
    """A failure report: one message in our name that failed (RFC 6591 and RFC 9991).

    `report_id` is the Message-ID of the mail; begin and end are when the message arrived there. Of the message only
    what finds it again in our own log is kept.

    :ivar source: the address of the client.
    :ivar failures: what failed, such as ``dmarc`` or ``dkim``; `aligned` what was aligned.
    :ivar delivery: what became of the message.
    :ivar author_domain: of the message; `sender_domain` and `message_id` likewise.
    """

    source: str
    failures: tuple[str, ...] = ()
    aligned: tuple[str, ...] = ()
    delivery: str = ""
    results: str = ""
    dkim_domain: str = ""
    dkim_selector: str = ""
    author_domain: str = ""
    sender_domain: str = ""
    message_id: str = ""
    incidents: int = 1

    @property
    def _distinction(self) -> tuple[str, ...]:
        return (self.source, self.message_id)


class TlsFailure(Struct, frozen=True):
    """Sessions that failed in one way (RFC 8460, 4.4)."""

    result: str
    count: int
    sender: str = ""
    receiver: str = ""
    mx: str = ""
    reason: str = ""


class TlsPolicy(Struct, frozen=True):
    """The sessions under one policy of a domain (RFC 8460, 4.4).

    :ivar type: ``tlsa``, ``sts`` or ``no-policy-found``.
    """

    domain: str
    type: str
    successful: int
    failed: int
    failures: tuple[TlsFailure, ...] = ()


class ReceivedTls(ReceivedReport, frozen=True, tag="tls"):
    """A report about TLS to our mail servers (RFC 8460). `domain` is that of its first policy."""

    policies: tuple[TlsPolicy, ...]


class Unreadable(Struct, frozen=True, tag="unreadable"):
    """What came in and is not a report that can be used, and why."""

    reason: str


Received: TypeAlias = ReceivedAggregate | ReceivedFailure | ReceivedTls


class Arrival(Struct, frozen=True):
    """One report, and where it comes from."""

    sender: ReportSender
    report: Received | Unreadable


def digest(octets: bytes) -> bytes:
    """16 octets that are others for other octets."""
    return hashlib.blake2b(octets, digest_size=_ID_OCTETS).digest()
