# SPDX-License-Identifier: GPL-3.0-or-later
"""Hostile and broken reports: each ends in a reason, within the bounds of time and memory."""

from __future__ import annotations

import gzip
import io
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import time
import zipfile
import zlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from assay.model.name import Domain
from assay.model.printable import marked
from assay.reports.incoming import ReceivedAggregate, ReceivedTls, Unreadable, read, screen
from assay.reports.incoming import confine as confining
from assay.reports.incoming.confine import confined
from assay.reports.incoming.read import MAX_MAIL_OCTETS
from assay.reports.incoming.texts import UnreadableError
from assay.reports.incoming.unpack import MAX_REPORT_OCTETS
from forking import killed, killed_while_writing
from reports.incoming import shapes

TOP = Path(__file__).parents[3]
PATHS = os.environ | {"PYTHONPATH": f"{TOP / 'milter'}:{TOP / 'tests'}"}
GOOGLE = shapes.GOOGLE
RECORD = GOOGLE[GOOGLE.index("  <record>") : GOOGLE.index("</record>") + len("</record>\n")]


def with_records(number: int) -> bytes:
    return GOOGLE.replace(RECORD, RECORD * number).encode()


def reason(octets: bytes) -> str:
    (arrival,) = read(octets)
    assert isinstance(arrival.report, Unreadable), arrival
    return arrival.report.reason


def lying_zip() -> bytes:
    """A zip file whose directory says that its entry has ten octets."""
    packed = bytearray(shapes.zipped(b"<feedback>" + b" " * 100_000))
    for mark, at in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        start = packed.index(mark) + at
        packed[start : start + 4] = (10).to_bytes(4, "little")
    return bytes(packed)


def other_method(method: int) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", method) as archive:
        archive.writestr("report.xml", GOOGLE)
    return packed.getvalue()


def encrypted() -> bytes:
    packed = bytearray(shapes.zipped(GOOGLE.encode()))
    for mark, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        packed[packed.index(mark) + at] |= 1
    return bytes(packed)


def deep_parts(levels: int) -> bytes:
    return b"".join(
        b"Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n" % (number, number) for number in range(levels)
    )


LAUGHS = (
    '<?xml version="1.0"?><!DOCTYPE feedback [<!ENTITY a "ha">'
    + "".join(f'<!ENTITY a{n} "{f"&a{n - 1 if n else str()};" * 10}">' for n in range(9))
    + "]>"
    + GOOGLE.partition("?>")[2].replace("google.com</org", "&a8;</org")
)
EXTERNAL = '<!DOCTYPE feedback [<!ENTITY x SYSTEM "file:///etc/passwd">]>' + GOOGLE.partition("?>")[2].replace(
    "google.com</org", "&x;</org"
)
BROKEN_DOCTYPE = '<?xml version="1.0" bogus?>' + LAUGHS.partition("?>")[2]
NO_DOMAIN = GOOGLE.replace("<domain>example.org</domain>\n    <adkim>", "<domain>two words</domain>\n    <adkim>")


