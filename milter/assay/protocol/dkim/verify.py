# SPDX-License-Identifier: GPL-3.0-or-later
"""Verifying a signature (RFC 6376, 6.1; RFC 8301; RFC 8463), and the local rules for one that verifies.

The order is the RFC's: the signature itself, the key, the body, the header. Failures before the cryptography are
``permerror`` or ``temperror``, in the cryptography ``fail``; a signature that verifies but breaks a local rule is
``policy`` and names the rule. What a result means for a message is not judged here.
"""

from __future__ import annotations

from msgspec import Struct
from msgspec.structs import replace

from assay.inquiry import Grounds, Outcome
from assay.model.message import Header
from assay.protocol.dkim.canonical import (
    BodyHashes,
    Canonicalization,
    canonical_field,
    new_hash,
    signed_octets,
)
from assay.protocol.dkim.key import Key, KeyFault, KeyLookup
from assay.protocol.dkim.result import Evaluation, Result
from assay.protocol.dkim.signature import Algorithm, Signature

#: RFC 8301, 3.2: verifiers MUST NOT consider signatures with shorter RSA keys valid.
STANDARD_MIN_RSA_BITS = 1024

#: RFC 5322, 3.6: fields that may occur once; RFC 2045, 4, 5 and 6: fields that say how to read the body.
#: Bcc is not here: signers omit it, and readers do not show it.
SINGLE_FIELDS = (
    "From",
    "Sender",
    "Reply-To",
    "To",
    "Cc",
    "Date",
    "Subject",
    "Message-ID",
    "In-Reply-To",
    "References",
    "MIME-Version",
    "Content-Type",
    "Content-Transfer-Encoding",
)


class SignatureRules(Struct, frozen=True):
    """The local rules of verification."""

    #: Shorter RSA keys are not accepted: ``permerror`` below 1024 (RFC 8301, 3.2), else ``policy``, for operators who
    #: want more. Set it below 1024 for archived mail only.
    min_rsa_bits: int = STANDARD_MIN_RSA_BITS
    #: Longer RSA keys are not tried: a stranger chooses them, and we pay for the computation. RFC 8301, 3.2 asks for
    #: 4096; 8192 costs four times that and occurs.
    max_rsa_bits: int = 8192
    #: Accept rsa-sha1, against RFC 8301, 3.1: for archived mail only.
    allow_sha1: bool = False
    #: How many signatures of a message are tried (RFC 6376, 6.1 allows a limit). Real mail has one to four.
    max_signatures: int = 10
    #: Seconds after x= for which a signature is still accepted: clocks of well-kept hosts differ by no more.
    clock_skew: int = 300
    #: Whether a body that goes on after l= is refused with ``policy`` (RFC 6376, 8.2): what follows can be anything.
    refuse_unsigned_body: bool = True
    #: Fields that may occur once. If one occurs more than once and more often than h= names it, the result is
    #: ``policy``: a signature covers the lower ones (RFC 6376, 5.4.2), and readers see the upper one (RFC 6376, 8.15).
    single_fields: tuple[str, ...] = SINGLE_FIELDS
    #: Whether a signature that verifies with a key in test mode is ``pass``. RFC 6376, 3.6.1 treats such mail as if
    #: it were not signed; the result is then ``policy``, which does not count for anything.
    test_mode_counts: bool = True


DEFAULT_RULES = SignatureRules()
_UNPROVEN = Grounds.UNPROVEN


def verify(
    signature: Signature,
    key_lookup: KeyLookup,
    header: Header,
    hashes: BodyHashes,
    *,
    now: int,
    settings: SignatureRules = DEFAULT_RULES,
    signing_key: Key | None = None,
) -> Evaluation:
    """Verify one signature.

    :param key_lookup: the result of `assay.protocol.dkim.fetch_key` for it.
    :param header: the whole header as received, with the object `signature.field` in it.
    :param hashes: made for a set of specs that includes `signature.body_hash_spec`, and fed with the whole body.
    :param now: the time of arrival in Unix seconds.
    :param signing_key: the result of `find_signing_key`, if that was called before.
    """
    objection = _object_to_signature(signature, now, settings)
    if objection:
        return _evaluation(signature, Result.PERMERROR, objection)
    found = _verify_with_keys(signature, key_lookup, header, hashes, settings, signing_key)
    # Most keys are in zones without DNSSEC.
    return found if key_lookup.grounds is _UNPROVEN else replace(found, grounds=key_lookup.grounds)


