# SPDX-License-Identifier: GPL-3.0-or-later
"""Reports in the shapes of real reporters are read, and say what was written."""

from __future__ import annotations

import json
import socket
import sys
from base64 import b64encode
from collections.abc import Iterator
from typing import Any

import pytest

from assay.reports.incoming import (
    AggregateRow,
    AppliedPolicy,
    PolicyReason,
    ReceivedAggregate,
    ReceivedFailure,
    ReceivedTls,
    ReportedSignature,
    ReportedSpf,
    TlsFailure,
    Unreadable,
    read,
)
from assay.reports.incoming.read import arrivals
from reports.incoming import shapes


def only(octets: bytes, authserv_id: str = "") -> Any:
    (arrival,) = read(octets, authserv_id=authserv_id)
    return arrival.report


@pytest.mark.parametrize("name", shapes.AGGREGATES)
@pytest.mark.parametrize("pack", [bytes, shapes.gzipped, shapes.zipped, lambda octets: shapes.mail(octets, "text/xml")])
def test_each_shape_is_read_however_it_is_packed(name: str, pack: Any) -> None:
    report = only(pack(shapes.AGGREGATES[name]))
    assert isinstance(report, ReceivedAggregate), report
    assert report.domain == "example.org"
    assert report.begin == shapes.BEGIN
    assert report.end in (shapes.END, shapes.END + 1)
    assert not report.left_out
    assert report.rows


def test_what_google_says() -> None:
    report = only(shapes.mail(shapes.zipped(shapes.GOOGLE.encode()), "application/zip"))
    assert (report.organization, report.contact) == ("google.com", "noreply-dmarc-support@google.com")
    assert report.report_id == "1234567890123456789"
    assert report.policy == AppliedPolicy("reject", "reject", "reject", "r", "r", "100")
    assert report.messages == 15
    assert report.rows == (
        AggregateRow(
            "192.0.2.10", 12, "none", True, False, "example.org", "lists.example",
            dkim=(ReportedSignature("example.org", "s1", "pass"),),
            spf=(ReportedSpf("lists.example", "mfrom", "pass"),),
        ),
        AggregateRow(
            "2001:db8::25", 3, "reject", False, False, "mail.example.org", "spoof.example",
            reasons=(PolicyReason("local_policy", "arc=fail"),),
            spf=(ReportedSpf("spoof.example", "mfrom", "softfail"),),
        ),
    )  # fmt: skip


def test_what_only_rfc_9990_has() -> None:
    report = only(shapes.AGGREGATES["mail-dmarc"])
    assert report.policy == AppliedPolicy("reject", "quarantine", "reject", "r", "r", "", "1", "y", "treewalk")
    assert report.generator == "Mail::DMARC 1.20260301"
    assert report.errors == ("the reporter lost an hour",)
    assert report.rows[0].reasons == (PolicyReason("policy_test_mode"), PolicyReason("mailing_list", "known list"))


def test_names_and_words_have_one_form() -> None:
    assert only(shapes.AGGREGATES["opendmarc"]).organization == "Café Host"
    assert only(shapes.AGGREGATES["rspamd"]).rows[0].author_domain == "xn--bcher-kva.example.org"
    assert only(shapes.AGGREGATES["mailru"]).rows[0].dkim_aligned


def test_a_tls_report() -> None:
    for octets in (
        shapes.tls(),
        shapes.gzipped(shapes.tls()),
        shapes.mail(shapes.gzipped(shapes.tls()), "application/tlsrpt+gzip"),
        shapes.mail(shapes.tls(), "application/tlsrpt+json"),
    ):
        report = only(octets)
        assert isinstance(report, ReceivedTls)
        assert (report.organization, report.domain) == ("Google Inc.", "example.org")
        assert (report.begin, report.end) == (shapes.BEGIN, shapes.END)
        (policy,) = report.policies
        assert (policy.type, policy.successful, policy.failed) == ("sts", 5326, 303)
        assert policy.failures[1] == TlsFailure(
            "starttls-not-supported", 203, "192.0.2.200", "203.0.113.56", "mx2.example.org"
        )


@pytest.mark.parametrize("sample_type", ["message/rfc822", "text/rfc822-headers"])
def test_a_failure_report(sample_type: str) -> None:
    report = only(shapes.failure_mail(sample_type=sample_type))
    assert report == ReceivedFailure(
        organization="reporter.example",
        contact="noreply@reporter.example",
        report_id="<failure-1@reporter.example>",
        domain="example.org",
        begin=1_764_072_855,
        end=1_764_072_855,
        source="192.0.2.99",
        failures=("dmarc",),
        delivery="reject",
        results="mx.reporter.example; dmarc=fail header.from=example.org",
        dkim_domain="spoof.example",
        dkim_selector="s9",
        author_domain="example.org",
        sender_domain="spoof.example",
        message_id="<spoof-1@spoof.example>",
        incidents=2,
    )


