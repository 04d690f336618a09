# SPDX-License-Identifier: GPL-3.0-or-later
"""Mails that the MTA delivers: which are bounces, and what is kept of the unreadable ones."""

from __future__ import annotations

import base64
import contextlib
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from assay.model.name import ReversePath
from assay.protocol.report.received import Arrival, ReceivedAggregate, digest
from assay.reports.incoming import read, taking
from assay.reports.incoming import set_aside as setting
from assay.reports.incoming.bounce import MAX_DELIVERIES, MAX_NOTIFICATION_OCTETS, bounce_token, why_no_bounce
from assay.reports.incoming.confine import confined
from assay.reports.incoming.set_aside import set_aside
from assay.reports.incoming.taking import Taker
from assay.store import received
from assay.store.database import Database, open_database
from assay.store.received import ReportOutcome
from forking import what_it_has_open
from reports.incoming import shapes

OURS = "bounces@example.org"


@pytest.mark.parametrize(
    ("recipient", "token"),
    [
        ("bounces+3f0c@example.org", "3f0c"),
        ("Bounces+3F0C@EXAMPLE.org", "3f0c"),
        ("bounces@example.org", ""),
        ("bounces+" + "a" * 1000 + "@example.org", "a" * 64),
        ("bounces+\0\x1b[31m\udcff@example.org", "??[31m?"),
        ("dmarc@example.org", None),
        ("bounces-3f0c@example.org", None),
        ("bounces+3f0c@other.example", None),
        ("bounces+3f0c", None),
        ("", None),
    ],
)
def test_the_token_in_a_recipient(recipient: str, token: str | None) -> None:
    assert bounce_token(recipient, OURS) == token
    assert bounce_token(recipient, "") is None


NULL = ReversePath.parse("")
FAILED = shapes.notification()
NONE, NOT_FAILED = "it is not a delivery status notification", "it does not say that the delivery failed"
ACTION = b"Action: failed\r\n"


def changed(*pairs: tuple[bytes, bytes]) -> bytes:
    """The notification with other octets."""
    mail = FAILED
    for old, new in pairs:
        assert old in mail, old
        mail = mail.replace(old, new)
    return mail


def encoded(encoding: bytes, encode: Callable[[bytes], bytes]) -> bytes:
    """The notification with its second part in another encoding."""
    status = FAILED[
        FAILED.index(b"Reporting-MTA") : FAILED.index(b"\r\n--4Q.1764/mx.example.com\r\nContent-Description: Un")
    ]
    type_ = b"Content-Type: message/delivery-status\r\n"
    return changed((status, encode(status)), (type_, type_ + b"Content-Transfer-Encoding: " + encoding + b"\r\n"))


@pytest.mark.parametrize(
    "mail",
    [
        FAILED,
        FAILED.replace(b"\r\n", b"\n"),
        shapes.notification("Failed"),
        shapes.notification("failed (no such user)"),
        shapes.notification("(5.1.1)\n failed"),
        shapes.notification("delayed\n\n \nFinal-Recipient: rfc822; e@example.com\naction: FAILED"),
        changed((b"X-Postfix-Queue-ID: 4Q\r\n\r\n", b"\r\n\r\n\r\n")),
        changed((b"X-Postfix-Queue-ID: 4Q\r\n\r\n", b"")),
        changed((b"report-type=delivery-status", b'Report-Type="Delivery-Status"')),
        changed((b"multipart/report", b"Multipart/Report"), (b"message/delivery-status", b"Message/Delivery-Status")),
        changed((b"message/delivery-status", b"message/global-delivery-status")),
        changed((b"This is a MIME-encapsulated message.\r\n", b"")),
        changed((b"4Q.1764/mx.example.com\r\n", b"4Q.1764/mx.example.com \t\r\n")),
        changed((b' boundary="4Q.1764/mx.example.com"', b" boundary=b"), (b"--4Q.1764/mx.example.com", b"--b")),
        encoded(b"base64", base64.encodebytes),
        encoded(b"Quoted-Printable", lambda status: status.replace(b"failed", b"f=61iled=\r\n")),
        FAILED + b"x" * 300_000,
    ],
)
def test_a_bounce(mail: bytes) -> None:
    assert why_no_bounce(NULL, mail) == ""
    assert "a reply" in why_no_bounce(ReversePath.parse("ann@example.com"), mail)
    assert "a reply" in why_no_bounce(ReversePath.parse("what is this"), mail)


