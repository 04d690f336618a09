# SPDX-License-Identifier: GPL-3.0-or-later
"""Key records of our own keys, for the DNS (RFC 6376, 3.6.1; RFC 8463, 4.2), and the proof that they fit."""

from __future__ import annotations

from base64 import b64encode
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from assay.inquiry import Outcome
from assay.model.message import split_message
from assay.protocol.dkim.canonical import BodyHashes
from assay.protocol.dkim.key import Key, KeyLookup, parse_key
from assay.protocol.dkim.result import Evaluation, Result
from assay.protocol.dkim.second import ask
from assay.protocol.dkim.sign import PrivateKey, algorithm_of, sign_digest
from assay.protocol.dkim.signature import Algorithm, parse
from assay.protocol.dkim.verify import verify

#: Octets in one string of a TXT record, whose length is one octet (RFC 1035, 3.3).
MAX_STRING = 255

_PROBE: Final = b"From: postmaster@example.org\r\nSubject: probe\r\n\r\nprobe\r\n"
_PROBE_TIME = 1_700_000_000  # within the bounds of any verifier; the signature has no t= and no x=


def record_of(key: PrivateKey) -> str:
    """The key record for a private key: the shortest that says all a verifier has to know.

    RSA keys are SubjectPublicKeyInfo, which is what all verifiers read, though RFC 6376, 3.6.1 says RSAPublicKey.
    """
    if isinstance(key, RSAPrivateKey):
        public, name = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo), "rsa"
    else:
        public, name = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw), "ed25519"
    return f"v=DKIM1; k={name}; p={b64encode(public).decode()}"


def split_strings(record: str) -> tuple[str, ...]:
    """A record in strings of at most `MAX_STRING` octets (RFC 6376, 3.6.2.2). The record is ASCII."""
    return tuple(record[start : start + MAX_STRING] for start in range(0, len(record), MAX_STRING)) or ("",)


def same_key(one: Key, other: Key) -> bool:
    """Whether two records publish the same key, however they write it."""
    return one.type == other.type and one.public == other.public


def prove(key: PrivateKey, record: str) -> str:
    """Check that what is signed with a private key verifies with the key record.

    With an RSA key dkimpy signs a message, which shares no code with our verifier. It cannot use Ed25519 without a
    further package, so such a key signs a digest.

    :returns: why it does not verify, in one clause; empty if it does.
    """
    published = parse_key(record.encode())
    if not isinstance(published, Key):
        return published.reason
    if algorithm_of(key) is not Algorithm.RSA_SHA256:
        digest = bytes(32)
        proved = published.type == "ed25519" and published.verify(algorithm_of(key), sign_digest(key, digest), digest)
        return "" if proved else "the record is that of another key"
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())

    def sign(library: Any, _notes: Any, _find: Any) -> bytes:
        return bytes(library.sign(_PROBE, b"probe", b"example.org", pem, canonicalize=(b"relaxed", b"relaxed")))

    opinion = ask(sign, lambda _: None, refused=b"")
    if not opinion.value:
        return f"dkimpy cannot sign with the key: {opinion.reason}"
    header, body = split_message(opinion.value + _PROBE)
    signature = parse(header.fields[0])
    if isinstance(signature, Evaluation):
        return signature.reason
    hashes = BodyHashes([signature.body_hash_spec])
    hashes.update(body)
    found = KeyLookup("", Outcome.FOUND, (published,))
    evaluation = verify(signature, found, header, hashes, now=_PROBE_TIME)
    return "" if evaluation.result is Result.PASS else "the record is that of another key"
