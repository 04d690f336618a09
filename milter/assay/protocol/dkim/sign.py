# SPDX-License-Identifier: GPL-3.0-or-later
"""The cryptography of signing, for DKIM and ARC (RFC 6376, 5.2 and 5.5; RFC 8301; RFC 8463).

`assay.protocol.dkim.sign_field` makes the fields.
"""

from __future__ import annotations

from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from assay.protocol.dkim.signature import Algorithm

#: RFC 8301, 3.2: signers MUST use at least 1024 bits, and verifiers need not accept more than 4096.
MIN_RSA_BITS = 1024
MAX_RSA_BITS = 4096

PrivateKey = RSAPrivateKey | Ed25519PrivateKey

_PADDING: Final = PKCS1v15()
_PREHASHED: Final = Prehashed(SHA256())


def load_private_key(pem: bytes) -> PrivateKey:
    """Load a private key from PEM (PKCS #1 or PKCS #8, without a password).

    :raises ValueError: not such a key, or an RSA key that verifiers need not accept.
    """
    try:
        key = load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:  # TypeError: it has a password
        raise ValueError("not a private key in PEM without a password") from error
    if isinstance(key, RSAPrivateKey):
        if not MIN_RSA_BITS <= key.key_size <= MAX_RSA_BITS:
            raise ValueError(
                f"RSA key of {key.key_size} bits: {MIN_RSA_BITS} to {MAX_RSA_BITS} are accepted everywhere"
            )
        return key
    if isinstance(key, Ed25519PrivateKey):
        return key
    raise ValueError("neither an RSA nor an Ed25519 key")


def algorithm_of(key: PrivateKey) -> Algorithm:
    """The a= of signatures with this key."""
    return Algorithm.RSA_SHA256 if isinstance(key, RSAPrivateKey) else Algorithm.ED25519_SHA256


def sign_digest(key: PrivateKey, digest: bytes) -> bytes:
    """Sign a SHA-256 digest."""
    if isinstance(key, RSAPrivateKey):
        return key.sign(digest, _PADDING, _PREHASHED)
    return key.sign(digest)  # RFC 8463, 3: PureEdDSA over the hash
