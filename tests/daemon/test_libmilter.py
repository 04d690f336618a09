# SPDX-License-Identifier: GPL-3.0-or-later
"""Changing a field past pymilter: with the layout that we know, and never a crash with another."""

from __future__ import annotations

import ctypes
import struct
from pathlib import Path
from typing import Any

import pytest

from assay import policy
from assay.daemon import connection, libmilter
from assay.daemon.journal import Journal
from assay.log import Level, Log
from assay.model.edits import Change
from running import Daemon
from sending import ROWS, greet, send

OCTETS = b"caf\xe9"


def test_octets_that_are_not_utf_8_arrive(tmp_path: Path) -> None:
    rule = {"name": "r", "when": "true", "tag_subject": "[x] "}
    with Daemon(tmp_path, ROWS, rule=(rule,)) as daemon, daemon.mta() as mta:
        greet(mta)
        outcome = send(mta, b"From: joe@example.org\r\nSubject: " + OCTETS + b"\r\n\r\nx\r\n")
    assert (1, b"Subject", b" [x] " + OCTETS) in outcome.edits


def pointing_to(address: int) -> float:
    """An object whose first member is this pointer."""
    return struct.unpack("@d", struct.pack("@P", address))[0]


ELSEWHERE = ctypes.create_string_buffer(4096)
CONTEXTS = {
    "a null pointer": (lambda: pointing_to(0), "does not begin with a pointer"),
    "a number": (lambda: pointing_to(4711), "does not begin with a pointer"),
    "a pointer to something else": (
        lambda: pointing_to(ctypes.addressof(ELSEWHERE)),
        "does not begin with libmilter's",
    ),
    "no members": (object, "has no room for libmilter's"),
}


@pytest.mark.parametrize(("make", "reason"), CONTEXTS.values(), ids=CONTEXTS)
def test_another_layout_is_seen_and_nothing_is_followed(make: Any, reason: str) -> None:
    with pytest.raises(libmilter.UnsupportedError, match=reason):
        libmilter.change_field(make(), "Subject", 1, OCTETS)


def test_a_library_that_says_otherwise_is_not_called(monkeypatch: pytest.MonkeyPatch) -> None:
    class Library:
        @staticmethod
        def smfi_getpriv(_: int) -> int:
            return 1

    monkeypatch.setattr(libmilter, "_library", Library)
    context = pointing_to(ctypes.addressof(ELSEWHERE))
    ctypes.c_void_p.from_buffer(ELSEWHERE, 64).value = id(context)
    with pytest.raises(libmilter.UnsupportedError, match="does not point back"):
        libmilter.change_field(context, "Subject", 1, OCTETS)


def test_such_a_field_stays_and_the_message_goes_on() -> None:
    lines: list[str] = []
    journal = Journal(Log(lambda _level, text: lines.append(text), Level.WARNING))
    session: Any = None
    on_error = policy.OnError.TEMPFAIL
    service = connection.Service(lambda *_: session, 0, 0, on_error, on_error, journal, connection.SessionCount())
    connection.Connection(service).apply(object(), Change("Subject", 1, OCTETS))
    assert lines == ["a Subject that is not UTF-8 stays unchanged: pymilter's context has no room for libmilter's"]