@pytest.mark.parametrize(
    ("mail", "why"),
    [
        (b"", NONE),
        (b"Subject: Re: Report domain: example.org\r\n\r\nThank you!\r\n", NONE),
        (b"Subject: away\r\nAuto-Submitted: auto-replied (vacation)\r\n\r\nI am away.\r\n" + ACTION, NONE),
        (b"Subject: failure notice\r\n\r\n" + ACTION, NONE),
        *((shapes.notification(action), NOT_FAILED) for action in ("delayed", "delivered", "relayed", "expanded")),
        *((shapes.notification(action), NOT_FAILED) for action in ("", "(failed)", "failedly", "not failed")),
        (changed((ACTION, b"")), NOT_FAILED),
        (changed((ACTION, b"X-Action: failed\r\n")), NOT_FAILED),
        (changed((ACTION, b"Diagnostic-Code: x-unix;\r\n Action: failed\r\n")), NOT_FAILED),
        # A report of ours, or any other mail, that is quoted in a notification, is not what it says.
        (shapes.notification("delayed", inner="Content-Type: message/delivery-status\n\nX: y"), NOT_FAILED),
        (shapes.notification("delayed", inner="Content-Type: text/plain\n\nAction: failed"), NOT_FAILED),
        (changed((b"report-type=delivery-status", b"report-type=disposition-notification")), NONE),
        (changed((b"report-type=delivery-status", b"x=y")), NONE),
        (changed((b"report-type=delivery-status", b'x="; report-type=delivery-status"')), NONE),
        (changed((b"multipart/report", b"multipart/mixed")), NONE),
        (changed((b"multipart/report", b"multipart/reports")), NONE),
        (changed((b"multipart/report", b"multipart")), NONE),
        (changed((b"message/delivery-status", b"text/plain")), NONE),
        (changed((b"message/delivery-status", b"message/delivery-status\r\nContent-Type: text/plain")), NONE),
        (changed((b"MIME-Version: 1.0", b"Content-Type: text/plain")), NONE),
        (changed((b" boundary=", b" boundaries=")), NONE),
        (changed((b'"4Q.1764/mx.example.com"', b'""')), NONE),
        (changed((b"This is a MIME-encapsulated", b"--4Q.1764/mx.example.com\r\n\r\n" * 10)), NONE),
        (changed((b"This is a MIME-encapsulated", b"x" * MAX_NOTIFICATION_OCTETS)), NONE),
        (shapes.notification("delayed" + "\n\nX: y" * MAX_DELIVERIES + "\n\nAction: failed"), NOT_FAILED),
        (encoded(b"base64", lambda status: b"x"), NOT_FAILED),
    ],
    ids=range(32),
)
def test_a_mail_that_is_no_bounce(mail: bytes, why: str) -> None:
    assert why_no_bounce(NULL, mail) == why


PIECES = [
    b"\r\n", b"\n", b"\r\n\r\n", b"\0", b"\xff", b'"', b"(", b")", b"\\", b";", b"=", b"boundary*=a\0b''x;", b"--b",
    b"--4Q.1764/mx.example.com\r\n", b"Content-Type: message/delivery-status\r\n",
    b"Content-Type: multipart/report\r\n", b"Content-Transfer-Encoding: base64\r\n", b" ", ACTION,
    b"Content-Transfer-Encoding: quoted-printable\r\n",
]  # fmt: skip


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, len(FAILED)), st.integers(0, 50), st.sampled_from(PIECES)), max_size=5))
def test_any_mail_is_a_bounce_or_not(edits: list[tuple[int, int, bytes]]) -> None:
    mail = FAILED
    for at, gone, piece in edits:
        mail = mail[:at] + piece + mail[at + gone :]
    assert why_no_bounce(NULL, mail) in ("", NONE, NOT_FAILED)


