# SPDX-License-Identifier: GPL-3.0-or-later
"""A saved message comes apart as it was on the wire."""

from __future__ import annotations

import pytest

from assay.model.message import HeaderField, split_message

A, B = HeaderField(b"A", b" 1"), HeaderField(b"B", b" 2\r\n 3")


@pytest.mark.parametrize(
    ("message", "fields", "body"),
    [
        pytest.param(b"A: 1\r\nB: 2\r\n 3\r\n\r\nx\r\n", (A, B), b"x\r\n", id="CRLF"),
        pytest.param(b"A: 1\nB: 2\n 3\n\nx\n", (A, B), b"x\r\n", id="LF is read as CRLF in a Unix file"),
        pytest.param(b"A: 1\n\nx\r\ny\n", (A,), b"x\r\ny\r\n", id="CRLF stays CRLF in a Unix file"),
        pytest.param(b"A: 1\r\n\r\nx\ny\rz\r\n", (A,), b"x\ny\rz\r\n", id="bare CR and LF are data on the wire"),
        pytest.param(b"From a b\nA: 1\r\n\r\nx\ny", (A,), b"x\ny", id="an mbox line does not tell the line ends"),
        pytest.param(
            b"From : a\r\n\r\nx", (HeaderField(b"From ", b" a"),), b"x", id="a From field with a space is no mbox line"
        ),
        pytest.param(b"From \nA: 1\r\n\r\n", (A,), b"", id="an mbox line with nothing behind it"),
        pytest.param(
            b"A: 1\r\nno field\r\nx", (A,), b"no field\r\nx", id="the first line that is no field begins the body"
        ),
        pytest.param(b"A: 1\r\nB: 2\r\n 3", (A, B), b"", id="header only"),
        pytest.param(b"\r\nA: 1\r\n", (), b"A: 1\r\n", id="body only"),
        pytest.param(b"", (), b"", id="nothing"),
    ],
)
def test_split_message(message: bytes, fields: tuple[HeaderField, ...], body: bytes) -> None:
    header, rest = split_message(message)
    assert header.fields == fields
    assert rest == body
