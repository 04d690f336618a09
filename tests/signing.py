# SPDX-License-Identifier: GPL-3.0-or-later
"""Signers that are not ours, and the shortest way from a signed message to its evaluations.

dkimpy signs with RSA. It needs a library that we do not use for Ed25519, so that signer borrows dkimpy's
canonicalization and cryptography's arithmetic.
"""

from __future__ import annotations

import hashlib
from base64 import b64encode
from collections.abc import Sequence
from functools import lru_cache

import dkim as dkimpy
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from dkim.canonicalization import CanonicalizationPolicy

from assay.model.message import split_message
from assay.protocol import dkim
from zone import Zone

NOW = 1_700_000_000
DOMAIN, SELECTOR = "example.org", "sel"
KEY_NAME = f"{SELECTOR}._domainkey.{DOMAIN}"
FIELDS = (b"from", b"to", b"subject")
MESSAGE = (
    b"From: Ann <ann@example.org>\r\n"
    b"To:  Bob <bob@example.net>\r\n"
    b"Subject: lunch\r\n\tand  dinner \r\n"
    b"\r\n"
    b"Hello  Bob,\t\r\n\r\nsee you at  noon. \r\nAnn\r\n\r\n\r\n"
)


@lru_cache
def rsa_key(bits: int = 2048) -> RSAPrivateKey:
    """An RSA key, made once in a test run: a big one takes long."""
    return generate_private_key(65537, bits)


@lru_cache
def ed25519_key() -> Ed25519PrivateKey:
    return Ed25519PrivateKey.generate()


def pem(key: RSAPrivateKey | Ed25519PrivateKey) -> bytes:
    rsa = isinstance(key, RSAPrivateKey)
    form = PrivateFormat.TraditionalOpenSSL if rsa else PrivateFormat.PKCS8
    return key.private_bytes(Encoding.PEM, form, NoEncryption())


def public_octets(key: RSAPrivateKey | Ed25519PrivateKey, form: PublicFormat | None = None) -> bytes:
    """The key as p= holds it before base64: SubjectPublicKeyInfo for RSA unless `form` says otherwise."""
    public = key.public_key()
    if isinstance(key, RSAPrivateKey):
        return public.public_bytes(Encoding.DER, form or PublicFormat.SubjectPublicKeyInfo)
    return public.public_bytes(Encoding.Raw, PublicFormat.Raw)


def record(key: RSAPrivateKey | Ed25519PrivateKey, *, tags: str = "", form: PublicFormat | None = None) -> str:
    """A key record; `tags` such as ``t=s;`` come before p=."""
    key_type = "rsa" if isinstance(key, RSAPrivateKey) else "ed25519"
    return f"v=DKIM1; k={key_type}; {tags} p={b64encode(public_octets(key, form)).decode()}"


def zone(*records: str, name: str = KEY_NAME) -> Zone:
    return Zone({name: [["TXT", [text]] for text in records]})


def sign_rsa(
    message: bytes = MESSAGE,
    *,
    c: str = "relaxed/relaxed",
    key: RSAPrivateKey | None = None,
    domain: str = DOMAIN,
    **more: object,
) -> bytes:
    """The message with a signature by dkimpy on top."""
    header, _, body = c.partition("/")
    arguments = {
        "canonicalize": (header.encode(), body.encode()),
        "include_headers": list(FIELDS),
        "identity": f"ann@{domain}".encode(),
        **more,
    }
    return dkimpy.sign(message, SELECTOR.encode(), domain.encode(), pem(key or rsa_key()), **arguments) + message


def sign_ed25519(
    message: bytes = MESSAGE, *, c: str = "relaxed/relaxed", fields: Sequence[bytes] = FIELDS, domain: str = DOMAIN
) -> bytes:
    """The message with an Ed25519 signature on top (RFC 8463)."""
    policy = CanonicalizationPolicy.from_c_value(c.encode())
    headers, body = dkimpy.rfc822_parse(message)
    body_hash = b64encode(hashlib.sha256(policy.canonicalize_body(body)).digest()).decode()
    names = ":".join(name.decode() for name in fields)
    unsigned = f" v=1; a=ed25519-sha256; c={c}; d={domain}; s={SELECTOR}; h={names}; bh={body_hash}; b=".encode()
    left = list(headers)
    octets = b""
    for name in fields:
        at = max((at for at, field in enumerate(left) if field[0].lower() == name), default=None)
        if at is not None:
            ((written, value),) = policy.canonicalize_headers([left.pop(at)])
            octets += written + b":" + value
    ((written, value),) = policy.canonicalize_headers([(b"DKIM-Signature", unsigned)])
    octets += written + b":" + value.removesuffix(b"\r\n")
    signature = ed25519_key().sign(hashlib.sha256(octets).digest())
    return b"DKIM-Signature:" + unsigned + b64encode(signature) + b"\r\n" + message


def evaluate(
    message: bytes, dns: Zone, *, now: int = NOW, settings: dkim.SignatureRules = dkim.DEFAULT_RULES
) -> list[dkim.Evaluation]:
    """The evaluations of a message's signatures, from top to bottom."""
    header, body = split_message(message)
    parsed = [dkim.parse(field) for field in header.all("DKIM-Signature")]
    hashes = dkim.BodyHashes(one.body_hash_spec for one in parsed if isinstance(one, dkim.Signature))
    hashes.update(body)
    return [
        one
        if isinstance(one, dkim.Evaluation)
        else dkim.verify(one, dns.solve(dkim.fetch_key(one)), header, hashes, now=now, settings=settings)
        for one in parsed
    ]
