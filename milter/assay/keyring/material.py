# SPDX-License-Identifier: GPL-3.0-or-later
"""Private keys: made, and read in the forms in which other programs keep them."""

from __future__ import annotations

import binascii
from base64 import b64decode

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_der_private_key

from assay.keys.rotation import KeyType
from assay.protocol import dkim

_EXPONENT = 65537  # RFC 8301 does not say; verifiers know no other
_ED25519_OCTETS = 32  # RFC 8032, 5.1.5


def make(kind: KeyType, bits: int = 2048) -> dkim.PrivateKey:
    """A new private key.

    :param bits: of an RSA key; Ed25519 has one size.
    """
    if kind is KeyType.ED25519:
        return Ed25519PrivateKey.generate()
    return generate_private_key(_EXPONENT, bits)


def type_of(key: dkim.PrivateKey) -> KeyType:
    """The type of a private key."""
    return KeyType.RSA if isinstance(key, RSAPrivateKey) else KeyType.ED25519


def bits_of(key: dkim.PrivateKey) -> int:
    """The size of a private key."""
    return key.key_size if isinstance(key, RSAPrivateKey) else 256


def to_pem(key: dkim.PrivateKey) -> bytes:
    """A private key in PEM: PKCS #1 for RSA, which every DKIM program reads, PKCS #8 for Ed25519 (RFC 8410)."""
    form = PrivateFormat.TraditionalOpenSSL if isinstance(key, RSAPrivateKey) else PrivateFormat.PKCS8
    return key.private_bytes(Encoding.PEM, form, NoEncryption())


def read_foreign(content: bytes) -> dkim.PrivateKey:
    """Read a private key as other programs keep it.

    PEM in PKCS #1 or PKCS #8 (OpenDKIM, OpenSSL, rspamd), the same without the lines around the base64, DER, and the
    bare base64 of an Ed25519 seed (dkimpy), also followed by the public key (libsodium).

    :raises ValueError: it is none of them, has a password, or is an RSA key of a size that verifiers need not accept.
    """
    if b"-----BEGIN" in content:
        return dkim.load_private_key(content[content.index(b"-----BEGIN") :])
    octets = _from_base64(content)
    if octets is None:
        octets = content
    elif len(octets) in (_ED25519_OCTETS, 2 * _ED25519_OCTETS):
        return Ed25519PrivateKey.from_private_bytes(octets[:_ED25519_OCTETS])
    try:
        key = load_der_private_key(octets, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise ValueError("not a private key: neither PEM, DER nor the base64 of an Ed25519 key") from error
    if not isinstance(key, RSAPrivateKey | Ed25519PrivateKey):
        raise ValueError("neither an RSA nor an Ed25519 key")
    return dkim.load_private_key(to_pem(key))


def _from_base64(content: bytes) -> bytes | None:
    try:
        return b64decode(b"".join(content.split()), validate=True)
    except binascii.Error:
        return None