def _verify_with_keys(
    signature: Signature,
    key_lookup: KeyLookup,
    header: Header,
    hashes: BodyHashes,
    settings: SignatureRules,
    signing_key: Key | None,
) -> Evaluation:
    usable = _usable_keys(signature, key_lookup, settings) if signing_key is None else _UsableKeys((signing_key,))
    if isinstance(usable, Evaluation):
        return usable
    unsigned_octets = hashes.unsigned_octets(signature.body_hash_spec)
    if unsigned_octets < 0:  # RFC 6376, 3.5, l=: "MUST NOT be larger than the actual number of octets"
        return _failure(signature, usable, "l= is larger than the body", Result.PERMERROR)
    if hashes.digest(signature.body_hash_spec) != signature.body_hash:
        return _failure(signature, usable, "body hash did not verify")
    key = signing_key or _signing_key(signature, usable, header)
    if key is None:
        return _failure(signature, usable, "signature did not verify")
    policy, reason = _apply_rules(signature, key, header, unsigned_octets, settings)
    result = Result.POLICY if policy else Result.PASS
    return _evaluation(signature, result, reason, testing=key.testing, key_bits=key.bits, policy=policy)


def find_signing_key(
    signature: Signature, key_lookup: KeyLookup, header: Header, settings: SignatureRules = DEFAULT_RULES
) -> Key | Evaluation:
    """The key that made a signature over this header, before the body is there and regardless of local rules.

    :returns: the evaluation if there is no such key: the body cannot improve it.
    """
    usable = _usable_keys(signature, key_lookup, settings)
    if isinstance(usable, Evaluation):
        return usable
    return _signing_key(signature, usable, header) or _failure(signature, usable, "signature did not verify")


def digest(algorithm: Algorithm, data: bytes) -> bytes:
    """Hash `data` as `algorithm` does before it signs."""
    return new_hash(algorithm.hash_name, data).digest()


def object_to_algorithm(algorithm: Algorithm, settings: SignatureRules) -> str:
    """Why signatures with this algorithm are not tried; empty if they are."""
    if algorithm is Algorithm.RSA_SHA1 and not settings.allow_sha1:
        return "rsa-sha1 is not accepted any more"  # RFC 8301, 3.1: MUST NOT be used for verifying
    return ""


def object_to_key(key: Key, algorithm: Algorithm, settings: SignatureRules) -> str:
    """Why this key cannot be tried with this algorithm; empty if it can."""
    if key.type != algorithm.key_type:
        return f"key is of another type than {algorithm}"
    if key.hash_names is not None and algorithm.hash_name not in key.hash_names:
        return f"key does not allow {algorithm.hash_name} (h=)"  # RFC 6376, 3.6.1, h=
    if key.type == "rsa" and key.bits < min(STANDARD_MIN_RSA_BITS, settings.min_rsa_bits):
        return f"RSA key of only {key.bits} bits"
    if key.type == "rsa" and key.bits > settings.max_rsa_bits:
        return f"RSA key of {key.bits} bits, more than {settings.max_rsa_bits}"
    return ""


def _object_to_signature(signature: Signature, now: int, settings: SignatureRules) -> str:
    objection = object_to_algorithm(signature.algorithm, settings)
    if objection:
        return objection
    # RFC 6376, 3.5, t=: a signature with a timestamp in the future MAY be ignored. It is not ignored here: the
    # timestamp says that a clock is wrong, and nothing about who signed.
    if signature.expiration is not None and signature.expiration + settings.clock_skew < now:
        return "signature expired"
    return ""


class _UsableKeys(Struct, frozen=True):
    """The keys to try, at least one, and whether any at that name is in test mode."""

    keys: tuple[Key, ...]
    testing: bool = False


