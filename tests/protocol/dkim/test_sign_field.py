# SPDX-License-Identifier: GPL-3.0-or-later
"""Our signatures, read by dkimpy and by ourselves: what is signed, in which order, and how the field is written."""

from __future__ import annotations

import re
from typing import Any

import dkim as dkimpy
import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from hypothesis import given, settings
from hypothesis import strategies as st

from assay.model.message import Header, HeaderField, split_message
from assay.model.name import Domain
from assay.protocol import dkim
from assay.protocol.dkim.canonical import Canonicalization
from assay.protocol.dkim.sign_field import encode_identity, fields_to_sign
from signing import DOMAIN, KEY_NAME, MESSAGE, NOW, SELECTOR, ed25519_key, evaluate, record, rsa_key
from zone import Zone

RSA = dkim.SigningKey(Domain(SELECTOR), rsa_key())
EDWARDS = dkim.SigningKey(Domain("e2026"), ed25519_key())
DNS = Zone(
    {
        KEY_NAME: [["TXT", [record(rsa_key())]]],
        f"e2026._domainkey.{DOMAIN}": [["TXT", [record(ed25519_key())]]],
    }
)
BOTH = {c: Canonicalization(c) for c in ("simple", "relaxed")}


def signed(octets: bytes, *keys: dkim.SigningKey, **more: Any) -> bytes:
    """The message with our signatures on top."""
    header, body = split_message(octets)
    rules = more.pop("rules", dkim.DEFAULT_SIGNING_RULES)
    hashes = dkim.BodyHashes([rules.body_hash_spec])
    hashes.update(body)
    fields = dkim.sign(header, hashes, Domain(DOMAIN), keys or (RSA,), rules=rules, now=NOW, **more)
    return b"".join(field.raw for field in fields) + octets


def dkimpy_verifies(octets: bytes, position: int = 0) -> bool:
    return bool(dkimpy.DKIM(octets).verify(position, lambda _name, timeout=0: record(rsa_key()).encode()))


def field_of(octets: bytes) -> bytes:
    return split_message(octets)[0].all("DKIM-Signature")[0].value


@pytest.mark.parametrize("body", BOTH)
@pytest.mark.parametrize("head", BOTH)
def test_dkimpy_and_we_verify_every_canonicalization(head: str, body: str) -> None:
    rules = dkim.SigningRules(header_canonicalization=BOTH[head], body_canonicalization=BOTH[body])
    octets = signed(MESSAGE, rules=rules)
    assert f"c={head}/{body};".encode() in field_of(octets)
    assert dkimpy_verifies(octets)
    assert [str(one.result) for one in evaluate(octets, DNS)] == ["pass"]


LINES = st.lists(st.text("ab \t=", max_size=90).map(str.encode), max_size=5).map(b"\r\n".join)
WORDS = st.text('ab .,<>@"()=;:', max_size=120)


@settings(max_examples=150, deadline=None)
@given(
    values=st.lists(st.tuples(st.sampled_from(["Subject", "To", "Cc", "X-Any", "Reply-To"]), WORDS), max_size=6),
    body=LINES,
    simple=st.booleans(),
    final=st.sampled_from([b"\r\n", b"\r\n\r\n", b" \r\n"]),
)
def test_dkimpy_verifies_any_header_and_body(
    values: list[tuple[str, str]], body: bytes, simple: bool, final: bytes
) -> None:
    head = "".join(f"{name}: {value}\r\n" for name, value in values)
    octets = f"From: joe@{DOMAIN}\r\n{head}\r\n".encode() + body + final
    kind = Canonicalization.SIMPLE if simple else Canonicalization.RELAXED
    rules = dkim.SigningRules(header_canonicalization=kind, body_canonicalization=kind)
    octets = signed(octets, rules=rules)
    assert [str(one.result) for one in evaluate(octets, DNS)] == ["pass"]
    assert dkimpy_verifies(octets)


def test_of_several_keys_the_rsa_one_is_on_top_and_each_has_one_signature() -> None:
    octets = signed(MESSAGE, EDWARDS, RSA)
    found = evaluate(octets, DNS)
    assert [(one.algorithm, one.selector, str(one.result)) for one in found] == [
        ("rsa-sha256", SELECTOR, "pass"),
        ("ed25519-sha256", "e2026", "pass"),
    ]
    assert dkimpy_verifies(octets)


