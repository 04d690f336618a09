# SPDX-License-Identifier: GPL-3.0-or-later
"""Rows of the store for tests."""

from __future__ import annotations

import hashlib

from assay.store.rows import DmarcRow, FindingRow, MessageRow, PublishedRow

NOON = 1_700_049_600_000  # 2023-11-15 12:00 UTC, in milliseconds
DAY = NOON // 86_400_000


def row(number: int, **members: object) -> MessageRow:
    """A row that is the same for the same number: a message that fails DMARC and is quarantined, unless said otherwise.

    :param members: those that differ.
    """
    drawn = bytearray(hashlib.sha256(b"%d" % number).digest()[:16])
    drawn[:6] = (NOON + number).to_bytes(6, "big")
    values: dict[str, object] = {
        "id": bytes(drawn),
        "time": NOON + number,
        "host": "mx.example.net",
        "queue": f"4Q{number:06d}",
        "stage": "eom",
        "direction": "inbound",
        "client": "192.0.2.1",
        "client_name": "host.example.org",
        "helo": "host.example.org",
        "null_sender": False,
        "sender_domain": "example.org",
        "author_domain": "example.com",
        "organizational_domain": "example.com",
        "message_id": f"<{number}@example.com>",
        "recipient_count": 1,
        "recipient_domains": ("example.net",),
        "exempt": "",
        "action": "quarantine",
        "by": "dmarc.quarantine",
        "reason": "example.com asks for quarantine",
        "override": "",
        "reply": "",
        "watched": (("reject", "rule strict"),),
        "signed": "",
        "sealed": "",
        "rewritten": "",
        "milliseconds": 12,
        "waits": (("eom", 12),),
        "findings": (
            FindingRow("iprev", "iprev", "pass"),
            FindingRow("spf", "spf.mailfrom", "pass", "example.org"),
            FindingRow("dkim", "dkim", "fail", "example.com", "s1", False, "the body was changed"),
            FindingRow("dmarc", "dmarc", "fail", "example.com", reason="nothing is aligned"),
        ),
        "dmarc": DmarcRow(
            PublishedRow("example.com", "v=DMARC1; p=quarantine; rua=mailto:d@example.com", "treewalk"),
            "quarantine",
            "quarantine",
            False,
            False,
        ),
    }
    return MessageRow(**{**values, **members})  # type: ignore[arg-type]  # mypy sees objects
