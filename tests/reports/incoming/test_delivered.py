# SPDX-License-Identifier: GPL-3.0-or-later
"""Mails that the MTA delivers: which are bounces, and what is kept of the unreadable ones."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from assay.protocol.report.received import Arrival, ReceivedAggregate, digest
from assay.reports.incoming import read, taking
from assay.reports.incoming import set_aside as setting
from assay.reports.incoming.bounce import bounce_token, is_warning
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


@pytest.mark.parametrize(
    ("mail", "warns"),
    [
        (b"Action: delayed\r\n", True),
        (b"Final-Recipient: rfc822; a@b\r\naction:DELIVERED\r\n", True),
        (b"Action: failed\r\n", False),
        (b"Action: delayed\r\n\r\nAction: Failed\r\n", False),
        (b"The action: delayed\r\n", False),
        (b"Nobody of this name.\r\n", False),
        (b"Auto-Submitted: auto-replied (vacation)\r\n\r\nI am away.\r\n", True),
        (b"Auto-Submitted: auto-replied\r\n\r\nAction: failed\r\n", False),
        (b"\r\nAuto-Submitted: auto-replied\r\n", False),
    ],
)
def test_a_notification_that_is_no_failure(mail: bytes, warns: bool) -> None:
    assert is_warning(mail) is warns


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
    """No number gets through the bounds of today's parser that it would not take."""
    (arrival,) = read(shapes.GOOGLE.encode())
    assert isinstance(arrival.report, ReceivedAggregate)
    rows = tuple(replace(row, count=2**70) for row in arrival.report.rows)
    huge = Arrival(arrival.sender, replace(arrival.report, rows=rows))
    monkeypatch.setattr(taking, "read", lambda octets, authserv_id: (huge, huge))
    (taken,) = Taker((), "", print).take(database, b"mail", now=shapes.END)
    assert taken.text.startswith("unreadable: it cannot be stored: ")
    with database.reading() as connection:
        assert len(received.unreadable(connection)) == 1


def test_who_parses_has_nothing_that_its_parent_has_open() -> None:
    assert what_it_has_open(confined) == b"closed"