def _usable_keys(signature: Signature, key_lookup: KeyLookup, settings: SignatureRules) -> _UsableKeys | Evaluation:
    """The keys to try; the evaluation if there is none."""
    if key_lookup.outcome is Outcome.TEMPFAIL:
        detail = f": {key_lookup.reason}" if key_lookup.reason else ""
        return _evaluation(signature, Result.TEMPERROR, f"key lookup of {key_lookup.name} failed temporarily{detail}")
    if not key_lookup.keys:
        return _evaluation(signature, Result.PERMERROR, f"no key at {key_lookup.name}")
    keys, objections = [], []
    for key in key_lookup.keys:
        objection = key.reason if isinstance(key, KeyFault) else _object_to_use(key, signature, settings)
        if objection:
            objections.append(objection)
        elif not isinstance(key, KeyFault):
            keys.append(key)
    testing = any(key.testing for key in key_lookup.keys if isinstance(key, Key))
    if not keys:
        return _evaluation(signature, Result.PERMERROR, f"{objections[0]} at {key_lookup.name}", testing=testing)
    return _UsableKeys(tuple(keys), testing)


def _object_to_use(key: Key, signature: Signature, settings: SignatureRules) -> str:
    """Why this key cannot be tried with this signature; empty if it can."""
    objection = object_to_key(key, signature.algorithm, settings)
    if not objection and key.strict and signature.identity_domain != signature.domain:
        return "i= is in a subdomain, which the key does not allow (t=s)"  # RFC 6376, 3.6.1, t=
    return objection


def _signing_key(signature: Signature, usable: _UsableKeys, header: Header) -> Key | None:
    """The key with which the signature verifies over the header (RFC 6376, 6.1.3, step 4)."""
    octets = signed_octets(signature.signed_fields, header, signature.field, signature.header_canonicalization)
    hashed = digest(signature.algorithm, octets)
    for key in usable.keys:
        if key.verify(signature.algorithm, signature.signature, hashed):
            return key
    return None


def _apply_rules(
    signature: Signature, key: Key, header: Header, unsigned_octets: int, settings: SignatureRules
) -> tuple[str, str]:
    """The local rule that a verified signature breaks (empty for none), and the reason to report."""
    if key.type == "rsa" and key.bits < settings.min_rsa_bits:
        return "key-size", f"verified, but an RSA key of {key.bits} bits is shorter than {settings.min_rsa_bits}"
    if unsigned_octets and settings.refuse_unsigned_body:
        return "unsigned-body", f"verified, but l= leaves the last {unsigned_octets} octets of the body unsigned"
    if header.repeated:
        for name in settings.single_fields:
            if name.lower() in header.repeated and (fault := _find_second_field(name, signature, header)):
                return "unsigned-field", f"verified, but {fault}"
    if key.testing and not settings.test_mode_counts:
        return "test-mode", "verified, but the key is in test mode (t=y)"  # RFC 6376, 3.6.1
    return "", f"verified with {'an RSA' if key.type == 'rsa' else 'an Ed25519'} key of {key.bits} bits"


def _find_second_field(name: str, signature: Signature, header: Header) -> str:
    """What is wrong with several fields of a name that may occur once; empty for nothing.

    Copies of one value are harmless, whichever is signed: all readers see the same.
    """
    fields = header.all(name)
    unsigned = len(fields) - signature.signed_fields.count(name.lower())
    if unsigned <= 0:
        return ""
    first = canonical_field(fields[0], Canonicalization.RELAXED)
    if all(canonical_field(field, Canonicalization.RELAXED) == first for field in fields[1:]):
        return ""
    return f"{unsigned} of {len(fields)} {name} fields {'is' if unsigned == 1 else 'are'} not signed"


def _failure(signature: Signature, usable: _UsableKeys, reason: str, result: Result = Result.FAIL) -> Evaluation:
    return _evaluation(signature, result, reason, testing=usable.testing, key_bits=usable.keys[0].bits)


def _evaluation(
    signature: Signature, result: Result, reason: str, *, testing: bool = False, key_bits: int = 0, policy: str = ""
) -> Evaluation:
    return Evaluation(
        result,
        reason,
        signature.field,
        domain=signature.domain,
        identity=signature.identity,
        selector=signature.selector.name,
        algorithm=str(signature.algorithm),
        b=signature.b,
        testing=testing,
        body_length=signature.body_hash_spec.length,
        policy=policy,
        key_bits=key_bits,
        signed_fields=signature.signed_fields,
    )
