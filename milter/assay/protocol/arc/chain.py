# SPDX-License-Identifier: GPL-3.0-or-later
"""The ARC sets of a message, parsed once into a chain (RFC 8617, 4 and 5.2, steps 1 to 3).

A parsed chain is structurally whole: only keys, hashes and signatures can still break it. A wrong structure becomes an
evaluation at once, before any DNS question, because RFC 8617, 5.2.1 makes every failure permanent.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import TypeVar

from msgspec import Struct

from assay.model.message import Header, HeaderField
from assay.model.name import Domain
from assay.protocol.arc.result import Evaluation, Result, Sealer
from assay.protocol.dkim.canonical import BodyHashSpec
from assay.protocol.dkim.signature import (
    Algorithm,
    Signature,
    SignatureError,
    read,
    read_algorithm,
    read_base64,
    read_names,
    read_time,
    require,
)
from assay.protocol.syntax.tags import TagListError, parse_tags

MAX_SETS = 50  # RFC 8617, 5.2, step 1

AUTHENTICATION_RESULTS = "ARC-Authentication-Results"
MESSAGE_SIGNATURE = "ARC-Message-Signature"
SEAL = "ARC-Seal"

_POSITION = re.compile(r"[0-9]{1,2}")  # RFC 8617, 4.2.1
#: RFC 8617, 4.1.1: the instance comes first and ends with a semicolon. CFWS may surround it; nested
#: comments are not read. Each octet can be matched in one way only.
_CFWS = rb"(?>(?:[ \t\r\n]|\((?>(?:[^()\\]|\\.)*)\))*)"
_INSTANCE = re.compile(_CFWS + rb"i" + _CFWS + rb"=" + _CFWS + rb"([0-9]{1,2})" + _CFWS + rb";", re.DOTALL)


_CV = {result.value: result for result in Result}
T = TypeVar("T")


class Seal(Struct, frozen=True):
    """An ARC-Seal field (RFC 8617, 4.1.3)."""

    field: HeaderField
    domain: Domain
    selector: Domain
    algorithm: Algorithm
    signature: bytes
    cv: Result


class ARCSet(Struct, frozen=True):
    """The three fields that one sealer added (RFC 8617, 4).

    `message_signature` is None if the ARC-Message-Signature cannot be tried, and `fault` is the reason. That breaks the
    chain only in the last set.
    """

    instance: int
    authentication_results: HeaderField
    payload: str
    message_signature_field: HeaderField
    message_signature: Signature | None
    fault: str
    seal: Seal

    @property
    def sealer(self) -> Sealer:
        """The sealer that added it."""
        return Sealer(self.instance, self.seal.domain, self.seal.selector.name, self.seal.cv, self.payload)


class Chain(Struct, frozen=True):
    """The sets of a structurally whole chain, from instance 1 on; at least one."""

    sets: tuple[ARCSet, ...]

    @property
    def body_hash_specs(self) -> tuple[BodyHashSpec, ...]:
        """The body hashes to compute: those of the older sets are for `Evaluation.oldest_pass`."""
        signatures = (arc_set.message_signature for arc_set in self.sets)
        return tuple(dict.fromkeys(signature.body_hash_spec for signature in signatures if signature is not None))

    @property
    def sealers(self) -> tuple[Sealer, ...]:
        """The sealers from the first to the last."""
        return tuple(arc_set.sealer for arc_set in self.sets)


class ChainError(ValueError):
    """A header whose ARC fields are not a chain. The message tells a postmaster why."""


def parse_chain(header: Header, *, max_sets: int = MAX_SETS) -> Chain | Evaluation:
    """Find the ARC sets of a message and check their structure.

    :param max_sets: longer chains fail; a lower bound than the RFC's saves two DNS questions for each set.
    :returns: a chain to validate, or the evaluation: ``none`` without ARC fields, else ``fail``.
    """
    fields = {name: header.all(name) for name in (AUTHENTICATION_RESULTS, MESSAGE_SIGNATURE, SEAL)}
    count = max(map(len, fields.values()))
    if not count:
        return Evaluation(Result.NONE, "no ARC set")
    if count > max_sets:  # RFC 8617, 5.2, step 1
        return Evaluation(Result.FAIL, f"more than {max_sets} ARC sets")
    try:
        chain = _parse_sets(fields)
    except ChainError as error:
        return Evaluation(Result.FAIL, str(error))
    fault = _find_cv_fault(chain.sets)
    return Evaluation(Result.FAIL, fault, len(chain.sets), None, chain.sealers) if fault else chain


def read_ending(header: Header) -> tuple[int, bool]:
    """How the chain of a message ends, however broken it is: what a sealer needs to know (RFC 8617, 5.1).

    :returns: the highest instance of any ARC field, 0 without one, and whether a seal of that instance says cv=fail.
    """
    instances = [0]
    failed = set()
    for field in header.all(AUTHENTICATION_RESULTS):
        with suppress(ChainError):
            instances.append(_parse_results(field)[0])
    for field in (*header.all(MESSAGE_SIGNATURE), *header.all(SEAL)):
        with suppress(ChainError):
            instance, (_, tags) = _parse_tags(field)
            instances.append(instance)
            if tags.get("cv", "").lower() == Result.FAIL:
                failed.add(instance)
    return max(instances), max(instances) in failed


def _parse_sets(fields: Mapping[str, Sequence[HeaderField]]) -> Chain:
    """Put the sets together (RFC 8617, 5.2, step 3): each of the three fields exactly once for each instance."""
    results = _by_instance(AUTHENTICATION_RESULTS, map(_parse_results, fields[AUTHENTICATION_RESULTS]))
    signatures = _by_instance(MESSAGE_SIGNATURE, map(_parse_tags, fields[MESSAGE_SIGNATURE]))
    seals = _by_instance(SEAL, map(_parse_tags, fields[SEAL]))
    sets = []
    for instance in range(1, max([*results, *signatures, *seals]) + 1):
        for name, found in ((AUTHENTICATION_RESULTS, results), (MESSAGE_SIGNATURE, signatures), (SEAL, seals)):
            if instance not in found:
                raise ChainError(f"no {name} field with i={instance}")
        results_field, payload = results[instance]
        signature_field, signature_tags = signatures[instance]
        signature, fault = _read_message_signature(signature_field, signature_tags)
        sets.append(
            ARCSet(
                instance=instance,
                authentication_results=results_field,
                payload=payload,
                message_signature_field=signature_field,
                message_signature=signature,
                fault=fault,
                seal=_read_seal(instance, *seals[instance]),
            )
        )
    return Chain(tuple(sets))


def _by_instance(name: str, parsed: Iterable[tuple[int, T]]) -> dict[int, T]:
    found: dict[int, T] = {}
    for instance, content in parsed:
        if instance in found:
            raise ChainError(f"two {name} fields with i={instance}")
        found[instance] = content
    return found


def _parse_results(field: HeaderField) -> tuple[int, tuple[HeaderField, str]]:
    """Read an ARC-Authentication-Results field: its instance, and the rest as text."""
    match = _INSTANCE.match(field.value)
    if match is None:
        raise ChainError(f"{AUTHENTICATION_RESULTS} field that does not start with i=")
    payload = field.value[match.end() :].replace(b"\r\n", b"").strip(b" \t")
    return _check_instance(AUTHENTICATION_RESULTS, int(match[1])), (field, payload.decode("utf-8", "surrogateescape"))


def _parse_tags(field: HeaderField) -> tuple[int, tuple[HeaderField, dict[str, str]]]:
    """Read the tags of the other two fields: their instance, and all of them."""
    name = SEAL if field.key == SEAL.lower().encode() else MESSAGE_SIGNATURE
    try:
        tags = parse_tags(field.value)
    except TagListError as error:
        raise ChainError(f"malformed {name} field: {error}") from None
    position = tags.get("i", "")
    if not _POSITION.fullmatch(position):
        raise ChainError(f"{name} field without a valid i=")
    return _check_instance(name, int(position)), (field, tags)


def _check_instance(name: str, instance: int) -> int:
    if not 1 <= instance <= MAX_SETS:  # RFC 8617, 4.2.1
        raise ChainError(f"{name} field with i={instance}")
    return instance


def _read_message_signature(field: HeaderField, tags: Mapping[str, str]) -> tuple[Signature | None, str]:
    """Read an ARC-Message-Signature (RFC 8617, 4.1.2): a DKIM signature without v= whose i= is not an identity."""
    try:
        signature = read(field, tags, identity=None)
    except SignatureError as error:
        return None, error.reason
    # RFC 8617, 4.1.2 forbids all ARC fields in h=. Some sealers sign the other two, which is harmless; an
    # ARC-Seal there would be of an older set, because the new one is made last.
    if SEAL.lower() in signature.signed_fields:
        return None, f"h= names {SEAL}"
    return signature, ""


def _read_seal(instance: int, field: HeaderField, tags: Mapping[str, str]) -> Seal:
    """Read an ARC-Seal (RFC 8617, 4.1.3)."""
    try:
        if "h" in tags:  # RFC 8617, 4.1.3: the chain has then failed
            raise ChainError(f"{SEAL} with i={instance} has an h= tag")
        cv = _CV.get(require(tags, "cv").lower())
        if cv is None:
            raise ChainError(f"{SEAL} with i={instance} has an unknown cv=")
        domain, selector = read_names(tags)
        read_time(tags, "t")  # RFC 8617, 4.1.3: optional, but must be a time
        return Seal(field, domain, selector, read_algorithm(tags), read_base64(tags, "b"), cv)
    except SignatureError as error:
        raise ChainError(f"{SEAL} with i={instance}: {error.reason}") from None


def _find_cv_fault(sets: Sequence[ARCSet]) -> str:
    """What is wrong with the cv= of a chain's seals (RFC 8617, 5.2, steps 2 and 3.C); empty for nothing."""
    if sets[-1].seal.cv is Result.FAIL:
        return f"the last sealer, {sets[-1].seal.domain}, received a broken chain (cv=fail)"
    for arc_set in sets:
        expected = Result.NONE if arc_set.instance == 1 else Result.PASS
        if arc_set.seal.cv is not expected:
            return f"{SEAL} with i={arc_set.instance} says cv={arc_set.seal.cv} instead of {expected}"
    return ""