def test_a_failure_report_without_domain_is_about_the_author_domain() -> None:
    feedback = shapes.FEEDBACK.replace("Reported-Domain: example.org\n", "")
    assert only(shapes.failure_mail(feedback)).domain == "example.org"
    assert "not a valid failure report" in only(shapes.failure_mail(feedback, "Subject: none\n\n")).reason


def test_a_failure_report_in_base64() -> None:
    encoded = "Content-Transfer-Encoding: base64\n\n" + b64encode(shapes.FEEDBACK.encode()).decode()
    octets = shapes.failure_mail("FEEDBACK").replace(b"\r\n\r\nFEEDBACK", b"\r\n" + encoded.encode())
    assert only(octets).source == "192.0.2.99"


def test_the_origin_is_what_we_wrote_about_it_ourselves() -> None:
    ours = "mx.example.org; spf=fail; dmarc=pass header.from=reporter.example"
    for results, dmarc in ((ours, "pass"), (ours.replace("mx.", "mx2."), ""), ("", "")):
        octets = shapes.mail(shapes.GOOGLE.encode(), "text/xml", results=results)
        (arrival,) = read(octets, authserv_id="MX.example.org")
        assert (arrival.sender.author, arrival.sender.dmarc) == ("reporter.example", dmarc)
    (arrival,) = read(shapes.mail(shapes.GOOGLE.encode(), "text/xml", results=ours))
    assert arrival.sender.dmarc == ""


def test_a_forwarded_report_and_several_in_a_mail() -> None:
    inner = shapes.mail(shapes.gzipped(shapes.GOOGLE.encode()))
    outer = (
        b'From: ann@example.org\r\nContent-Type: multipart/mixed; boundary="o"\r\n\r\n--o\r\n\r\nsee below\r\n'
        b"--o\r\nContent-Type: message/rfc822\r\n\r\n" + inner + b"\r\n"
        b"--o\r\nContent-Type: message/rfc822\r\n\r\n" + inner + b"\r\n--o--\r\n"
    )
    assert [type(arrival.report) for arrival in read(outer)] == [ReceivedAggregate] * 2


def test_mail_without_a_report() -> None:
    for octets in (b"", b"hello", b"From: a\r\n\r\n<feedback>", shapes.mail(b"a picture", "image/png", "p.png")):
        assert only(octets) == Unreadable("there is no report in it")


def test_two_reports_are_the_same_only_if_their_names_are() -> None:
    google = shapes.GOOGLE
    same = only(google.replace("<count>12<", "<count>13<").encode())
    others = [
        only(google.replace(old, new).encode())
        for old, new in (
            ("<report_id>1", "<report_id>2"),
            ("<org_name>google.com", "<org_name>other.example"),
            (f"<begin>{shapes.BEGIN}", f"<begin>{shapes.BEGIN - 1}"),
            ("<domain>example.org</domain>\n    <adkim>", "<domain>example.net</domain>\n    <adkim>"),
        )
    ]
    assert same.id == only(google.encode()).id
    assert len({report.id for report in (same, *others)}) == 5


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Any use of a socket, a resolver, a program or a file is noted, also where something catches the exception."""
    seen: list[str] = []

    class NoSocket(socket.socket):
        def __new__(cls, *_: Any, **__: Any) -> Any:
            seen.append("socket")
            raise AssertionError("a socket")

    def refuse(*arguments: Any, **_: Any) -> Any:
        seen.append(str(arguments))
        raise AssertionError("a lookup")

    monkeypatch.setattr(socket, "socket", NoSocket)
    for name in ("getaddrinfo", "gethostbyname", "gethostbyaddr", "create_connection"):
        monkeypatch.setattr(socket, name, refuse)
    watching = True

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if watching and event.startswith(("socket.", "subprocess.", "os.exec", "os.posix_spawn", "open")):
            seen.append(f"{event} {arguments}")

    sys.addaudithook(hook)
    yield seen
    watching = False


@pytest.mark.parametrize(
    "octets", [*shapes.AGGREGATES.values(), shapes.tls(), shapes.failure_mail(), b"<feedback>"], ids=lambda o: o[:9]
)
def test_nothing_is_looked_up_and_no_file_is_opened(octets: bytes, no_network: list[str]) -> None:
    assert list(arrivals(octets, "")), "read in this process, without the bounds of another"
    assert no_network == []


def test_numbers_as_text_in_a_tls_report() -> None:
    report = json.loads(shapes.tls())
    report["policies"][0]["summary"]["total-successful-session-count"] = "5326"
    assert only(json.dumps(report).encode()).policies[0].successful == 5326


def test_a_field_below_ours_is_not_ours() -> None:
    """Ours is the topmost, also if it has no result of DMARC."""
    ours = b"Authentication-Results: mx.example.org; spf=pass\r\n"
    forged = b"Authentication-Results: mx.example.org; dmarc=pass\r\n"
    mail = shapes.mail(shapes.GOOGLE.encode())
    for fields, expected in ((ours + forged, ""), (forged + ours, "pass"), (b"X-A: b\r\n" + ours + forged, "")):
        (arrival,) = read(fields + mail, authserv_id="mx.example.org")
        assert arrival.sender.dmarc == expected
