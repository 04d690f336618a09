# SPDX-License-Identifier: GPL-3.0-or-later
"""The DKIM-Signature header field, parsed once (RFC 6376, 3.5; RFC 8616, 5).

A parsed signature is complete and consistent in itself: only keys, hashes, time and local rules can still make it
fail. Everything is checked before any DNS question, so that only host names reach a resolver. ARC-Message-Signature and
ARC-Seal share the tags' syntax: `assay.protocol.arc` uses `read` and its helpers too.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import StrEnum

from msgspec import Struct

from assay.model.message import HeaderField
from assay.model.name import MAX_DOMAIN_LENGTH, Domain, InvalidNameError
from assay.protocol.dkim.canonical import BodyHashSpec, Canonicalization
from assay.protocol.dkim.result import Evaluation, Result
from assay.protocol.syntax.tags import TagListError, decode_base64, parse_tags, split_list, without_fws

#: Our choice: bounds the work for one h=. Real signatures, oversigning included, name fewer than 100 fields.
MAX_SIGNED_FIELDS = 1000

#: Our choice: an address has 64 octets before the @ and 255 after it (RFC 5321, 4.5.3.1), and quoted-printable makes
#: three of each. It is copied into the header and the facts.
MAX_IDENTITY_LENGTH = 1000

_REQUIRED = frozenset(("a", "b", "bh", "d", "h", "s"))  # RFC 6376, 3.5, besides v=
_TIME = re.compile(r"[0-9]{1,12}")  # RFC 6376, 3.5, t= and x=
_LENGTH = re.compile(r"[0-9]{1,76}")  # RFC 6376, 3.5, l=
_FIELD_NAMES = re.compile(r"[!-9<-~]++(?::[!-9<-~]++)*")  # RFC 5322, 2.2, without the semicolon, which ends a tag
_QUOTED_OCTET = re.compile(r"=([0-9A-F]{2})?")  # RFC 6376, 2.11; a "=" alone is an error
_DNS_TXT = "dns/txt"


class Algorithm(StrEnum):
    """The algorithms of a= (RFC 6376, 3.3; RFC 8463, 3). The verifier decides whether SHA-1 is still accepted.

    `key_type` is the k= of a key record for it; `hash_name` is the hash of header and body, as `hashlib` and h= of a
    key record name it.
    """

    key_type: str
    hash_name: str

    RSA_SHA256 = "rsa-sha256"
    ED25519_SHA256 = "ed25519-sha256"
    RSA_SHA1 = "rsa-sha1"

    def __new__(cls, word: str) -> Algorithm:
        """A member, with the parts of its word."""
        member = str.__new__(cls, word)
        member._value_ = word
        member.key_type, _, member.hash_name = word.partition("-")
        return member


_ALGORITHMS = {algorithm.value: algorithm for algorithm in Algorithm}
_CANONICALIZATIONS = {canonicalization.value: canonicalization for canonicalization in Canonicalization}


class Signature(Struct, frozen=True):
    """A signature that is worth a key lookup.

    `field` is the field it was parsed from; verification compares it by identity to skip it. `identity`
    is i= decoded, or ``@`` and the domain. `signed_fields` are the names of h= in lower case. `timestamp` and
    `expiration` are Unix seconds, None where absent. `body_hash_spec` is the body hash to compute for it.
    """

    field: HeaderField
    domain: Domain
    selector: Domain
    identity: str
    identity_domain: Domain
    algorithm: Algorithm
    header_canonicalization: Canonicalization
    signed_fields: tuple[str, ...]
    body_hash: bytes
    signature: bytes
    b: str
    timestamp: int | None
    expiration: int | None
    body_hash_spec: BodyHashSpec


class SignatureError(ValueError):
    """A field that cannot be tried as a signature, and the DKIM result for it."""

    def __init__(self, result: Result, reason: str) -> None:
        super().__init__(reason)
        self.result = result
        self.reason = reason


def parse(field: HeaderField) -> Signature | Evaluation:
    """Parse a DKIM-Signature field. One that cannot be tried becomes an evaluation, with its readable parts."""
    try:
        tags = parse_tags(field.value)
    except TagListError as error:
        return Evaluation(Result.NEUTRAL, f"malformed signature: {error}", field)
    try:
        if require(tags, "v") != "1":  # RFC 6376, 3.5, v=: drafts had other numbers or none
            raise SignatureError(Result.NEUTRAL, "unknown version in v=")
        signature = read(field, tags, identity=tags.get("i"))
        if not signature.signed_fields:
            raise SignatureError(Result.NEUTRAL, "h= is empty")
        if "from" not in signature.signed_fields:  # RFC 6376, 5.4 and 6.1.1
            raise SignatureError(Result.PERMERROR, "h= does not name From")
    except SignatureError as error:
        return _cannot_be_tried(field, tags, error)
    return signature


def read(field: HeaderField, tags: Mapping[str, str], *, identity: str | None) -> Signature:
    """Read the tags that DKIM-Signature and ARC-Message-Signature share.

    :param identity: the value of DKIM's i=, None where it is absent or, as in ARC, means something else.
    :returns: a signature whose `signed_fields` may be empty or lack From: ARC has no such rule.
    :raises SignatureError: for what RFC 6376, 6.1.1 refuses before any key lookup.
    """
    if not tags.keys() >= _REQUIRED:
        for name in sorted(_REQUIRED):
            require(tags, name)
    algorithm = read_algorithm(tags)
    header_canonicalization, body_canonicalization = _read_canonicalizations(tags.get("c", "simple/simple"))
    # RFC 6376, 3.5, q=: unknown methods are ignored; only one is known.
    if _DNS_TXT not in split_list(tags.get("q", _DNS_TXT)):
        raise SignatureError(Result.NEUTRAL, "q= does not offer dns/txt")
    domain, selector = read_names(tags)
    decoded_identity, identity_domain = _read_identity(identity, domain)
    timestamp, expiration = read_time(tags, "t"), read_time(tags, "x")
    if timestamp is not None and expiration is not None and expiration <= timestamp:
        raise SignatureError(Result.PERMERROR, "x= is not after t=")
    return Signature(
        field=field,
        domain=domain,
        selector=selector,
        identity=decoded_identity,
        identity_domain=identity_domain,
        algorithm=algorithm,
        header_canonicalization=header_canonicalization,
        signed_fields=_read_signed_fields(tags["h"]),
        body_hash=read_base64(tags, "bh"),
        signature=read_base64(tags, "b"),
        b=without_fws(tags["b"]),
        timestamp=timestamp,
        expiration=expiration,
        body_hash_spec=BodyHashSpec(body_canonicalization, algorithm.hash_name, _read_number(tags, "l", _LENGTH)),
    )


def require(tags: Mapping[str, str], name: str) -> str:
    """The value of a required tag.

    :raises SignatureError: it is absent.
    """
    value = tags.get(name)
    if value is None:
        raise SignatureError(Result.PERMERROR, f"no {name}= tag")
    return value


def read_algorithm(tags: Mapping[str, str]) -> Algorithm:
    """The algorithm of a=, in lower case, because RFC 6376, 3.2 makes values case-sensitive.

    :raises SignatureError: it is absent or unknown.
    """
    algorithm = _ALGORITHMS.get(require(tags, "a"))
    if algorithm is None:
        raise SignatureError(Result.NEUTRAL, "unknown algorithm in a=")
    return algorithm


def read_names(tags: Mapping[str, str]) -> tuple[Domain, Domain]:
    """The domain of d= and the selector of s=, in A-labels for the DNS (RFC 8616, 5).

    :raises SignatureError: one of them is absent or not a host name, or the key's name would be too long for the DNS.
    """
    domain, selector = _read_name(tags, "d"), _read_name(tags, "s")
    if len(domain.labels) < 2:  # RFC 6376, 3.5: domain-name = sub-domain 1*("." sub-domain)
        raise SignatureError(Result.PERMERROR, "d= is a top-level domain")
    if len(key_name(domain, selector)) > MAX_DOMAIN_LENGTH:
        raise SignatureError(Result.PERMERROR, "d= and s= are too long for a DNS name")
    return domain, selector


def key_name(domain: Domain, selector: Domain) -> str:
    """Where the key record is (RFC 6376, 3.6.2.1)."""
    return f"{selector.name}._domainkey.{domain.name}"


def read_base64(tags: Mapping[str, str], name: str) -> bytes:
    """The octets of a required base64 tag.

    :raises SignatureError: it is absent, empty or not base64.
    """
    try:
        return decode_base64(require(tags, name))
    except TagListError as error:
        raise SignatureError(Result.NEUTRAL, f"{name}= is {error}") from None


def read_time(tags: Mapping[str, str], name: str) -> int | None:
    """The Unix seconds of t= or x=, None where it is absent.

    :raises SignatureError: it is not a number of at most 12 digits.
    """
    return _read_number(tags, name, _TIME)


def _read_number(tags: Mapping[str, str], name: str, pattern: re.Pattern[str]) -> int | None:
    value = tags.get(name)
    if value is None:
        return None
    if not pattern.fullmatch(value):
        raise SignatureError(Result.NEUTRAL, f"{name}= is not a number")
    return int(value)


def _read_name(tags: Mapping[str, str], name: str) -> Domain:
    value = require(tags, name)
    try:
        if value.endswith("."):  # RFC 6376, 3.5: not in the grammar for names
            raise InvalidNameError("name with a final dot")
        return Domain.parse_host(value)  # RFC 6376, 3.5: sub-domain of RFC 5321, 4.1.2; underscores are in use
    except InvalidNameError as error:
        raise SignatureError(Result.PERMERROR, f"{name}= is not a host name: {error}") from None


def _read_canonicalizations(value: str) -> tuple[Canonicalization, Canonicalization]:
    header, slash, body = value.partition("/")
    try:
        # RFC 6376, 3.5, c=: the body's is simple if only the header's is named.
        return _CANONICALIZATIONS[header], _CANONICALIZATIONS[body if slash else "simple"]
    except KeyError:
        raise SignatureError(Result.NEUTRAL, "unknown canonicalization in c=") from None


def _read_signed_fields(value: str) -> tuple[str, ...]:
    if not value:
        return ()
    names = split_list(value.lower())
    if len(names) > MAX_SIGNED_FIELDS:
        raise SignatureError(Result.NEUTRAL, f"h= names more than {MAX_SIGNED_FIELDS} fields")
    if not _FIELD_NAMES.fullmatch(":".join(names)):
        raise SignatureError(Result.NEUTRAL, "h= is not a list of field names")
    return tuple(names)


def _read_identity(value: str | None, domain: Domain) -> tuple[str, Domain]:
    """Decode i= (dkim-quoted-printable) and check that it is at or below d=."""
    if value is None:
        return f"@{domain.name}", domain  # RFC 6376, 3.5, i=
    value = without_fws(value)
    if len(value) > MAX_IDENTITY_LENGTH:
        raise SignatureError(Result.NEUTRAL, f"i= is longer than {MAX_IDENTITY_LENGTH} characters")
    local_part, at, identity_domain_text = _decode_quoted_printable(value).rpartition("@")
    if not at:
        raise SignatureError(Result.NEUTRAL, "no @ in i=")
    try:
        identity_domain = Domain.parse(identity_domain_text)
    except InvalidNameError as error:
        raise SignatureError(Result.PERMERROR, f"the domain of i= is not a host name: {error}") from None
    if not identity_domain.is_at_or_below(domain):
        raise SignatureError(Result.PERMERROR, "the domain of i= is not at or below d=")
    return f"{local_part}@{identity_domain.name}", identity_domain


def _decode_quoted_printable(value: str) -> str:
    """RFC 6376, 2.11: no line ends except those of folding, upper-case hexadecimal digits, UTF-8 (RFC 8616, 5)."""
    if "=" in value:
        octets = value.encode()
        if any(match[1] is None for match in _QUOTED_OCTET.finditer(value)):
            raise SignatureError(Result.NEUTRAL, "i= is not quoted-printable")
        try:
            value = re.sub(rb"=(..)", lambda match: bytes([int(match[1], 16)]), octets).decode()
        except UnicodeDecodeError:
            raise SignatureError(Result.NEUTRAL, "i= is not UTF-8") from None
    if not value.isprintable():  # it is reported in a header and must not end a line
        raise SignatureError(Result.NEUTRAL, "control character in i=")
    return value


def _cannot_be_tried(field: HeaderField, tags: Mapping[str, str], error: SignatureError) -> Evaluation:
    """The evaluation of a field that is not a usable signature, with its names if they are valid."""
    try:
        domain, selector = read_names(tags)
    except SignatureError:
        return Evaluation(error.result, error.reason, field)
    algorithm = _ALGORITHMS.get(tags.get("a", ""))
    return Evaluation(
        error.result,
        error.reason,
        field,
        domain=domain,
        identity=f"@{domain.name}",
        selector=selector.name,
        algorithm=algorithm.value if algorithm else "",
        b=without_fws(tags["b"]) if _is_base64(tags.get("b", "")) else "",
    )


def _is_base64(value: str) -> bool:
    try:
        return bool(decode_base64(value))
    except TagListError:
        return False