@pytest.mark.parametrize(
    "piece", [b"\r\n", b" \r\n", b"--4Q.1764/mx.example.com\r\n", b"Action: (\r\n", b"(", b"()", b";a=b", b"a:\r\n"]
)
@pytest.mark.parametrize("at", [b"--4Q", b"Reporting-MTA", b"failed", b"report-type"])
def test_a_long_mail_is_looked_at_in_little_time(piece: bytes, at: bytes) -> None:
    begun = time.process_time()
    why_no_bounce(NULL, changed((at, piece * (32 * 1024 * 1024 // 4 // len(piece)) + at)))
    assert time.process_time() - begun < 2.0  # it takes a tenth of a second; quadratic time takes minutes


def kept(folder: Path) -> list[bytes]:
    return [path.read_bytes() for path in sorted(folder.glob("*.eml"), key=lambda path: path.stat().st_mtime_ns)]


def put(folder: Path, mail: bytes, second: int) -> None:
    os.utime(set_aside(folder, mail), (second, second))


@pytest.mark.parametrize(("bound", "value"), [("MAX_FILES", 3), ("MAX_OCTETS", 20)])
def test_the_newest_mails_are_kept_and_files_of_others_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bound: str, value: int
) -> None:
    monkeypatch.setattr(setting, bound, value)
    (tmp_path / "notes").write_bytes(b"x" * 100)
    killed = tmp_path / f".{'0' * 32}.eml.17"  # in the middle of it
    killed.write_bytes(b"mail")
    os.utime(killed, (0, 0))
    for number in range(5):
        for _ in range(2):
            put(tmp_path, b"mail %d" % number, number)
    assert kept(tmp_path) == [b"mail 2", b"mail 3", b"mail 4"]
    assert (tmp_path / f"{digest(b'mail 4').hex()}.eml").exists()
    assert sorted(path.suffix for path in tmp_path.iterdir()) == ["", ".eml", ".eml", ".eml"]


def test_a_directory_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="File exists"):
        set_aside(tmp_path / "file", b"mail")


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    with contextlib.closing(open_database(str(tmp_path / "store.sqlite"))) as made:
        yield made


def test_a_bug_in_reading_is_told_and_the_mail_is_kept(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(octets: bytes, authserv_id: str) -> None:
        raise RuntimeError("KeyError: 'x'")

    monkeypatch.setattr(taking, "read", fail)
    bugs: list[str] = []
    (taken,) = Taker((), "", bugs.append).take(database, b"mail", now=1.0)
    assert (taken.outcome, bugs) == (ReportOutcome.UNREADABLE, ["KeyError: 'x'"])
    with database.reading() as connection:
        (entry,) = received.unreadable(connection)
        assert received.unreadable_content(connection, entry.id) == b"mail"


def test_what_the_database_does_not_take_is_kept_as_unreadable(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No number gets through the bounds of today's parser and screen that it would not take."""
    (arrival,) = read(shapes.GOOGLE.encode())
    assert isinstance(arrival.report, ReceivedAggregate)
    rows = tuple(replace(row, count=2**70) for row in arrival.report.rows)
    huge = Arrival(arrival.sender, replace(arrival.report, rows=rows))
    monkeypatch.setattr(taking, "read", lambda octets, authserv_id: (huge, huge))
    monkeypatch.setattr(taking, "screen", lambda report, ours, now: report)
    (taken,) = Taker((), "", print).take(database, b"mail", now=shapes.END)
    assert taken.text.startswith("unreadable: it cannot be stored: ")
    with database.reading() as connection:
        assert len(received.unreadable(connection)) == 1


def test_who_parses_has_nothing_that_its_parent_has_open() -> None:
    assert what_it_has_open(confined) == b"closed"
