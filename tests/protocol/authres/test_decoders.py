# SPDX-License-Identifier: GPL-3.0-or-later
"""What a program that decodes encoded-words (RFC 2047) takes for our name is taken for a claim, whatever was meant."""

from __future__ import annotations

import base64
import codecs
import email
import email.policy
import random
import re
from contextlib import suppress
from email.header import decode_header, make_header

import pytest

from assay.protocol import authres

OURS = "mx.example.org"

#: Charsets of each kind that Python decodes, ASCII's superset or not, and one that nobody knows.
CHARSETS = [
    "utf-8",
    "us-ascii",
    "iso-8859-1",
    "utf-7",
    "utf-16",
    "utf-16le",
    "utf-32be",
    "cp037",
    "iso-2022-jp",
    "hz",
    "punycode",
    "unicode_escape",
    "x-unknown",
    "utf-8*en",
    "",
]


def encoded(text: str, charset: str, kind: str) -> str:
    """An encoded-word of a text, as somebody writes it who wants it read and not liked."""
    try:
        octets = codecs.lookup(charset.partition("*")[0]).encode(text)[0]
    except LookupError:
        octets = text.encode()
    if kind in "bB":
        return f"=?{charset}?{kind}?{base64.b64encode(octets).decode()}?="
    return f"=?{charset}?{kind}?{''.join(f'={octet:02X}' for octet in octets)}?="


@pytest.mark.parametrize("charset", CHARSETS)
@pytest.mark.parametrize("kind", "qQbB")
@pytest.mark.parametrize(
    "form",
    [
        pytest.param("{}1; dmarc=pass", id="a version without white space"),
        pytest.param("{}; dmarc=pass", id="a semicolon"),
        pytest.param("x{} {}; dmarc=pass", id="behind a word"),
        pytest.param("(c) {}x; dmarc=pass", id="behind a comment"),
        pytest.param('"{}"; dmarc=pass', id="in quotes"),
        pytest.param("(; {}) x; dmarc=pass", id="in a comment with a semicolon"),
        pytest.param("\r\n\t{}\r\n {}; dmarc=pass", id="folded"),
        pytest.param("a=?{}?=; dmarc=pass", id="nested"),
    ],
)
def test_an_encoded_name_is_a_claim(charset: str, kind: str, form: str) -> None:
    value = form.replace("{}", encoded(OURS, charset, kind), 1).replace("{}", encoded(" x", charset, kind))
    assert authres.claims(f" {value}".encode(), {OURS})


@pytest.mark.parametrize(
    "value",
    [
        "=?utf-8?q?mx.example.org?=1; dmarc=pass",
        "=?utf-8?q?mx.example.org?= =?utf-8?q??= ; dmarc=pass",
        "=?utf-8 ?q?mx.example.org?=; dmarc=pass",
        "=?utf-8?q?mx.exam?ple.org?=; dmarc=pass",
        "mx.=?utf-8?q?example?=.org; dmarc=pass",
        "mx.example.org=?utf-8?q?_?=x; dmarc=pass",
        "=\r\n ?utf-8?q?mx.example.org?=; dmarc=pass",
        "=?utf-8?q?mx.example.org; dmarc=pass",
        "\x1b(Bmx.example.org; dmarc=pass",
    ],
)
def test_what_lenient_decoders_read_is_a_claim(value: str) -> None:
    assert authres.claims(value.encode(), {OURS})


@pytest.mark.parametrize(
    "value",
    [
        "mx.other.example; dkim=pass header.i==?utf-8?q?mx.example.org?=@other.example",
        'mx.other.example 1; spf=fail reason="=?utf-8?q?mx.example.org?="',
    ],
)
def test_an_encoded_word_after_another_name_is_no_claim(value: str) -> None:
    assert not authres.claims(value.encode(), {OURS})


@pytest.mark.parametrize(
    "value",
    [
        "pass receiver==?utf-8?q?mx.example.org?=x",
        "pass receiver=(=?utf-8?q?=29?=) mx.example.org",
        f"pass receiver={encoded(OURS, 'utf-16', 'b')}",
        f"pass ({encoded(OURS, 'cp037', 'q')}: all is well)",
        "pass receiver=\x1b(Bmx.example.org",
    ],
)
def test_an_encoded_receiver_is_a_claim(value: str) -> None:
    assert authres.forged_received_spf(value.encode(), {OURS})


_PIECES = [
    OURS,
    "mx.exam",
    "ple.org",
    "example",
    "x",
    "1",
    " ",
    "\r\n ",
    ";",
    "; dmarc=pass",
    "(",
    ")",
    '"',
    "\\",
    "=?",
    "?=",
    "?q?",
    "?b?",
    "=?utf-8?q?",
    "=?utf-8?b?bXguZXhhbXBsZS5vcmc=?=",
    "=?utf-7?q?mx+AC4-example.org?=",
    "=?cp037?b?lKdLhaeBlJeTaEuWmYc=?=",
    "=20",
    "=3B",
    "_",
    "\x0c",
    "\x85",
]
_COMMENT = re.compile(r"\([^()]*\)")


def readings(value: str) -> set[str]:
    """The name in front as Python's e-mail package may give it to a program that looks no closer."""
    texts = {value}
    for policy in (email.policy.default, email.policy.compat32):
        message = email.message_from_string(f"Authentication-Results:{value}\n\n", policy=policy)
        texts.add(str(message["Authentication-Results"]))
    for text in list(texts):
        pieces = decode_header(text)
        with suppress(LookupError, UnicodeError, email.errors.HeaderParseError):
            texts.add(str(make_header(pieces)))
        texts.add("".join(one if isinstance(one, str) else one.decode("latin-1") for one, _ in pieces))
    return {re.split(r"[\s;]", _COMMENT.sub("", text).strip() + ";")[0].strip('"').lower() for text in texts}


def test_whatever_python_reads_as_our_name_is_a_claim() -> None:
    dice = random.Random(2047)  # noqa: S311 - the same each time
    read = 0
    for _ in range(20_000):
        value = "".join(dice.choice(_PIECES) for _ in range(dice.randrange(1, 9)))
        try:
            names = readings(value.replace("\r\n", "\n"))
        except (email.errors.MessageError, IndexError, ValueError, AttributeError):  # faults of that package
            continue
        if OURS in names:
            read += 1
            assert authres.claims(value.encode(), {OURS}), value
    assert read > 100
