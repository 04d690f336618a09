# SPDX-License-Identifier: GPL-3.0-or-later
"""Second opinions: whatever a stranger sends, a foreign library's fault is an opinion and nothing is raised."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from assay.protocol import arc, authres
from assay.protocol.arc import second as second_arc
from assay.protocol.authres.second import second_reading
from assay.protocol.dkim import second
from signing import KEY_NAME, MESSAGE, record, rsa_key, sign_ed25519, sign_rsa

PACKAGE = Path(second.__file__).parents[2]
KEY = record(rsa_key()).encode()
SET = (
    b"ARC-Seal: i=1; a=rsa-sha256; cv=none; d=example.org; s=sel; b=AAAA\r\n"
    b"ARC-Message-Signature: i=1; a=rsa-sha256; d=example.org; s=sel; h=from; bh=AAAA; b=AAAA\r\n"
    b"ARC-Authentication-Results: i=1; example.org; none\r\n"
)
PIECES = (
    b"DKIM-Signature:",
    b" v=1; a=rsa-sha256; d=example.org; s=sel; h=from; bh=; b=\r\n",
    b"; l=9999999999999999999999",
    b"; x=1",
    b"i=99999999999999999999; ",
    b"\r\n",
    b"\n",
    b" ",
    b"\xff",
    b":",
    b";",
    b"=",
    b"From: a@b\r\n",
    SET,
    MESSAGE,
    sign_rsa(),
)

messages = st.lists(st.sampled_from(PIECES) | st.binary(max_size=30), max_size=12).map(b"".join)
texts = st.none() | st.binary(max_size=60) | st.sampled_from([KEY, b"p=", b"k=rsa; p=AAAA", b"k=ed25519; p=AAAA"])


def key_at(name: str) -> bytes | None:
    return KEY if name == KEY_NAME else None


def no_answer(_: str) -> bytes | None:
    raise second.NoAnswerError


@settings(database=None, deadline=None)
@given(messages, st.integers(0, 3), texts)
def test_nothing_is_raised_through(message: bytes, position: int, text: bytes | None) -> None:
    opinion = second.second_opinion(message, position, lambda _: text)
    assert opinion.value in (True, False, None)
    assert len(opinion.reason) <= second.MAX_REASON + 3
    assert second_arc.second_opinion(message, lambda _: text).value in (*arc.Result, None)


@settings(database=None, deadline=None)
@given(
    st.text(max_size=80)
    | st.lists(
        st.sampled_from(["a.example", ";", " ", "spf=pass", "(", ")", '"', "\\", "smtp.helo=x", "1", "none"])
    ).map("".join)
)
def test_reading_raises_nothing(value: str) -> None:
    assert isinstance(second_reading(value), authres.AuthenticationResults | authres.FieldFault)


@pytest.mark.parametrize("value", ["(" * 100_000, "a; spf=pass " + "(" * 100_000, "a" * 1_000_000])
def test_reading_what_is_made_to_exhaust(value: str) -> None:
    assert isinstance(second_reading(value), authres.AuthenticationResults | authres.FieldFault)


@pytest.mark.parametrize(
    ("message", "find", "value"),
    [
        pytest.param(sign_rsa(), key_at, True, id="good"),
        pytest.param(sign_rsa() + b"more", key_at, False, id="changed"),
        pytest.param(sign_rsa(), lambda _: None, False, id="without a key"),
        pytest.param(sign_rsa(), no_answer, None, id="without an answer"),
        pytest.param(sign_ed25519(), lambda _: b"k=ed25519; p=" + b"A" * 43 + b"=", None, id="without a library"),
        pytest.param(b" folded\r\n" + sign_rsa(), key_at, None, id="not a message to dkimpy"),
    ],
)
def test_a_signature(message: bytes, find: second.FindText, value: bool | None) -> None:
    opinion = second.second_opinion(message, 0, find)
    assert opinion.value is value
    assert opinion.reason or value is True


def test_the_signature_is_found_by_its_position() -> None:
    message = b"DKIM-Signature: v=1\r\n" + sign_rsa()
    assert second.second_opinion(message, 0, key_at).value is False
    assert second.second_opinion(message, 1, key_at).value is True


def test_a_chain() -> None:
    assert second_arc.second_opinion(MESSAGE, key_at).value is arc.Result.NONE
    assert second_arc.second_opinion(SET + MESSAGE, key_at).value is arc.Result.FAIL
    assert second_arc.second_opinion(SET + MESSAGE, no_answer).value is None


def test_a_field_is_read_in_our_types() -> None:
    results = (
        authres.MethodResult("spf", "pass", properties=(authres.Property("smtp", "mailfrom", "a.example"),)),
        authres.MethodResult("dmarc", "fail", reason="it is not aligned"),
    )
    value = authres.render("mx.example.org", results)
    assert second_reading(value) == authres.AuthenticationResults("mx.example.org", 1, results)


def test_the_words_that_find_a_section_are_words_of_a_verifier() -> None:
    said = "".join(
        path.read_text("utf-8") for path in (PACKAGE / "protocol" / "dkim").glob("*.py") if path.stem != "second"
    )
    said = re.sub(r'"\s*\n\s*f?"', "", said)
    foreign = {"body hash mismatch", "public key too small"}  # dkimpy's
    assert [words for words, _ in second.SECTIONS if words not in said and words not in foreign] == []


@pytest.mark.parametrize(
    ("reason", "section"),
    [
        ("verified, but l= leaves the last 3 octets of the body unsigned", "RFC 6376, 8.2"),
        ("verified, but 1 of 2 Subject fields is not signed", "RFC 6376, 8.15"),
        ("RSA key of only 512 bits at x", "RFC 8301, 3.2"),
        ("key revoked at x", "RFC 6376, 3.6.1"),
        ("i= is in a subdomain, which the key does not allow (t=s) at x", "RFC 6376, 3.6.1"),
        ("signature expired", "RFC 6376, 3.5"),
        ("body hash did not verify", "RFC 6376, 3.7"),
    ],
)
def test_the_section_that_decides(reason: str, section: str) -> None:
    assert second.section(reason) == section


def test_dkimpy_does_not_look_at_the_hashes_that_a_key_allows() -> None:
    """RFC 6376, 3.6.1, h=: a difference that a comparison will show, for as long as the library is so."""
    key = record(rsa_key(), tags="h=sha1;").encode()
    assert second.second_opinion(sign_rsa(), 0, lambda _: key).value is True
