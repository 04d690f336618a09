# SPDX-License-Identifier: GPL-3.0-or-later
"""Sealing: adding our own ARC set (RFC 8617, 5.1).

A pure function of the message as it leaves us, the validation of its chain when it arrived, and the results recorded
in between. It does not decide whether to seal: sealing is always safe (RFC 8617, 5.1.5), but only useful after the
last change. Old sets are never touched.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections import Counter
from collections.abc import Iterable, Sequence

from assay.model.message import Header, HeaderField
from assay.model.name import Domain
from assay.protocol import dkim
from assay.protocol.arc.chain import (
    AUTHENTICATION_RESULTS,
    MAX_SETS,
    MESSAGE_SIGNATURE,
    SEAL,
    ARCSet,
    Chain,
    parse_chain,
    read_ending,
)
from assay.protocol.arc.result import Evaluation, Result
from assay.protocol.dkim.canonical import (
    Canonicalization,
    canonical_field,
    canonical_signature_field,
    signed_octets,
)
from assay.protocol.dkim.sign import PrivateKey, algorithm_of, sign_digest
from assay.protocol.dkim.verify import digest

#: The body hash of every seal that is made here.
BODY_HASH_SPEC = dkim.BodyHashSpec(Canonicalization.RELAXED, "sha256")

#: Fields to sign if present, each as often as it occurs: those of RFC 6376, 5.4.1, and DKIM-Signature, which RFC 8617,
#: 4.1.2 asks for. From is signed once more than it occurs, so that none can be added.
SIGNED_FIELDS = (
    "from",
    "reply-to",
    "subject",
    "date",
    "to",
    "cc",
    "message-id",
    "in-reply-to",
    "references",
    "mime-version",
    "content-type",
    "content-transfer-encoding",
    "list-id",
    "list-help",
    "list-unsubscribe",
    "list-unsubscribe-post",
    "list-subscribe",
    "list-post",
    "list-owner",
    "list-archive",
    "dkim-signature",
)

#: RFC 8617, 4.1.2: MUST NOT be in h=, because they change or disappear on the way.
_NEVER_SIGNED = {
    "authentication-results",
    *(name.lower() for name in (AUTHENTICATION_RESULTS, MESSAGE_SIGNATURE, SEAL)),
}

_LINE = 78  # RFC 5322, 2.1.1: what lines SHOULD not exceed

#: What the semicolons of an Authentication-Results field separate: comments, quoted strings and anything else. An
#: unterminated comment or string is read as far as it can go, so no octet is read twice.
_RESULT = re.compile(rb"(?>(?:[^;(\"]|\((?>(?:[^()\\]|\\.)*)\)?+|\"(?>(?:[^\"\\]|\\.)*)\"?+)+)", re.DOTALL)
_VERSION = re.compile(rb"(?<![ \t])[ \t]++1\Z")  # RFC 8601, 2.2: authres-version; there is one


def seal(
    header: Header,
    hashes: dkim.BodyHashes,
    *,
    validation: Evaluation,
    authserv_id: str,
    authentication_results: Sequence[str],
    domain: Domain,
    selector: Domain,
    private_key: PrivateKey,
    timestamp: int,
    sign_headers: Sequence[str] | None = None,
) -> tuple[HeaderField, ...]:
    """Make the ARC set of this hop (RFC 8617, 5.1).

    :param header: the header as it leaves, without the set to make.
    :param hashes: made for a set of specs that includes `BODY_HASH_SPEC`, and fed with the body as it leaves.
    :param validation: the validation of the chain when the message arrived.
    :param authentication_results: every result of this ADMD as in Authentication-Results, one per string, for instance
        from `recorded_results`; empty if nothing was checked.
    :param timestamp: the time in Unix seconds.
    :param sign_headers: the names for h= in their order, without those that ARC forbids; None for
        `fields_to_sign`.
    :returns: ARC-Seal, ARC-Message-Signature and ARC-Authentication-Results, to insert at the top of the header in this
        order; or nothing if no set may be added: the last sealer found the chain broken, or it has 50 sets.
    """
    last_instance, failed = read_ending(header)
    if failed or last_instance >= MAX_SETS:  # RFC 8617, 5.1, steps 2 and 3
        return ()
    cv, earlier = _continue_chain(header, validation, last_instance)
    instance = last_instance + 1
    results = _field(AUTHENTICATION_RESULTS, _results_value(instance, authserv_id, authentication_results))
    algorithm = algorithm_of(private_key)
    tags = {
        "a": algorithm.value,
        "b": "",
        "d": domain.name,
        "i": str(instance),
        "s": selector.name,
        "t": str(timestamp),
    }
    chosen = fields_to_sign(header) if sign_headers is None else (name.lower() for name in sign_headers)
    names = tuple(name for name in chosen if name not in _NEVER_SIGNED)
    message_tags = {
        **tags,
        "bh": b64encode(hashes.digest(BODY_HASH_SPEC)).decode(),
        "c": "relaxed/relaxed",
        "h": ":".join(names),
    }
    unsigned = _field(MESSAGE_SIGNATURE, _tags_value(MESSAGE_SIGNATURE, message_tags))
    octets = signed_octets(names, header, unsigned, Canonicalization.RELAXED)
    message_tags["b"] = b64encode(sign_digest(private_key, digest(algorithm, octets))).decode()
    message_signature = _field(MESSAGE_SIGNATURE, _tags_value(MESSAGE_SIGNATURE, message_tags))
    seal_tags = {**tags, "cv": cv.value}
    unsealed = _field(SEAL, _tags_value(SEAL, seal_tags))
    octets = _sealed_octets(earlier, (results, message_signature), unsealed)
    seal_tags["b"] = b64encode(sign_digest(private_key, digest(algorithm, octets))).decode()
    return _field(SEAL, _tags_value(SEAL, seal_tags)), message_signature, results


def fields_to_sign(header: Header) -> tuple[str, ...]:
    """The names for h= of a message: `SIGNED_FIELDS` as often as they occur, and From once more."""
    counts = Counter({name: len(header.all(name)) for name in SIGNED_FIELDS})
    counts["from"] += 1
    return tuple(counts.elements())


def recorded_results(header: Header, authserv_id: str) -> tuple[str, ...]:
    """The results of all Authentication-Results fields with our `authserv_id` (RFC 8617, 4.1.1 wants them in one).

    The caller has removed the forged ones. Comments are kept; a field that says ``none`` adds nothing.
    """
    found: list[str] = []
    for field in header.all("Authentication-Results"):
        identifier, *results = _RESULT.findall(field.unfolded) or (b"",)
        identifier = _VERSION.sub(b"", identifier.strip(b" \t"))
        if identifier.decode("utf-8", "surrogateescape").casefold() != authserv_id.casefold():
            continue
        texts = [result.strip(b" \t").decode("utf-8", "surrogateescape") for result in results]
        found += [text for text in texts if text and text.lower() != "none"]
    return tuple(found)


def _continue_chain(header: Header, validation: Evaluation, last_instance: int) -> tuple[Result, tuple[ARCSet, ...]]:
    """The cv= of our seal, and the earlier sets that it covers."""
    if validation.result is Result.NONE and last_instance == 0:
        return Result.NONE, ()
    chain = parse_chain(header)
    if validation.result is Result.PASS and isinstance(chain, Chain) and len(chain.sets) == validation.instance:
        return Result.PASS, chain.sets
    # RFC 8617, 5.1.2: for a broken chain, only our own set is sealed, as if it were the only one.
    return Result.FAIL, ()


def _sealed_octets(earlier: Iterable[ARCSet], own: Iterable[HeaderField], unsealed: HeaderField) -> bytes:
    """The octets that a seal signs (RFC 8617, 5.1.1): all sets in the order they were added, then itself."""
    fields = [
        field
        for arc_set in earlier
        for field in (arc_set.authentication_results, arc_set.message_signature_field, arc_set.seal.field)
    ]
    octets = [canonical_field(field, Canonicalization.RELAXED) for field in (*fields, *own)]
    return b"".join(octets) + canonical_signature_field(unsealed, Canonicalization.RELAXED)


def _field(name: str, value: str) -> HeaderField:
    return HeaderField(name.encode(), value.encode("utf-8", "surrogateescape"))


def _results_value(instance: int, authserv_id: str, results: Sequence[str]) -> str:
    # A line end inside a result could start a new field.
    lines = [re.sub(r"[\r\n]+[ \t]*", " ", text) for text in (authserv_id, *(results or ("none",)))]
    return f" i={instance}; " + ";\r\n ".join(lines)


def _tags_value(name: str, tags: dict[str, str]) -> str:
    """Write a tag list, i= first and folded between its tags.

    It is never folded inside b= and bh=: later seals cover this field with its white space, so the less the
    better. A line with a signature of 4096 bits has 690 octets, which RFC 5322, 2.1.1 allows.
    """
    lines = [""]
    room = _LINE - len(name) - 1
    for at, tag in enumerate(_order(tags)):
        text = f" {tag}={tags[tag]}" + (";" if at < len(tags) - 1 else "")
        if len(lines[-1]) + len(text) > room and lines[-1]:
            lines.append("")
            room = _LINE
        if tag == "h" and len(text) > room:  # white space is allowed around its colons (RFC 6376, 3.5)
            text = _fold_names(text)
        lines[-1] += text
    return "\r\n".join(lines)


def _order(tags: Iterable[str]) -> list[str]:
    """i= first, as the grammar of RFC 8617, 4.1.2 and 4.1.3 requires; the others by name."""
    return sorted(tags, key=lambda tag: (tag != "i", tag))


def _fold_names(text: str) -> str:
    lines = [""]
    for name in re.findall(r"[^:]+:?", text):
        if len(lines[-1]) + len(name) > _LINE - 1:
            lines.append("")
        lines[-1] += name
    return "\r\n ".join(lines)
