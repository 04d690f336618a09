# SPDX-License-Identifier: GPL-3.0-or-later
"""Writing DKIM-Signature fields (RFC 6376, 3.5 and 5; RFC 8301; RFC 8463).

A pure function of the header as it leaves, the hash of the body, and the keys. It does not decide whether or for whom
to sign. What is signed is what the next hop sees, so the caller applies all other edits first.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Iterable

from cryptography.exceptions import InternalError, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from msgspec import Struct

from assay.model.message import Header, HeaderField
from assay.model.name import Domain
from assay.protocol.dkim.canonical import (
    BodyHashes,
    BodyHashSpec,
    Canonicalization,
    canonical_field,
    canonical_signature_field,
    new_hash,
    select_fields,
)
from assay.protocol.dkim.sign import PrivateKey, algorithm_of, sign_digest
from assay.protocol.dkim.signature import MAX_SIGNED_FIELDS, Algorithm

#: The fields to sign if present, each as often as it occurs: those of RFC 6376, 5.4.1; Sender and Message-ID, which
#: identify the message as From and Date do; the fields that say how to read the body (RFC 2045); and
#: List-Unsubscribe-Post, which RFC 8058, 4 requires to be signed. Fields that change on the way (Received, Return-Path,
#: DKIM-Signature, Authentication-Results) are not among them (RFC 6376, 5.4).
SIGNED_FIELDS = (
    "From",
    "Sender",
    "Reply-To",
    "Subject",
    "Date",
    "Message-ID",
    "To",
    "Cc",
    "Resent-Date",
    "Resent-From",
    "Resent-To",
    "Resent-Cc",
    "In-Reply-To",
    "References",
    "MIME-Version",
    "Content-Type",
    "Content-Transfer-Encoding",
    "Content-Disposition",
    "List-Id",
    "List-Help",
    "List-Unsubscribe",
    "List-Unsubscribe-Post",
    "List-Subscribe",
    "List-Post",
    "List-Owner",
    "List-Archive",
)
#: The fields that are named once more than they occur, so that none can be added (RFC 6376, 8.15): readers show them,
#: or read the body by them.
OVERSIGNED_FIELDS = ("From", "To", "Cc", "Subject", "Date", "Reply-To", "Content-Type")
#: MTAs add these to a message without them (RFC 6409, 8), after the signer has seen it. They are never named more
#: often than they occur if they do not occur.
_ADDED_LATER = frozenset(("date", "message-id"))

_LINE = 76  # columns; RFC 5322, 2.1.1 asks for at most 78
_SAFE_LOCAL_PART = re.compile(rb"[!-:<>-~]")  # RFC 6376, 2.11: dkim-safe-char


class SigningKey(Struct, frozen=True):
    """A private key, and the selector under which its public key is published. The key is parsed once."""

    selector: Domain
    private: PrivateKey

    @property
    def algorithm(self) -> Algorithm:
        """The a= of its signatures."""
        return algorithm_of(self.private)

    @property
    def rsa_bits(self) -> int:
        """The size of an RSA key; 0 for one of another type."""
        return self.private.key_size if isinstance(self.private, RSAPrivateKey) else 0


class SigningRules(Struct, frozen=True):
    """How to sign. `lifetime` is the seconds from t= to x=, 0 for no x=. Field names are in any case."""

    header_canonicalization: Canonicalization = Canonicalization.RELAXED
    body_canonicalization: Canonicalization = Canonicalization.RELAXED
    signed_fields: tuple[str, ...] = SIGNED_FIELDS
    oversigned_fields: tuple[str, ...] = OVERSIGNED_FIELDS
    lifetime: int = 0

    @property
    def body_hash_spec(self) -> BodyHashSpec:
        """The body hash that signatures by these rules need. There is no l= (RFC 6376, 8.2)."""
        return BodyHashSpec(self.body_canonicalization, "sha256")


DEFAULT_SIGNING_RULES = SigningRules()


class SigningError(Exception):
    """A message that cannot be signed. The message says why, in one clause."""


def sign(
    header: Header,
    hashes: BodyHashes,
    domain: Domain,
    keys: Iterable[SigningKey],
    *,
    rules: SigningRules = DEFAULT_SIGNING_RULES,
    identity: str = "",
    now: int,
) -> tuple[HeaderField, ...]:
    """Sign a message with several keys of one domain. Header fields are canonicalized once for all of them.

    :param header: the header as it leaves, without the signatures to make.
    :param hashes: made for specs that include that of `rules`, and fed with the body as it leaves.
    :param domain: d=.
    :param identity: i=, with a domain at or below `domain`; empty for none.
    :param now: the time in Unix seconds.
    :returns: the fields from top to bottom. RSA goes first: some verifiers read only the first signature, and not all
        of them know Ed25519 (RFC 8463, 6).
    :raises SigningError: the header has more fields to sign than verifiers accept, or a key cannot sign, for instance
        because the system's policy forbids its algorithm.
    """
    names = fields_to_sign(header, rules)
    if len(names) > MAX_SIGNED_FIELDS:
        raise SigningError(f"more than {MAX_SIGNED_FIELDS} fields to sign")
    own = HeaderField(b"DKIM-Signature", b"")
    selected = select_fields(names, header, own)
    fields = b"".join([canonical_field(field, rules.header_canonicalization) for field in selected])
    body_hash = b64encode(hashes.digest(rules.body_hash_spec)).decode()
    common = {
        "c": f"{rules.header_canonicalization}/{rules.body_canonicalization}",
        "d": domain.name,
        "t": str(now),
        **({"x": str(now + rules.lifetime)} if rules.lifetime else {}),
        **({"i": encode_identity(identity)} if identity else {}),
        "h": ":".join(names),
        "bh": body_hash,
    }
    ordered = sorted(keys, key=lambda key: key.algorithm is not Algorithm.RSA_SHA256)
    return tuple([_signature(key, fields, common, rules.header_canonicalization) for key in ordered])


def _signature(
    key: SigningKey, fields: bytes, common: dict[str, str], canonicalization: Canonicalization
) -> HeaderField:
    tags = {"v": "1", "a": key.algorithm.value, **common, "s": key.selector.name}
    unsigned = _fold(_pieces(tags))
    octets = canonical_signature_field(_field(unsigned), canonicalization)
    digest = new_hash(key.algorithm.hash_name, fields + octets).digest()
    try:
        signature = sign_digest(key.private, digest)
    except (ValueError, UnsupportedAlgorithm, InternalError) as error:
        raise SigningError(f"the key of {key.selector} cannot sign: {error}") from error
    return _field(_append(unsigned, b64encode(signature).decode()))


def fields_to_sign(header: Header, rules: SigningRules) -> list[str]:
    """The names for h=, in the order in which they are signed: each field as often as it occurs, and those to
    oversign once more."""
    oversigned = {name.lower() for name in rules.oversigned_fields}
    order = dict.fromkeys(name.lower() for name in (*rules.signed_fields, *rules.oversigned_fields))
    found = []
    for name in order:
        count = len(header.all(name))
        if name in oversigned and (count or name not in _ADDED_LATER):
            count += 1
        found += [name] * count
    return found


def encode_identity(identity: str) -> str:
    """An address as i= holds it (RFC 6376, 2.11): what is not plain ASCII in its local part is quoted."""
    local_part, _, domain = identity.rpartition("@")
    octets = local_part.encode("utf-8", "surrogateescape")
    quoted = (chr(octet) if _SAFE_LOCAL_PART.match(bytes((octet,))) else f"={octet:02X}" for octet in octets)
    return f"{''.join(quoted)}@{domain}"


def _field(value: str) -> HeaderField:
    return HeaderField(b"DKIM-Signature", b" " + value.encode())


def _pieces(tags: dict[str, str]) -> Iterable[tuple[str, str]]:
    """The parts of a tag list that stay on one line, each with the white space before it."""
    for name in ("v", "a", "c", "d", "s", "t", "x", "i"):
        if name in tags:
            yield " ", f"{name}={tags[name]};"
    first, *others = tags["h"].split(":")
    names = [f"h={first}", *others]
    yield from ((" " if not at else "", name + (":" if at < len(others) else ";")) for at, name in enumerate(names))
    yield " ", f"bh={tags['bh']};"
    yield " ", "b="


def _fold(pieces: Iterable[tuple[str, str]]) -> str:
    """Put pieces on lines. Only whole pieces move to the next line, so every MTA finds short lines and folds none."""
    lines = [""]
    room = _LINE - len("DKIM-Signature:")
    for space, text in pieces:
        if len(lines[-1]) + len(space) + len(text) > room and lines[-1]:
            lines.append(text)
            room = _LINE - 1
        else:
            lines[-1] += (space if lines[-1] else "") + text
    return "\r\n ".join(lines)


def _append(folded: str, signature: str) -> str:
    """Put the value of b= after its name, at the end of a folded tag list. White space in it does not count."""
    room = _LINE - 1 - len(folded.rpartition("\n ")[2])
    lines = [signature[:room]]
    rest = signature[room:]
    lines += [rest[at : at + _LINE - 1] for at in range(0, len(rest), _LINE - 1)]
    return folded + "\r\n ".join(lines)
