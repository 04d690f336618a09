# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import re
import time

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey, generate_private_key
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPrivateNumbers, RSAPublicNumbers
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from hypothesis import given
from hypothesis import strategies as st

from assay.model.message import Header, HeaderField
from assay.model.name import Domain
from assay.protocol import arc, dkim
from assay.protocol.arc import Result
from signing import NOW, ed25519_key, pem, rsa_key

FROM = HeaderField(b"From", b" a@example.org")
NONE = arc.Evaluation(Result.NONE, "")


def seal(header: Header, **changes: object) -> tuple[HeaderField, ...]:
    arguments = {
        "validation": NONE,
        "authserv_id": "mx.example.org",
        "authentication_results": ("spf=pass", "dkim=none"),
        "domain": Domain.parse("example.org"),
        "selector": Domain.parse("sel"),
        "private_key": rsa_key(),
        "timestamp": NOW,
        **changes,
    }
    return arc.seal(header, dkim.BodyHashes([arc.BODY_HASH_SPEC]), **arguments)


def test_three_fields_from_the_top() -> None:
    fields = seal(Header((FROM,)))
    assert [field.name for field in fields] == [
        b"ARC-Seal",
        b"ARC-Message-Signature",
        b"ARC-Authentication-Results",
    ]
    assert fields[2].value == b" i=1; mx.example.org;\r\n spf=pass;\r\n dkim=none"


def test_the_instance_comes_first() -> None:
    """RFC 8617, 4.1.1 to 4.1.3: the grammar has it there in each field of a set."""
    first = Header((*seal(Header((FROM,))), FROM))
    for header, instance in ((Header((FROM,)), b"1"), (first, b"2")):
        fields = seal(header, validation=arc.Evaluation(Result.PASS, "", 1) if header is first else NONE)
        assert [field.value[: len(b" i=1;")] for field in fields] == [b" i=%b;" % instance] * 3


def test_no_result_is_none() -> None:
    assert seal(Header((FROM,)), authentication_results=())[2].value == b" i=1; mx.example.org;\r\n none"


def test_a_result_cannot_begin_a_field() -> None:
    for field in seal(Header((FROM,)), authentication_results=("spf=pass (x\r\nEvil: y\nz)",), authserv_id="a\rb"):
        assert not re.search(rb"\r\n(?![ \t])|(?<!\r)\n|\r(?!\n)", field.value)


@pytest.mark.parametrize("bits", [1024, 2048])
def test_lines_are_short_but_for_signatures(bits: int) -> None:
    for field in seal(Header((FROM,)), private_key=rsa_key(bits), sign_headers=["x-" + "y" * 20] * 30):
        lines = (field.name + b":" + field.value).split(b"\r\n")
        assert all(len(line) <= 78 or re.match(rb" bh?=", line) for line in lines), lines
        assert all(len(line) < 998 for line in lines)


def test_nothing_is_added_to_a_full_chain() -> None:
    full = HeaderField(b"ARC-Authentication-Results", b" i=50; mx")
    assert seal(Header((FROM, full)), validation=arc.Evaluation(Result.FAIL, "")) == ()


def test_pass_is_only_sealed_over_the_chain_that_passed() -> None:
    """A validation that does not belong to this header must not become cv=pass."""
    first = Header((*seal(Header((FROM,))), FROM))
    for count, cv in ((1, b"cv=pass"), (2, b"cv=fail")):
        assert cv in seal(first, validation=arc.Evaluation(Result.PASS, "", count))[0].value
    assert b"cv=fail" in seal(first, validation=NONE)[0].value


def test_what_arc_forbids_is_not_signed() -> None:  # RFC 8617, 4.1.2
    names = ["From", "Authentication-Results", "ARC-Seal", "arc-message-signature", "ARC-Authentication-Results", "To"]
    assert b" h=from:to;" in seal(Header((FROM,)), sign_headers=names)[1].value


def test_fields_to_sign() -> None:
    header = Header((FROM, HeaderField(b"received", b""), HeaderField(b"TO", b""), HeaderField(b"To", b"")))
    assert arc.fields_to_sign(header) == ("from", "from", "to", "to")


def recorded(*values: bytes) -> tuple[str, ...]:
    fields = tuple(HeaderField(b"Authentication-Results", value) for value in values)
    return arc.recorded_results(Header(fields), "mx.example.org")


@pytest.mark.parametrize(
    ("values", "results"),
    [
        pytest.param((), (), id="no field"),
        pytest.param((b" mx.example.org; none",), (), id="nothing was checked"),
        pytest.param((b" mx.example.org; spf=pass;\r\n dkim=none;",), ("spf=pass", "dkim=none"), id="two in one"),
        pytest.param((b"MX.example.org 1 ; a=b", b"mx.example.org;c=d"), ("a=b", "c=d"), id="one in each of two"),
        pytest.param((b"example.org; a=b", b"xmx.example.org; a=b", b"mx.example.org.evil; a=b"), (), id="others' ids"),
        pytest.param((b'mx.example.org; a=b (x;y) c.d="e;f"; g=h',), ('a=b (x;y) c.d="e;f"', "g=h"), id="semicolons"),
        pytest.param((b"mx.example.org; a=b (x; c=d",), ("a=b (x; c=d",), id="an open comment"),
        pytest.param((b"",), (), id="empty field"),
    ],
)
def test_recorded_results(values: tuple[bytes, ...], results: tuple[str, ...]) -> None:
    assert recorded(*values) == results


@given(st.binary())
def test_any_results_field_can_be_read(value: bytes) -> None:
    assert isinstance(recorded(value, b"mx.example.org;" + value), tuple)


@pytest.mark.parametrize("unit", [b'\\"', b"\\(", b"(", b'"', b";", b"(a", b" "])
def test_hostile_results_take_linear_time(unit: bytes) -> None:
    start = time.process_time()
    recorded(b"mx.example.org; a" + unit * 50_000)
    assert time.process_time() - start < 0.5


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"", "not a private key"),
        (b"-----BEGIN RSA PRIVATE KEY-----\nAAAA\n-----END RSA PRIVATE KEY-----\n", "not a private key"),
    ],
)
def test_unusable_private_key(text: bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        dkim.load_private_key(text)


def mersenne_key(first: int, second: int) -> RSAPrivateKey:
    """An RSA key of Mersenne primes: any size at no cost, and no secret."""
    p, q, e = 2**first - 1, 2**second - 1, 65537
    d = pow(e, -1, (p - 1) * (q - 1))
    numbers = RSAPrivateNumbers(p, q, d, d % (p - 1), d % (q - 1), pow(q, -1, p), RSAPublicNumbers(e, p * q))
    return numbers.private_key()


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        (mersenne_key(521, 127), "RSA key of 648 bits"),
        (mersenne_key(2281, 2203), "RSA key of 4484 bits"),
        (generate_private_key(SECP256R1()), "neither an RSA nor an Ed25519 key"),
    ],
)
def test_private_key_that_not_everybody_accepts(key: RSAPrivateKey | EllipticCurvePrivateKey, reason: str) -> None:
    text = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    with pytest.raises(ValueError, match=reason):
        dkim.load_private_key(text)


def test_private_key_with_a_password() -> None:
    text = rsa_key(1024).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret"))
    with pytest.raises(ValueError, match="without a password"):
        dkim.load_private_key(text)


@pytest.mark.parametrize("key", [rsa_key(1024), ed25519_key()])
def test_private_key(key: dkim.PrivateKey) -> None:
    assert dkim.load_private_key(pem(key)).public_key() == key.public_key()
