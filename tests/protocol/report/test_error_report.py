# SPDX-License-Identifier: GPL-3.0-or-later
"""The message in place of an aggregate report that is too large (RFC 7489, 7.2.2)."""

from __future__ import annotations

import os
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path

import pytest
from msgspec.structs import replace

from assay.model.name import Domain, InvalidNameError, Mailbox
from assay.protocol.report import ErrorReport, Letterhead, error_mail
from reporting import BEGIN, END, METADATA

GOLDEN = Path(__file__).parent / "golden" / "error-report.eml"
RECEIVER = Domain("mx.example.net")
LETTERHEAD = Letterhead("Example Mail", Mailbox("dmarc", RECEIVER), RECEIVER, END + 3600)
ERROR = ErrorReport(END + 3600, "example.org", METADATA.report_id, 123_456, BEGIN, "dmarc@mx.example.net")


def mail(error: ErrorReport = ERROR, local_part: str = "reports") -> bytes:
    return b"".join(error_mail(error, LETTERHEAD, Mailbox(local_part, Domain("example.org")), "a1").octets())


def test_the_octets_are_the_golden_ones() -> None:
    if os.environ.get("GOLDEN_UPDATE"):
        GOLDEN.write_bytes(mail())
    assert mail() == GOLDEN.read_bytes()


@pytest.mark.parametrize(
    ("local_part", "uri"),
    [("a+b", "mailto:a+b@example.org"), ("a!b,c%d", "mailto:%22a%21b%2Cc%25d%22@example.org")],
)
def test_its_address_is_a_uri(local_part: str, uri: str) -> None:
    message = message_from_bytes(mail(local_part=local_part), policy=policy.default)
    assert isinstance(message, EmailMessage)
    fields, _ = message.iter_parts()
    assert fields.get_content().splitlines()[-1] == f"Submitting-URI: {uri}"


def test_a_domain_that_is_no_host_name_cannot_be_written_about() -> None:
    with pytest.raises(InvalidNameError):
        mail(replace(ERROR, domain="a\r\nb.example"))
