# SPDX-License-Identifier: GPL-3.0-or-later
"""Mails that the MTA delivers: which are bounces, and what is kept of the unreadable ones."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from assay.protocol.report.received import digest
from assay.reports.incoming import set_aside as setting
from assay.reports.incoming.bounce import bounce_token, is_warning
from assay.reports.incoming.confine import confined
from assay.reports.incoming.set_aside import set_aside

OURS = "bounces@example.org"


@pytest.mark.parametrize(
    ("recipient", "token"),
    [
        ("bounces+3f0c@example.org", "3f0c"),
        ("Bounces+3F0C@EXAMPLE.org", "3f0c"),
        ("bounces@example.org", ""),
        ("bounces+" + "a" * 1000 + "@example.org", "a" * 64),
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


def test_who_parses_has_nothing_that_its_parent_has_open() -> None:
    ours, theirs = socket.socketpair()

    def look() -> bytes:
        try:
            os.fstat(ours.fileno())
        except OSError:
            return b"closed"
        return b"open"

    with ours, theirs:
        assert confined(look) == b"closed"
