# SPDX-License-Identifier: GPL-3.0-or-later
"""Validating a chain (RFC 8617, 5.2, steps 4 to 7).

Every failure is permanent, even one of the DNS (RFC 8617, 5.2.1): the next sealer will record it, so that the chain can
never pass again. Which sealers to trust is not decided here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress

from msgspec import Struct
from msgspec.structs import replace

from assay.inquiry import Grounds, Inquiry, Outcome, joined
from assay.model.message import Header, HeaderField
from assay.protocol import dkim
from assay.protocol.arc.chain import MESSAGE_SIGNATURE, SEAL, ARCSet, Chain, Seal
from assay.protocol.arc.result import Evaluation, Result
from assay.protocol.dkim.canonical import Canonicalization, canonical_field, canonical_signature_field
from assay.protocol.dkim.key import KeyFault, key_question, read_answer
from assay.protocol.dkim.signature import Algorithm, SignatureError, read_names
from assay.protocol.dkim.verify import object_to_key
from assay.protocol.syntax.tags import TagListError, parse_tags


class Lookups(Struct, frozen=True):
    """The key lookups for a chain, and what is known of its newest set without the body.

    `keys` are the lookups by the name of the key record. `fault` says why the newest set does not verify; the keys of
    the older sets were then not looked up. `signing_key` made the newest ARC-Message-Signature. `digests` are what the
    seals sign, from the first set on.
    """

    keys: Mapping[str, dkim.KeyLookup]
    fault: str = ""
    signing_key: dkim.Key | None = None
    digests: tuple[bytes, ...] = ()


def fetch_keys(chain: Chain, header: Header, settings: dkim.SignatureRules = dkim.DEFAULT_RULES) -> Inquiry[Lookups]:
    """Ask for the keys of a chain: those of the newest set, and if it verifies, of all others in one batch.

    Anybody can write a chain that names a hundred keys of others. To make us look them up, a sender must own a key and
    sign with it. The signature and the seal cover the header alone, so the batches need not wait for the body.

    :param header: the header that the chain was parsed from, as received.
    :param settings: as for `verify`.
    """
    rules = _rules(settings)
    *older, newest = chain.sets
    signature = newest.message_signature
    if signature is None:
        return Lookups({}, f"{MESSAGE_SIGNATURE} with i={newest.instance}: {newest.fault}")
    keys = yield from _ask((newest,))
    found = dkim.find_signing_key(signature, keys[_key_name(signature)], header, rules)  # RFC 8617, 5.2, step 4
    if isinstance(found, dkim.Evaluation):
        return Lookups(keys, f"{MESSAGE_SIGNATURE} with i={newest.instance}: {found.reason}")
    digests = tuple(_seal_digests(chain))
    fault = _find_seal_fault(newest, digests[-1], keys, rules)
    if not fault and older:
        keys |= yield from _ask(older)
    return Lookups(keys, fault, found, digests)


def _ask(sets: Sequence[ARCSet]) -> Inquiry[dict[str, dkim.KeyLookup]]:
    """Look up the keys of some sets, each once."""
    signers: list[dkim.Signature | Seal] = [arc_set.seal for arc_set in sets]
    signers += [arc_set.message_signature for arc_set in sets if arc_set.message_signature is not None]
    questions = list(dict.fromkeys(key_question(signer.domain, signer.selector) for signer in signers))
    answers = yield questions
    return {question.name: read_answer(question, answer) for question, answer in zip(questions, answers, strict=True)}


def fetch_key_ahead(field: HeaderField) -> Inquiry[None]:
    """Ask for the key of one ARC-Message-Signature or ARC-Seal while the header still arrives.

    The answer is dropped here, but in the cache when `fetch_keys` asks again. A malformed field causes no question.
    """
    with suppress(TagListError, SignatureError):
        domain, selector = read_names(parse_tags(field.value))
        yield [key_question(domain, selector)]


def verify(
    chain: Chain,
    lookups: Lookups,
    header: Header,
    hashes: dkim.BodyHashes,
    *,
    now: int,
    settings: dkim.SignatureRules = dkim.DEFAULT_RULES,
) -> Evaluation:
    """Validate a chain.

    :param lookups: the result of `fetch_keys` for it.
    :param header: the header that the chain was parsed from, as received.
    :param hashes: made for a set of specs that includes the chain's `body_hash_specs`, and fed with the whole body.
    :param now: the time of arrival in Unix seconds.
    :param settings: the rules for keys and signatures. SHA-1 is never accepted: ARC is younger than RFC 8301.
    """
    evaluation = _verify(chain, lookups, header, hashes, now, settings)
    rests_on = joined([lookup.grounds for lookup in lookups.keys.values()])
    return evaluation if rests_on is Grounds.UNPROVEN else replace(evaluation, grounds=rests_on)


def _verify(
    chain: Chain,
    lookups: Lookups,
    header: Header,
    hashes: dkim.BodyHashes,
    now: int,
    settings: dkim.SignatureRules,
) -> Evaluation:
    if lookups.fault:
        return _fail(chain, lookups.fault)
    rules = _rules(settings)

    def fault_of(arc_set: ARCSet, signing_key: dkim.Key | None = None) -> str:
        signature = arc_set.message_signature
        if signature is None:
            return arc_set.fault
        lookup = lookups.keys[_key_name(signature)]
        evaluation = dkim.verify(signature, lookup, header, hashes, now=now, settings=rules, signing_key=signing_key)
        return "" if evaluation.result is dkim.Result.PASS else evaluation.reason

    *older, newest = chain.sets
    fault = fault_of(newest, lookups.signing_key)  # RFC 8617, 5.2, step 4
    if fault:
        return _fail(chain, f"{MESSAGE_SIGNATURE} with i={newest.instance}: {fault}")
    for arc_set, digest in zip(older, lookups.digests, strict=False):  # step 6; the newest seal was verified before
        fault = _find_seal_fault(arc_set, digest, lookups.keys, rules)
        if fault:
            return _fail(chain, fault)
    oldest_pass = 0  # step 5 does not affect the status, so only for a chain that passes
    for arc_set in reversed(older):
        if fault_of(arc_set):
            oldest_pass = arc_set.instance + 1
            break
    reason = f"chain of {newest.instance}, last sealed by {newest.seal.domain}"
    return Evaluation(Result.PASS, reason, newest.instance, oldest_pass, chain.sealers)


def _rules(settings: dkim.SignatureRules) -> dkim.SignatureRules:
    """Test mode is DKIM's (RFC 6376, 3.6.1): a chain counts only as far as the operator trusts its sealers."""
    if settings.allow_sha1 or not settings.test_mode_counts:
        return replace(settings, allow_sha1=False, test_mode_counts=True)
    return settings


