# SPDX-License-Identifier: GPL-3.0-or-later
"""One message through a real daemon."""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path

from assay.model.message import split_message
from running import Daemon

ROWS = {
    "example.org": [["TXT", ["v=spf1 ip4:192.0.2.1 -all"]]],
    "_dmarc.example.org": [["TXT", ["v=DMARC1; p=reject"]]],
    "mail.example.org": [["A", "192.0.2.1"]],
    "1.2.0.192.in-addr.arpa": [["PTR", "mail.example.org"]],
}
MESSAGE = b"From: joe@example.org\r\nSubject: x\r\n\r\nhello\r\n"


def test_a_genuine_message_is_stamped(tmp_path: Path) -> None:
    with Daemon(tmp_path, ROWS) as daemon, daemon.mta() as mta:
        mta.connect("mail.example.org", ip_address("192.0.2.1"), j="mx.example.net")
        mta.helo("mail.example.org")
        mta.mail("joe@example.org")
        mta.rcpt("ann@example.net", i="4ABC")
        outcome = mta.message(*split_message(MESSAGE), i="4ABC")
        assert outcome.code == 250
        assert outcome.edits[-1][:2] == (0, b"Authentication-Results")
        assert b"dmarc=pass" in (outcome.edits[-1][2] or b"")
        assert "queue=4ABC" in daemon.wait_for_log("dmarc=pass")
