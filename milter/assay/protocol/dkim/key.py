# SPDX-License-Identifier: GPL-3.0-or-later
"""Key records (RFC 6376, 3.6; RFC 8463, 4.2): where they are, what they say, and verifying with their keys.

The DNS may have several records at one name, which RFC 6376, 3.6.2.2 leaves undefined: all are kept, and the verifier
tries those that fit. Parsed records are cached with the loaded key, because loading costs as much as
verifying and the same few keys sign most of a day's mail.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, cast

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.hashes import SHA1, SHA256
from cryptography.hazmat.primitives.serialization import load_der_public_key
from msgspec import Struct

from assay.caches import remember
from assay.inquiry import Answer, Grounds, Inquiry, Outcome, Question, RecordType, grounds
from assay.model.name import Domain
from assay.protocol.dkim.signature import Algorithm, Signature, key_name
from assay.protocol.syntax.tags import TagListError, decode_base64, parse_tags, split_list

#: Our choice: the key with the longest modulus that we accept takes 1,500 octets.
MAX_RECORD_LENGTH = 4096

#: Our choice: there are two while a key is replaced; each further one lets a stranger cause an RSA operation.
MAX_RECORDS = 4

#: As in OpenSSL for long moduli. Real exponents have 2 or 17 bits; one as long as its modulus would make a
#: verification a hundred times as expensive.
MAX_EXPONENT_BITS = 64

#: Octets that OpenSSL uses for a key after its first verification, besides four times its modulus (measured).
_LOADED = 1_700

_PADDING: Final = PKCS1v15()
_PREHASHED: Final = {"sha256": Prehashed(SHA256()), "sha1": Prehashed(SHA1())}  # noqa: S303 - for RFC 6376's old mail


class Key(Struct, frozen=True):
    """A usable key record.

    `type` is that of k=, ``rsa`` or ``ed25519``. `hash_names` are those of h= that we know, None for any. `strict` is
    t=s: i= must be in d= itself. `testing` is t=y.
    """

    type: str
    public: RSAPublicKey | Ed25519PublicKey
    bits: int
    hash_names: frozenset[str] | None
    strict: bool
    testing: bool

    def verify(self, algorithm: Algorithm, signature: bytes, digest: bytes) -> bool:
        """Whether `signature` is this key's over `digest`, the hash of the header. The key must be of a='s type."""
        try:
            if self.type == "rsa":
                cast(RSAPublicKey, self.public).verify(signature, digest, _PADDING, _PREHASHED[algorithm.hash_name])
            else:  # RFC 8463, 3: PureEdDSA over the hash
                cast(Ed25519PublicKey, self.public).verify(signature, digest)
        except (InvalidSignature, UnsupportedAlgorithm):  # the latter: SHA-1 where the system's policy forbids it
            return False
        return True


class KeyFault(Struct, frozen=True):
    """A TXT record without a usable key, and why."""

    reason: str


class KeyLookup(Struct, frozen=True):
    """What was found at `name`."""

    name: str
    outcome: Outcome
    keys: tuple[Key | KeyFault, ...] = ()
    grounds: Grounds = Grounds.UNPROVEN
    reason: str = ""


def fetch_key(signature: Signature) -> Inquiry[KeyLookup]:
    """Ask for a signature's key (RFC 6376, 3.6.2)."""
    question = key_question(signature.domain, signature.selector)
    (answer,) = yield [question]
    return read_answer(question, answer)


def key_question(domain: Domain, selector: Domain) -> Question:
    """The question for a key (RFC 6376, 3.6.2.1). The length of the name was checked with the signature."""
    return Question(key_name(domain, selector), RecordType.TXT)


def read_answer(question: Question, answer: Answer) -> KeyLookup:
    """Parse the records that came back for a `key_question`."""
    keys = tuple(map(parse_key, _bounded(answer.texts))) if answer.outcome is Outcome.FOUND else ()
    return KeyLookup(question.name, answer.outcome, keys, grounds((answer,)), answer.reason)


def parse_key(record: bytes) -> Key | KeyFault:
    """Parse a key record (RFC 6376, 3.6.1)."""
    if len(record) > MAX_RECORD_LENGTH:  # before the cache: it must not keep what is too long
        return KeyFault(f"key record longer than {MAX_RECORD_LENGTH} octets")
    return _parse_key(record)


def _bounded(records: Sequence[bytes]) -> Sequence[bytes]:
    """The records to try; other TXT records at the name (a wildcard's) come after those with a key."""
    if len(records) <= MAX_RECORDS:
        return records
    return sorted(records, key=lambda record: b"p=" not in record)[:MAX_RECORDS]


def _weigh(key: Key | KeyFault) -> int:
    """The memory of a key in OpenSSL, which Python does not see."""
    return _LOADED + key.bits // 2 if isinstance(key, Key) else 0


@remember("DKIM keys", _weigh)
def _parse_key(record: bytes) -> Key | KeyFault:
    try:
        tags = parse_tags(record)
    except TagListError as error:
        return KeyFault(f"malformed key record: {error}")
    if "v" in tags and (next(iter(tags)) != "v" or tags["v"] != "DKIM1"):
        return KeyFault("key record whose v= is not first or not DKIM1")  # RFC 6376, 3.6.1: MUST be discarded
    encoded = tags.get("p")
    if encoded is None:
        return KeyFault("key record without p=")
    if not encoded:
        return KeyFault("key revoked")  # RFC 6376, 3.6.1, p=
    # RFC 6376, 3.6.1, s=: a record for other services only is ignored. Unknown members of s=, h= and t= mean nothing.
    if not {"*", "email"}.intersection(split_list(tags.get("s", "*"))):
        return KeyFault("key is not for e-mail (s=)")
    key_type = tags.get("k", "rsa")
    try:
        public = _load(key_type, decode_base64(encoded))
    except TagListError as error:
        return KeyFault(f"malformed key record: p= is {error}")
    if isinstance(public, KeyFault):
        return public
    flags = split_list(tags.get("t", ""))
    return Key(
        type=key_type,
        public=public,
        bits=public.key_size if isinstance(public, RSAPublicKey) else 256,
        hash_names=frozenset(_PREHASHED.keys() & split_list(tags["h"])) if "h" in tags else None,
        strict="s" in flags,
        testing="y" in flags,
    )


def _load(key_type: str, octets: bytes) -> RSAPublicKey | Ed25519PublicKey | KeyFault:
    if key_type == "ed25519":
        try:
            return Ed25519PublicKey.from_public_bytes(octets)  # RFC 8463, 4.2: the bare key, not SubjectPublicKeyInfo
        except (ValueError, UnsupportedAlgorithm):
            return KeyFault("not an Ed25519 key of 32 octets")
    if key_type != "rsa":
        return KeyFault("unknown key type in k=")
    try:
        # RFC 6376, 3.6.1 says RSAPublicKey (PKCS #1), but SubjectPublicKeyInfo is what is published: this reads both.
        public = load_der_public_key(octets)
    except (ValueError, UnsupportedAlgorithm):
        return KeyFault("malformed RSA key")
    if not isinstance(public, RSAPublicKey):
        return KeyFault("k= says RSA, but p= is another kind of key")
    if public.public_numbers().e.bit_length() > MAX_EXPONENT_BITS:
        return KeyFault(f"RSA key with an exponent longer than {MAX_EXPONENT_BITS} bits")
    return public