def _fail(chain: Chain, reason: str) -> Evaluation:
    return Evaluation(Result.FAIL, reason, len(chain.sets), None, chain.sealers)


def _key_name(signer: dkim.Signature | Seal) -> str:
    return key_question(signer.domain, signer.selector).name


def _seal_digests(chain: Chain) -> Iterator[bytes]:
    """The digests that the seals sign, from the first set on.

    ARC-Seal i covers the sets 1 to i in that order (RFC 8617, 5.1.1), so one running hash serves them all.
    """
    running = hashlib.sha256()
    for arc_set in chain.sets:
        running.update(canonical_field(arc_set.authentication_results, Canonicalization.RELAXED))
        running.update(canonical_field(arc_set.message_signature_field, Canonicalization.RELAXED))
        sealed = running.copy()
        sealed.update(canonical_signature_field(arc_set.seal.field, Canonicalization.RELAXED))
        yield sealed.digest()
        running.update(canonical_field(arc_set.seal.field, Canonicalization.RELAXED))


def _find_seal_fault(
    arc_set: ARCSet, digest: bytes, keys: Mapping[str, dkim.KeyLookup], settings: dkim.SignatureRules
) -> str:
    """Verify the seal of one set; empty if it is whole."""
    fault = _find_signature_fault(arc_set.seal, digest, keys[_key_name(arc_set.seal)], settings)
    return f"{SEAL} with i={arc_set.instance}: {fault}" if fault else ""


def _find_signature_fault(seal: Seal, digest: bytes, lookup: dkim.KeyLookup, settings: dkim.SignatureRules) -> str:
    if seal.algorithm is Algorithm.RSA_SHA1:
        return "rsa-sha1 is not accepted"  # RFC 8301, 3.1
    if lookup.outcome is Outcome.TEMPFAIL:
        return f"key lookup of {lookup.name} failed"
    objections = []
    for key in lookup.keys:
        objection = key.reason if isinstance(key, KeyFault) else object_to_key(key, seal.algorithm, settings)
        if objection:
            objections.append(f"{objection} at {lookup.name}")
        elif not isinstance(key, KeyFault) and key.verify(seal.algorithm, seal.signature, digest):
            return ""
        else:
            objections.insert(0, "seal did not verify")
    return objections[0] if objections else f"no key at {lookup.name}"