def test_one_rsa_operation_a_signature(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    monkeypatch.setattr("assay.protocol.dkim.sign_field.sign_digest", lambda key, _: calls.append(key) or b"x")
    signed(MESSAGE, EDWARDS, RSA)
    assert calls == [RSA.private, EDWARDS.private]


FIELDS = (
    "Received: a\r\nFrom: joe@example.org\r\nTo: a@example.net\r\nTo: b@example.net\r\nX-Mine: 1\r\n"
    "List-Id: <l.example.org>\r\nDKIM-Signature: v=1\r\nReturn-Path: <>\r\nBcc: c@example.net\r\n\r\n"
)


def test_what_is_signed() -> None:
    names = fields_to_sign(split_message(FIELDS.encode())[0], dkim.DEFAULT_SIGNING_RULES)
    assert ":".join(names) == "from:from:reply-to:subject:to:to:to:cc:content-type:list-id"


@pytest.mark.parametrize("name", ["Date", "Message-ID"])
def test_a_field_that_an_mta_adds_is_not_named_beyond_its_count(name: str) -> None:
    rules = dkim.SigningRules(oversigned_fields=("Date", "Message-ID"))
    without = Header((HeaderField(b"From", b" joe@example.org"),))
    assert name.lower() not in fields_to_sign(without, rules)
    present = Header((*without, HeaderField(name.encode(), b" x")))
    assert fields_to_sign(present, rules).count(name.lower()) == 2


@pytest.mark.parametrize("name", ["From", "To", "Cc", "Subject", "Reply-To", "Content-Type"])
def test_a_field_that_is_added_on_the_way_breaks_the_signature(name: str) -> None:
    octets = f"{name}: added@example.net\r\n".encode() + signed(b"From: joe@example.org\r\n\r\nhello\r\n")
    assert [str(one.result) for one in evaluate(octets, DNS)] == ["fail"]


def test_further_fields_of_the_operator_are_signed_and_oversigned() -> None:
    rules = dkim.SigningRules(signed_fields=("From", "X-Mine"), oversigned_fields=("X-Mine", "X-Absent"))
    header = split_message(FIELDS.encode())[0]
    assert fields_to_sign(header, rules) == ["from", "x-mine", "x-mine", "x-absent"]


def test_times() -> None:
    assert b"x=" not in field_of(signed(MESSAGE))
    field = field_of(signed(MESSAGE, rules=dkim.SigningRules(lifetime=3600)))
    assert f"t={NOW};".encode() in field
    assert f"x={NOW + 3600};".encode() in field
    assert b"l=" not in re.sub(rb"h=[^;]*;", b"", field).partition(b"bh=")[0]


@pytest.mark.parametrize(
    ("identity", "written"),
    [
        ("@lists.example.org", "@lists.example.org"),
        ("joe@example.org", "joe@example.org"),
        ("a;b=c d@example.org", "a=3Bb=3Dc=20d@example.org"),
        ("jö@example.org", "j=C3=B6@example.org"),
        ("a@b@example.org", "a@b@example.org"),
    ],
)
def test_the_identity_is_written_so_that_it_reads_as_the_same(identity: str, written: str) -> None:
    assert encode_identity(identity) == written
    (found,) = evaluate(signed(MESSAGE, identity=identity), DNS)
    assert (found.identity, str(found.result)) == (identity, "pass")


@pytest.mark.parametrize("bits", [1024, 2048, 4096])
def test_no_line_is_long_and_none_is_only_white_space(bits: int) -> None:
    key = dkim.SigningKey(Domain("a" * 60), generate_private_key(65537, bits) if bits != 2048 else rsa_key())
    octets = signed(MESSAGE, key, identity="@" + ".".join(["b" * 60] * 2 + [DOMAIN]))
    lines = field_of(octets).split(b"\r\n")
    assert all(line.startswith(b" ") and line.strip() for line in lines)
    longest = max(lines, key=len)
    assert len(longest) <= 78 or b"i=" in longest


def test_the_value_of_b_is_not_in_the_octets_that_are_signed() -> None:
    """With ``simple`` the white space inside b= is the only part of the field that may differ."""
    rules = dkim.SigningRules(header_canonicalization=Canonicalization.SIMPLE)
    octets = signed(MESSAGE, rules=rules)
    before, value = field_of(octets).split(b" b=")
    moved = b"DKIM-Signature:" + before + b" b=\r\n\t" + value.replace(b"\r\n ", b"") + b"\r\n"
    assert [str(one.result) for one in evaluate(moved + MESSAGE, DNS)] == ["pass"]


def test_a_header_that_no_verifier_accepts_is_not_signed() -> None:
    octets = b"List-Id: x\r\n" * 1001 + MESSAGE
    with pytest.raises(dkim.SigningError, match="more than 1000 fields to sign"):
        signed(octets)
