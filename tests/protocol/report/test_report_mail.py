# SPDX-License-Identifier: GPL-3.0-or-later
"""Which messages count as reports or answers, so that they never cause a report."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from assay.model.message import Header, HeaderField, split_message
from assay.model.name import Domain, Mailbox, ReversePath
from assay.model.smtp import Envelope
from assay.protocol.report import (
    AuthFailure,
    DeliveryResult,
    FailureReport,
    Letterhead,
    Redactor,
    ReportMail,
    aggregate_mail,
    failure_mail,
    report_mail,
)
from reporting import REPORT

OURS = {"dmarc@mx.example.net"}
ENVELOPE = Envelope(ReversePath.parse("a@b.example"), ("c@mx.example.net",))


def kind(*fields: str, envelope: Envelope = ENVELOPE) -> ReportMail | None:
    header = Header(
        tuple(
            HeaderField(name.encode(), b" " + value.encode().replace(b"\n", b"\r\n"))
            for name, _, value in (field.partition(": ") for field in fields)
        )
    )
    return report_mail(envelope, header, OURS)


@pytest.mark.parametrize(
    ("field", "expected"),
    [
        ("Content-Type: multipart/report; report-type=delivery-status; boundary=x", ReportMail.MULTIPART_REPORT),
        ("Content-Type: Multipart/Report;\n report-type=feedback-report", ReportMail.MULTIPART_REPORT),
        ("content-type: multipart/report;report-type=disposition-notification", ReportMail.MULTIPART_REPORT),
        ("Content-Type: multipart/reporting", None),
        ("Content-Type: multipart/mixed; x=multipart/report", None),
        ("Subject: Report Domain: a.example Submitter: b.example Report-ID: <1>", ReportMail.SUBJECT),
        ("Subject: Report domain:a.example\n submitter:b.example", ReportMail.SUBJECT),
        ("Subject: [Preview] Report Domain: a.example Submitter: b.example", ReportMail.SUBJECT),
        ("Subject: Re: Report Domain: a.example Submitter: b.example Report-ID: 1", ReportMail.SUBJECT),
        ("Subject: your report about our domain", None),
        ("Subject: Submitter: a Report Domain: b", None),
        (
            'Content-Type: application/zip; name="a.example!b.example!1700006400!1700092800.zip"',
            ReportMail.FILE,
        ),
        (
            'Content-Disposition: attachment;\n filename="a.example!b.example!1700006400!1700092800!x1.xml.gz"',
            ReportMail.FILE,
        ),
        ('Content-Disposition: attachment; filename="sale!!!1.zip"', None),
        ("TLS-Report-Domain: a.example", ReportMail.TLS_REPORT),
        ("Auto-Submitted: auto-replied", ReportMail.ANSWER),
        ("Auto-Submitted: Auto-Replied (vacation)", ReportMail.ANSWER),
        ("Auto-Submitted: (a comment) auto-notified; owner-email=x", ReportMail.ANSWER),
        ("Auto-Submitted: auto-generated", None),
        ("Auto-Submitted: no", None),
        ("Auto-Submitted: (no", None),
        ("Subject: lunch", None),
    ],
)
def test_the_header_shows_reports_and_answers(field: str, expected: ReportMail | None) -> None:
    assert kind(field) is expected
    assert kind("Subject: lunch", "Content-Type: text/plain", field) is expected


@pytest.mark.parametrize(
    ("sender", "recipients", "expected"),
    [
        ("", ["c@mx.example.net"], ReportMail.NULL_SENDER),
        ("DMARC@MX.example.net", ["c@d.example"], ReportMail.OUR_ADDRESS),
        ("a@b.example", ["c@mx.example.net", "Dmarc@mx.example.net"], ReportMail.OUR_ADDRESS),
        ("a@b.example", ["dmarc+4711@mx.example.net"], ReportMail.OUR_ADDRESS),
        ("a@b.example", ["dmarc@mx.example.com"], None),
        ("no address", ["c@mx.example.net"], None),
    ],
)
def test_the_envelope_shows_bounces_and_our_own_addresses(
    sender: str, recipients: list[str], expected: ReportMail | None
) -> None:
    envelope = Envelope(ReversePath.parse(sender), tuple(recipients))
    assert kind("Subject: lunch", envelope=envelope) is expected


def test_our_own_reports_are_recognized_by_others() -> None:
    """Whoever gets them, and whatever the envelope: two instances of assay do not report about each other's reports."""
    domain = Domain("mx.example.org")
    letterhead = Letterhead("Example", Mailbox("dmarc", domain), domain, 1_700_000_000)
    to = [Mailbox("reports", Domain("example.org"))]
    failure = FailureReport(
        "example.org", AuthFailure.DMARC, False, False, "x; dmarc=fail", DeliveryResult.OTHER, 1_700_000_000, "assay/1"
    )
    mails = (aggregate_mail(REPORT, [b"x"], letterhead, to), failure_mail(failure, letterhead, to, Redactor(b"key")))
    for mail in mails:
        header, _ = split_message(b"".join(mail.octets()))
        assert report_mail(replace(ENVELOPE, recipients=("reports@example.org",)), header) is not None
