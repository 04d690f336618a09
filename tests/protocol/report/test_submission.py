# SPDX-License-Identifier: GPL-3.0-or-later
"""The message around an aggregate report (RFC 9990, 3.5)."""

from __future__ import annotations

import email
import email.policy
import gzip
import os
import re
from collections.abc import Sequence
from email.header import decode_header, make_header
from email.message import EmailMessage
from pathlib import Path
from typing import cast

import parsedmarc
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from assay.model.message import split_message
from assay.model.name import Domain, InvalidNameError, Mailbox
from assay.protocol.report import (
    AggregateReport,
    Letterhead,
    aggregate_mail,
    compressed,
    file_name,
    report_id,
    subject,
)
from assay.protocol.report.mail import base64_lines
from reporting import BEGIN, END, METADATA, POLICY, REPORT, hostile, no_complaints, written

GOLDEN = Path(__file__).parent / "golden"
UPDATE = bool(os.environ.get("GOLDEN_UPDATE"))
RECEIVER = Domain("mx.example.net")
LETTERHEAD = Letterhead("Example Mail", Mailbox("dmarc", RECEIVER), RECEIVER, END + 3600)
TO = (Mailbox("reports", Domain("example.org")),)


def mail(report: AggregateReport = REPORT, letterhead: Letterhead = LETTERHEAD, to: Sequence[Mailbox] = TO) -> bytes:
    """The octets of the message with a report."""
    return b"".join(aggregate_mail(report, compressed([written(report)]), letterhead, to).octets())


def parsed(octets: bytes) -> EmailMessage:
    return cast(EmailMessage, email.message_from_bytes(octets, policy=email.policy.default))


def test_the_octets_are_the_golden_ones() -> None:
    file = [b"compressed", b" by another program"]  # which may compress otherwise
    octets = b"".join(aggregate_mail(REPORT, file, LETTERHEAD, TO).octets())
    path = GOLDEN / "aggregate.eml"
    if UPDATE:
        path.write_bytes(octets)
    assert octets == path.read_bytes()
    assert mail() == mail(), "a report that is sent again is the same"


def test_another_reader_finds_the_report() -> None:
    with no_complaints():
        found = parsedmarc.parse_report_email(mail(), offline=True, always_use_local_files=True)
    assert found["report_type"] == "aggregate"
    assert found["report"]["report_metadata"]["report_id"] == METADATA.report_id
    assert len(found["report"]["records"]) == 1


def test_the_attachment_is_the_report_under_the_name_of_the_rfc() -> None:
    message = parsed(mail())
    note, attachment = cast("list[EmailMessage]", list(message.iter_parts()))
    assert attachment.get_content_type() == "application/gzip"
    assert attachment.get_content_disposition() == "attachment"
    assert attachment.get_filename() == f"mx.example.net!example.org!{BEGIN}!{END}!{METADATA.report_id}.xml.gz"
    assert gzip.decompress(attachment.get_content()) == written()
    assert "2023-11-15 00:00" in note.get_content()
    assert message["Auto-Submitted"] == "auto-generated"
    assert message["Message-ID"] == f"<{METADATA.report_id}@mx.example.net>"
    assert message["Date"] == "Thu, 16 Nov 2023 01:00:00 +0000"
    assert not message.defects
    assert not any(part.defects for part in message.walk())


def test_the_subject_is_that_of_the_rfc() -> None:
    assert subject(REPORT, RECEIVER).replace("\r\n", "") == (
        f"Report Domain: example.org Submitter: mx.example.net Report-ID: <{METADATA.report_id}>"
    )


@pytest.mark.parametrize("domain", ["a/b.example", "a!b.example", "a'b.example", "[192.0.2.1]", "", "-a.example"])
def test_a_domain_that_cannot_be_in_a_file_name_is_refused(domain: str) -> None:
    report = AggregateReport(METADATA, replace(POLICY, domain=domain))
    for make in (file_name, subject):
        with pytest.raises(InvalidNameError):
            make(report, RECEIVER)


def test_a_report_id_that_cannot_be_in_a_file_name_is_refused() -> None:
    with pytest.raises(ValueError, match="letters and digits"):
        file_name(AggregateReport(replace(METADATA, report_id="a@b"), POLICY), RECEIVER)


def test_each_domain_policy_and_period_has_its_own_id() -> None:
    policies = [POLICY, replace(POLICY, domain="example.com"), replace(POLICY, testing=True), replace(POLICY, fo="1")]
    spans = [(BEGIN, END), (BEGIN, END + 1), (BEGIN - 1, END)]
    receivers = [RECEIVER, Domain("mx2.example.net")]
    made = [
        report_id(receiver, policy, *span, source=source)
        for receiver in receivers
        for policy in policies
        for span in spans
        for source in ("a", "b")
    ]
    assert len(set(made)) == len(made)
    assert all(re.fullmatch("[0-9a-f]{32}", identifier) for identifier in made)
    assert report_id(RECEIVER, POLICY, BEGIN, END, source="a") == METADATA.report_id


def test_a_compressed_report_holds_no_time_and_no_name() -> None:
    file = b"".join(compressed([written()]))
    assert file[3] == 0  # RFC 1952, 2.3.1: no FNAME, no FEXTRA
    assert file[4:8] == bytes(4)  # MTIME
    assert gzip.decompress(file) == written()
    assert file == b"".join(compressed([written()[:100], written()[100:]]))


@given(hostile, hostile, hostile, st.lists(st.sampled_from(["a", "a b", 'a"\\b', "x" * 64]), min_size=1, max_size=4))
def test_no_text_of_the_operator_breaks_the_message(name: str, contact: str, org_name: str, boxes: list[str]) -> None:
    report = AggregateReport(replace(METADATA, org_name=org_name, email=contact), POLICY)
    recipients = [Mailbox(box, Domain("example.org")) for box in boxes]
    octets = mail(report, replace(LETTERHEAD, name=name), recipients)
    assert octets.isascii()
    lines = octets.split(b"\r\n")
    assert all(len(line) <= 998 and b"\n" not in line and b"\r" not in line for line in lines)
    header, _ = split_message(octets)
    assert [field.name for field in header] == [
        b"From", b"To", b"Subject", b"Date", b"Message-ID", b"Auto-Submitted", b"MIME-Version", b"Content-Type",
    ]  # fmt: skip
    message = parsed(octets)
    assert [part.get_content_type() for part in message.walk()] == [
        "multipart/mixed",
        "text/plain",
        "application/gzip",
    ]
    (author,) = message["From"].addresses
    assert author.addr_spec == "dmarc@mx.example.net"
    assert len(message["To"].addresses) == len(boxes)


def test_a_name_outside_ascii_is_in_encoded_words() -> None:
    name = "Grüße aus München, " * 5
    header, _ = split_message(mail(letterhead=replace(LETTERHEAD, name=name)))
    (author,) = header.all("From")
    assert str(make_header(decode_header(author.unfolded.decode()))) == f"{name} <dmarc@mx.example.net>"
    assert all(len(line) <= 76 for line in author.raw.split(b"\r\n"))  # RFC 2047, 2


@given(st.lists(st.binary(max_size=200), max_size=10))
def test_base64_is_the_same_in_any_pieces(pieces: list[bytes]) -> None:
    lines = b"".join(base64_lines(pieces))
    assert lines == b"".join(base64_lines([b"".join(pieces)]))
    assert all(len(line) <= 76 for line in lines.split(b"\r\n"))
