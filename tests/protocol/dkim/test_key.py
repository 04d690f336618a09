# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from base64 import b64encode

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicNumbers
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from assay.inquiry import Answer, Grounds, Outcome, Question, RecordType
from assay.protocol import dkim
from assay.protocol.dkim.key import MAX_RECORD_LENGTH, MAX_RECORDS, read_answer
from signing import KEY_NAME, ed25519_key, public_octets, record, rsa_key

RSA = b64encode(public_octets(rsa_key(1024))).decode()
ED25519 = b64encode(public_octets(ed25519_key())).decode()
QUESTION = Question(KEY_NAME, RecordType.TXT)


def key(text: str) -> dkim.Key:
    parsed = dkim.parse_key(text.encode())
    assert isinstance(parsed, dkim.Key), parsed
    return parsed


@pytest.mark.parametrize("form", [PublicFormat.SubjectPublicKeyInfo, PublicFormat.PKCS1])
@pytest.mark.parametrize("bits", [1024, 2048])
def test_rsa_key_in_both_encodings(bits: int, form: PublicFormat) -> None:
    parsed = key(record(rsa_key(bits), form=form))
    assert (parsed.type, parsed.bits) == ("rsa", bits)


def test_ed25519_key() -> None:
    parsed = key(record(ed25519_key()))
    assert (parsed.type, parsed.bits) == ("ed25519", 256)


@pytest.mark.parametrize(
    ("text", "hash_names", "strict", "testing"),
    [
        pytest.param(f"p={RSA}", None, False, False, id="p= is enough"),
        pytest.param(f" v = DKIM1 ; p = {RSA} ; ", None, False, False, id="white space"),
        pytest.param(f"v=DKIM1; t=y:s; p={RSA}", None, True, True, id="both flags"),
        pytest.param(f"v=DKIM1; t= s ; p={RSA}", None, True, False, id="strict"),
        pytest.param(f"v=DKIM1; t=y; p={RSA}", None, False, True, id="testing"),
        pytest.param(f"v=DKIM1; t=Y:x; p={RSA}", None, False, False, id="unknown flags are ignored"),
        pytest.param(f"h=sha1 : sha256:x; p={RSA}", {"sha1", "sha256"}, False, False, id="hashes that we know"),
        pytest.param(f"s=tlsrpt:email; p={RSA}", None, False, False, id="e-mail among the services"),
        pytest.param(f"s=*; p={RSA}", None, False, False, id="any service"),
        pytest.param(f"g=nobody; n=a note; zz=1; p={RSA}", None, False, False, id="historic and unknown tags"),
        pytest.param(f"p={RSA[:64]}\r\n {RSA[64:]}", None, False, False, id="pasted line ends"),
    ],
)
def test_record(text: str, hash_names: set[str] | None, strict: bool, testing: bool) -> None:
    parsed = key(text)
    assert (parsed.hash_names, parsed.strict, parsed.testing) == (hash_names, strict, testing)


WIDE = RSAPublicNumbers((1 << 65) + 1, rsa_key(1024).public_key().public_numbers().n).public_key()
WIDE_EXPONENT = WIDE.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
EC = generate_private_key(SECP256R1()).public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("v=DKIM1; p=", "key revoked"),
        ("p=", "key revoked"),
        ("v=DKIM1; k=rsa", "without p="),
        ("", "malformed key record"),
        ("v=spf1 -all", "v= is not first or not DKIM1"),
        ("some text", "malformed key record"),
        (f"v=DKIM2; p={RSA}", "v= is not first or not DKIM1"),
        (f"v=dkim1; p={RSA}", "v= is not first or not DKIM1"),
        (f"k=rsa; v=DKIM1; p={RSA}", "v= is not first or not DKIM1"),
        (f"k=dsa; p={RSA}", "unknown key type"),
        (f"k=RSA; p={RSA}", "unknown key type"),
        (f"s=tlsrpt; p={RSA}", "not for e-mail"),
        (f"s=; p={RSA}", "not for e-mail"),
        ("p=!", "p= is not base64"),
        ("p=QUJD", "malformed RSA key"),
        (f"p={RSA[:-8]}", "malformed RSA key"),
        (f"p={b64encode(EC).decode()}", "another kind of key"),
        (f"p={ED25519}", "malformed RSA key"),
        (f"p={b64encode(WIDE_EXPONENT).decode()}", "exponent longer than 64 bits"),
        (f"k=ed25519; p={RSA}", "not an Ed25519 key of 32 octets"),
        (f"p={RSA}; p={RSA}", "two p= tags"),
        (f"n={'x' * MAX_RECORD_LENGTH}; p={RSA}", "longer than"),
    ],
)
def test_no_key(text: str, reason: str) -> None:
    parsed = dkim.parse_key(text.encode())
    assert isinstance(parsed, dkim.KeyFault)
    assert reason in parsed.reason


@pytest.mark.parametrize("outcome", [Outcome.NODATA, Outcome.NXDOMAIN, Outcome.TEMPFAIL])
def test_no_record(outcome: Outcome) -> None:
    assert read_answer(QUESTION, Answer(outcome, reason="why")) == dkim.KeyLookup(KEY_NAME, outcome, reason="why")


def test_several_records_are_bounded_and_those_with_a_key_come_first() -> None:
    good = record(rsa_key(1024)).encode()
    texts = (*[b"v=spf1 -all"] * MAX_RECORDS, good)
    lookup = read_answer(QUESTION, Answer(Outcome.FOUND, texts, secure=True))
    assert len(lookup.keys) == MAX_RECORDS
    assert isinstance(lookup.keys[0], dkim.Key)
    assert lookup.grounds is Grounds.SECURE


def test_a_loaded_key_is_kept() -> None:
    text = record(rsa_key(1024)).encode()
    assert dkim.parse_key(text) is dkim.parse_key(bytes(text))


@given(st.binary())
def test_any_record_is_a_key_or_a_fault(text: bytes) -> None:
    assert isinstance(dkim.parse_key(text), dkim.Key | dkim.KeyFault)


@given(st.sampled_from(["rsa", "ed25519"]), st.binary(max_size=400) | st.binary(min_size=32, max_size=32))
def test_any_octets_are_a_key_or_a_fault(key_type: str, octets: bytes) -> None:
    text = f"k={key_type}; p={b64encode(octets).decode()}"
    assert isinstance(dkim.parse_key(text.encode()), dkim.Key | dkim.KeyFault)


@given(st.integers(0, 161), st.binary(min_size=1, max_size=4))
def test_any_damaged_rsa_key_is_a_key_or_a_fault(at: int, octets: bytes) -> None:
    whole = public_octets(rsa_key(1024))
    damaged = whole[:at] + octets + whole[at + len(octets) :]
    parsed = dkim.parse_key(f"p={b64encode(damaged).decode()}".encode())
    if isinstance(parsed, dkim.Key):
        assert not parsed.verify(dkim.Algorithm.RSA_SHA256, b"x" * 128, b"x" * 32)
