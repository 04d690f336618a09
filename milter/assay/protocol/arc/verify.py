# SPDX-License-Identifier: GPL-3.0-or-later
"""Validating a chain (RFC 8617, 5.2, steps 4 to 7).

Every failure is permanent, also one of the DNS (RFC 8617, 5.2.1): the sealer behind us will record it, so that nobody
can find the chain whole again. Whom to trust among the sealers is not judged here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from contextlib import suppress

from msgspec.structs import replace

from assay.inquiry import Inquiry, Outcome
from assay.model.message import Header, HeaderField
from assay.protocol import dkim
from assay.protocol.arc.chain import MESSAGE_SIGNATURE, SEAL, ARCSet, Chain, Evaluation, Result, Seal
from assay.protocol.dkim.canonical import Canonicalization, canonical_field, canonical_signature_field
from assay.protocol.dkim.key import KeyFault, key_question, read_answer
from assay.protocol.dkim.signature import Algorithm, SignatureError, read_names
from assay.protocol.dkim.verify import object_to_key
from assay.protocol.syntax.tags import TagListError, parse_tags

#: The key lookups of a chain, by the name of the key record.
Keys = Mapping[str, dkim.KeyLookup]


def fetch_keys(chain: Chain) -> Inquiry[Keys]:
    """Ask for all keys of a chain in one batch, each once."""
    signers: list[dkim.Signature | Seal] = [arc_set.seal for arc_set in chain.sets]
    signers += [arc_set.message_signature for arc_set in chain.sets if arc_set.message_signature is not None]
    questions = list(dict.fromkeys(key_question(signer.domain, signer.selector) for signer in signers))
    answers = yield questions
    return {question.name: read_answer(question, answer) for question, answer in zip(questions, answers, strict=True)}


def fetch_key_ahead(field: HeaderField) -> Inquiry[None]:
    """Ask for the key of one ARC-Message-Signature or ARC-Seal while the header still arrives.

    The answer is dropped: it is then there when `fetch_keys` asks again. A field that cannot be read asks nothing.
    """
    with suppress(TagListError, SignatureError):
        domain, selector = read_names(parse_tags(field.value))
        yield [key_question(domain, selector)]


def verify(
    chain: Chain,
    keys: Keys,
    header: Header,
    hashes: dkim.BodyHashes,
    *,
    now: int,
    settings: dkim.Settings = dkim.DEFAULT_SETTINGS,
) -> Evaluation:
    """Validate a chain.

    :param keys: what `fetch_keys` found for it.
    :param header: the header that the chain was parsed from, as received.
    :param hashes: made for a set of specs that holds the chain's `body_hash_specs`, and fed with the whole body.
    :param now: the time of arrival in Unix seconds.
    :param settings: the rules for keys and signatures. SHA-1 is never accepted: ARC is younger than RFC 8301.
    """
    rules = replace(settings, allow_sha1=False)
    last = chain.sets[-1]

    def fault_of(arc_set: ARCSet) -> str:
        if arc_set.message_signature is None:
            return arc_set.fault
        lookup = keys[_key_name(arc_set.message_signature)]
        evaluation = dkim.verify(arc_set.message_signature, lookup, header, hashes, now=now, settings=rules)
        return "" if evaluation.result is dkim.Result.PASS else evaluation.reason

    fault = fault_of(last)  # step 4
    if fault:
        return _fail(chain, f"{MESSAGE_SIGNATURE} with i={last.instance}: {fault}")
    fault = _find_seal_fault(chain, keys, rules)  # step 6
    if fault:
        return _fail(chain, fault)
    oldest_pass = 0  # step 5, which does not touch the status, so only for a chain that passes
    for arc_set in reversed(chain.sets[:-1]):
        if fault_of(arc_set):
            oldest_pass = arc_set.instance + 1
            break
    reason = f"chain of {last.instance}, last sealed by {last.seal.domain}"
    return Evaluation(Result.PASS, reason, last.instance, oldest_pass, chain.sealers)


def _fail(chain: Chain, reason: str) -> Evaluation:
    return Evaluation(Result.FAIL, reason, len(chain.sets), None, chain.sealers)


def _key_name(signer: dkim.Signature | Seal) -> str:
    return key_question(signer.domain, signer.selector).name


def _find_seal_fault(chain: Chain, keys: Keys, settings: dkim.Settings) -> str:
    """Verify all seals; empty if they are whole.

    ARC-Seal i covers the sets 1 to i in that order (RFC 8617, 5.1.1), so one running hash serves them all.
    """
    running = hashlib.sha256()
    for arc_set in chain.sets:
        running.update(canonical_field(arc_set.authentication_results, Canonicalization.RELAXED))
        running.update(canonical_field(arc_set.message_signature_field, Canonicalization.RELAXED))
        seal = arc_set.seal
        sealed = running.copy()
        sealed.update(canonical_signature_field(seal.field, Canonicalization.RELAXED))
        fault = _find_signature_fault(seal, sealed.digest(), keys[_key_name(seal)], settings)
        if fault:
            return f"{SEAL} with i={arc_set.instance}: {fault}"
        running.update(canonical_field(seal.field, Canonicalization.RELAXED))
    return ""


def _find_signature_fault(seal: Seal, digest: bytes, lookup: dkim.KeyLookup, settings: dkim.Settings) -> str:
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