@pytest.mark.parametrize(
    ("octets", "expected"),
    [
        (b"<feedback>" + b"x" * MAX_MAIL_OCTETS, "it is larger than 32 MiB"),
        (gzip.compress(bytes(MAX_REPORT_OCTETS * 8)), "it is larger than 32 MiB when unpacked"),
        (shapes.zipped(b"<" + bytes(MAX_REPORT_OCTETS * 8)), "it is larger than 32 MiB when unpacked"),
        (gzip.compress(gzip.compress(GOOGLE.encode())), "it is packed twice"),
        (shapes.zipped(shapes.zipped(GOOGLE.encode())), "it is packed twice"),
        (gzip.compress(GOOGLE.encode())[:-20], "the gzip file is cut off"),
        (b"\x1f\x8b" + bytes(50), "the gzip file is broken"),
        (gzip.compress(GOOGLE.encode())[:-8] + bytes(8), "the gzip file is broken"),
        (gzip.compress(b"") * 101, "the gzip file has more than 100 members"),
        (gzip.compress(bytes(MAX_REPORT_OCTETS)) * 3, "it is larger than 32 MiB when unpacked"),
        (gzip.compress(GOOGLE.encode()[:500]) + gzip.compress(GOOGLE.encode()[500:])[:-20], "the gzip file is cut off"),
        (b"PK\x03\x04" + bytes(50), "the zip file is broken"),
        (lying_zip(), "the zip file is broken"),
        (shapes.zipped(b"x", "a", *[b"x"] * 10), "the zip file has more than 10 entries"),
        (shapes.zipped(b"x", "a", b"y"), "the zip file has no report"),
        (b"PK\x05\x06" + bytes(18), "the zip file has no report"),
        (other_method(zipfile.ZIP_BZIP2), "the zip file is compressed in an unusual way"),
        (other_method(zipfile.ZIP_LZMA), "the zip file is compressed in an unusual way"),
        (encrypted(), "the zip file is encrypted"),
        (gzip.compress(b"unused"), "it is neither XML nor JSON"),
        (LAUGHS.encode(), "the XML has a DOCTYPE, which no report has"),
        (EXTERNAL.encode(), "the XML has a DOCTYPE, which no report has"),
        (BROKEN_DOCTYPE.encode(), "aggregate report: the XML has a DOCTYPE, which no report has"),
        (b"<a>" * 33, "the XML is nested more than 32 levels deep"),
        (b"<a>" + b"<b/>" * 2_000_000, "the XML has more than 2,000,000 elements"),
        (b"<feedback>" + b"<record/>" * 50_001, "it has more than 50,000 records"),
        (b"<feedback></feedback>", "report: a field is missing or has another form"),
        (
            shapes.tls().replace(b'"failure-details"', b'"failure-details": {"a":1}, "x"'),
            "not a valid TLS report: a field is missing or has another form",
        ),
        (GOOGLE.replace(">12<", ">-5<").replace(">3<", ">1e3<").encode(), "no record that can be used: the count of a"),
        (GOOGLE.replace("192.0.2.10", "host").replace("2001:DB8::25", "x").encode(), "is not an IP address"),
        (NO_DOMAIN.encode(), "the policy domain is not a domain name"),
        (GOOGLE.replace(str(shapes.BEGIN), "yesterday").encode(), "aggregate report: a field is missing or has"),
        (GOOGLE.replace(str(shapes.END), "9" * 18).encode(), "aggregate report: a field is missing or has"),
        (b"{" * 100_000, "not a valid TLS report: the JSON is broken at line 1, column 2"),
        (b'{"a":' * 100_000, "not a valid TLS report: it is nested too deeply"),
        (b"{}", "not a valid TLS report: organization-name is missing"),
        (GOOGLE.replace("feedback>", "fredback>").encode(), "not a valid aggregate report: feedback is missing"),
        (shapes.tls().replace(b'"sts"', b'"x"'), "not a valid TLS report: the policy type is x"),
        (shapes.failure_mail(shapes.FEEDBACK.replace("Source-IP", "X")), "failure report: source_ip is missing"),
        (shapes.tls().replace(b"5326", b"-1"), "the count of a policy is -1"),
        (shapes.tls().replace(b"5326", b"1" + b"0" * 18), "the count of a policy is 1000000000000000000"),
        (shapes.tls().replace(b"5326", b"1.5"), "the count of a policy is 1.5"),
        (shapes.tls().replace(b"5326", b"true"), "the count of a policy is True"),
        (shapes.tls().replace(b"5326", b"9" * 5000), "TLS report: a field is missing or has another form"),
        (shapes.tls().replace(b'"policy-domain": "example.org"', b'"policy-domain": "\\u0000"'), "not a domain name"),
        (shapes.tls().replace(b'time": "2025-11-25T00:00:00Z', b'time": "tomorrow'), "a date of the period is not a"),
        (shapes.failure_mail(shapes.FEEDBACK + "X: " + "x" * 70_000), "fields of the failure report are longer than"),
        (shapes.failure_mail(shapes.FEEDBACK.replace("192.0.2.99", "here")), "no domain or no address"),
        (shapes.failure_mail(shapes.FEEDBACK.replace("Incidents: 2", "Incidents: -2")), "count of the report is -2"),
        (b"Content-Type: text/xml" + b";a=b" * 1_000_000 + b"\r\n\r\n", "a field such as Content-Type is longer"),
        (deep_parts(2) + b"content-Type: x/y\r" + b'\t;"a\r' * 1_000_000, "a field such as Content-Type is longer"),
        (deep_parts(2) + b"Content-Disposition: x\n" + b' ;"a\n' * 1_000_000, "a field such as Content-Type is longer"),
        (deep_parts(20), "the parts of the mail are nested more than 8 levels deep"),
        (deep_parts(2000), "the mail has parts in parts in parts, too deep to read"),
        (b"Content-Type: multipart/mixed; boundary=b\r\n\r\n" + b"--b\r\n\r\nx\r\n" * 500, "more than 100 parts"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_hostile_file_ends_in_a_reason(octets: bytes, expected: str) -> None:
    assert expected in reason(octets)


def test_one_bad_record_does_not_cost_the_others() -> None:
    for bad in (">-3<", ">0<", ">1000000000000000000<", ">many<", "><"):
        (arrival,) = read(GOOGLE.replace(">3<", bad).encode())
        assert isinstance(arrival.report, ReceivedAggregate)
        assert [row.count for row in arrival.report.rows] == [12]
        assert arrival.report.left_out == 1
        assert arrival.report.complaint


def test_what_reporters_break_is_repaired() -> None:
    for octets in (
        GOOGLE.replace("noreply-dmarc-support@google.com", "Support <a@google.com> & others").encode(),
        GOOGLE.replace("answer/", "answer/\udc91").encode("utf-8", "surrogateescape"),
        GOOGLE.replace("<feedback>", '<xs:schema xmlns:xs="x" targetNamespace="y">\n<feedback>').encode(),
        b"\xef\xbb\xbf" + GOOGLE.encode(),
        GOOGLE.replace("UTF-8", "utf-16").encode("utf-16"),
        b"\n\n" + GOOGLE.encode(),
        gzip.compress(GOOGLE.encode()) + b"behind the end",
        gzip.compress(GOOGLE.encode()[:500]) + gzip.compress(GOOGLE.encode()[500:]) + bytes(512),
    ):
        (arrival,) = read(octets)
        assert isinstance(arrival.report, ReceivedAggregate), (arrival, octets[:300])
        assert arrival.report.messages == 15


@pytest.mark.parametrize(
    "date",
    [
        "Mon, 1 Jan 99999999999999999999 00:00:00 +0000",
        "Mon, 1 Jan 2024 00:00:00 +999999999999999999",
        "Mon, 1 Jan 2024 99999999999999999999:00:00 +0000",
        "Mon, 99 Jan 2024 00:00:00 +0000",
        "",
    ],
)
def test_a_failure_report_with_a_date_that_cannot_be(date: str) -> None:
    mail = shapes.failure_mail().replace(b"Tue, 25 Nov 2025 12:20:00 +0000", date.encode())
    (arrival,) = read(mail)
    assert arrival.report.domain == "example.org"


def test_more_reports_than_a_mail_may_have() -> None:
    attachment = b"--b\r\nContent-Type: text/xml\r\n\r\n" + GOOGLE.encode() + b"\r\n"
    found = read(b"Content-Type: multipart/mixed; boundary=b\r\n\r\n" + attachment * 12)
    assert len(found) == 11
    assert found[-1].report == Unreadable("2 reports beyond the first 10 in one mail")


def test_texts_are_cut_and_harmless() -> None:
    octets = GOOGLE.replace("google.com</org", "&#155;31m evil \u202e" + "x" * 100_000 + "</org").encode()
    (arrival,) = read(octets)
    assert isinstance(arrival.report, ReceivedAggregate)
    assert arrival.report.organization.startswith("?31m evil ?xxx")
    assert len(arrival.report.organization) == 255


def test_the_largest_report_is_read_within_the_bounds() -> None:
    (arrival,) = read(gzip.compress(with_records(49_999), 1))
    assert isinstance(arrival.report, ReceivedAggregate)
    assert len(arrival.report.rows) == 50_000


TOO_MUCH = """
from assay.reports.incoming import confine, read
from reports.incoming.test_hostile import with_records

confine.MAX_MEMORY_MIB = 20
for number in (10_000, 15_000, 20_000):
    print(read(with_records(number))[0].report.reason)
"""


def test_what_takes_too_much_memory_is_given_up() -> None:
    """In a new process: this one may have memory that is free."""
    done = subprocess.run([sys.executable, "-c", TOO_MUCH], capture_output=True, text=True, env=PATHS, check=True)
    assert done.stdout == "reading it takes more than 20 MiB of memory\n" * 3


def test_what_takes_too_long_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(confining, "MAX_CPU_SECONDS", 1)
    assert reason(with_records(30_000)) == "reading it takes more than 1 s of CPU"
    monkeypatch.setattr(confining, "MAX_WAIT_SECONDS", 0.3)
    with pytest.raises(UnreadableError, match=r"longer than 0\.3 s"):
        confined(lambda: time.sleep(60) or b"")


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (signal.SIGTERM, (ChildProcessError, "was ended: Terminated")),
        (signal.SIGKILL, (ChildProcessError, "was ended: Killed")),
        (signal.SIGSEGV, (UnreadableError, "MiB of memory")),
    ],
)
@pytest.mark.parametrize("writing", [True, False])
def test_who_is_killed_does_not_make_a_report_unreadable(
    number: int, expected: tuple[type[Exception], str], writing: bool
) -> None:
    """By a person, or by the kernel for want of memory: it can be read another time. Half an answer is none."""

    with pytest.raises(expected[0], match=expected[1]):
        confined(lambda: killed_while_writing(number) if writing else killed(number))


def test_the_child_can_open_nothing() -> None:
    def attempts() -> bytes:
        found = []
        for attempt in (
            lambda: socket.socket(),
            lambda: os.open("/etc/passwd", os.O_RDONLY),
            os.pipe,
            lambda: os.dup(0),
        ):
            try:
                attempt()
                found.append("opened")
            except OSError:
                found.append("refused")
        return " ".join(found).encode()

    assert confined(attempts) == b"refused refused refused refused"


def _children() -> set[str]:
    """The process ids of the children of this process; fixtures may have some."""
    return set(" ".join(path.read_text() for path in Path("/proc/self/task").glob("*/children")).split())


def test_a_bug_is_reported_with_its_traceback_and_no_process_is_left() -> None:
    def bug() -> bytes:
        raise KeyError("a bug")

    before = _children()
    with pytest.raises(RuntimeError, match="KeyError: 'a bug'"):
        confined(bug)
    assert _children() == before
    assert resource.getrlimit(resource.RLIMIT_CPU)[0] == resource.RLIM_INFINITY, "the bounds are the child's"


NOW = shapes.END + 1000


def test_a_report_is_kept_if_it_can_be_true_and_is_about_our_domains() -> None:
    (arrival,) = read(GOOGLE.encode())
    report: Any = arrival.report
    ours = (Domain("example.net"), Domain("example.org"))
    assert screen(report, ours, now=NOW) is report
    assert screen(report, (), now=NOW) is report
    for changed, domains, expected in (
        (report, ours[:1], "it is about example.org, which is none of our domains"),
        (report, (Domain("ample.org"),), "it is about example.org, which is none of our domains"),
        (_changed(report, begin=report.end + 1), ours, "the period ends before it begins"),
        (_changed(report, end=int(NOW) + 90_000), ours, "the period ends in the future, on 2025-11-27"),
        (_changed(report, begin=0), ours, "the period is longer than 40 days"),
        (_counting(report, 10**12), ours, "it counts more than 1,000,000,000,000 in all"),
    ):
        assert screen(changed, domains, now=NOW) == Unreadable(expected)
    (arrival,) = read(shapes.tls())
    assert isinstance(arrival.report, ReceivedTls)
    other = _changed(arrival.report.policies[0], domain="other.example")
    report = _changed(arrival.report, policies=(*arrival.report.policies, other))
    assert screen(report, ours, now=NOW) == Unreadable("it is about other.example, which is none of our domains")
    many = _changed(arrival.report.policies[0], failed=10**12)
    report = _changed(arrival.report, policies=(many,))
    assert screen(report, ours, now=NOW) == Unreadable("it counts more than 1,000,000,000,000 in all")
    (arrival,) = read(shapes.failure_mail())
    report = _changed(arrival.report, incidents=10**12 + 1)
    assert screen(report, (), now=NOW) == Unreadable("it counts more than 1,000,000,000,000 in all")


def _counting(report: ReceivedAggregate, first: int) -> ReceivedAggregate:
    """With another count of the first record."""
    found: ReceivedAggregate = _changed(report, rows=(_changed(report.rows[0], count=first), *report.rows[1:]))
    return found


def _changed(value: Any, **changes: Any) -> Any:
    return type(value)(**{name: getattr(value, name) for name in value.__struct_fields__} | changes)


SEEDS = [
    *shapes.AGGREGATES.values(), shapes.tls(), shapes.failure_mail(), shapes.mail(shapes.zipped(GOOGLE.encode())),
    shapes.gzipped(GOOGLE.encode()), shapes.zipped(GOOGLE.encode()),
]  # fmt: skip
TOKENS = [
    b"<", b">", b"</record>", b"<record>", b"<count>", b"<row/>", b"<reason/>", b"<dkim/>", b"<spf a='b'/>", b"null",
    b"[]", b"{}", b'"', b"&amp;", b"\0", b"\xff", b"-", b"9" * 20, b"\r\n", b"\r\n\r\n", b"--b\r\n", b"<identifiers/>",
    b"<auth_results/>", b"<feedback/>", b"base64", b"; charset=cp866", b"; filename*=koi8-r''%C1",
    b"=?iso-2022-jp?B?GyRCJCI=?=", b"From: ",
]  # fmt: skip


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    octets = draw(st.sampled_from(SEEDS))
    for _ in range(draw(st.integers(1, 6))):
        at = draw(st.integers(0, len(octets)))
        match draw(st.sampled_from(("cut", "drop", "insert", "double", "swap"))):
            case "cut":
                octets = octets[:at]
            case "drop":
                octets = octets[:at] + octets[at + draw(st.integers(1, 60)) :]
            case "insert":
                octets = octets[:at] + draw(st.sampled_from(TOKENS)) + octets[at:]
            case "double":
                length = draw(st.integers(1, 400))
                octets = octets[: at + length] + octets[at:]
            case _:
                tags = draw(st.sampled_from([(b"row", b"record"), (b"domain", b"result"), (b"count", b"dkim")]))
                octets = octets.replace(*tags)
    return octets


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(mutated())
def test_a_changed_report_is_read_or_is_unreadable(octets: bytes) -> None:
    for arrival in read(octets, authserv_id="mx.example.org"):
        report = arrival.report
        if isinstance(report, Unreadable):
            assert report.reason
            assert report.reason == marked(report.reason)
        else:
            assert Domain.parse(report.domain)
            assert len(report.id) == 16
            json.dumps([report.organization, report.contact, report.report_id])


def test_deflate_that_never_ends_is_bounded() -> None:
    packer = zlib.compressobj(9, zlib.DEFLATED, zlib.MAX_WBITS | 16)
    bomb = packer.compress(bytes(MAX_REPORT_OCTETS * 4))
    assert "larger than" in reason(bomb)
