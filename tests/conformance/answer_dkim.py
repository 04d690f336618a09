# SPDX-License-Identifier: GPL-3.0-or-later
"""What our DKIM verifier answers to a published case."""

from __future__ import annotations

import base64

from assay.model.message import Header, split_message
from assay.protocol import dkim
from conformance.cases import Case
from zone import Zone

#: Where a case has no time: the sources were captured before it and none relies on a later one. November 2026.
NOW = 1_795_300_000

#: A message's answer is its best signature's (RFC 8601, 2.7.1 has one result a signature, the cases one a message).
BEST_FIRST = (
    dkim.Result.PASS,
    dkim.Result.TEMPERROR,
    dkim.Result.FAIL,
    dkim.Result.POLICY,
    dkim.Result.PERMERROR,
    dkim.Result.NEUTRAL,
)


def answer(case: Case) -> tuple[str, str]:
    """The result word and the reason."""
    header, body = split_message(base64.b64decode(case["message_b64"]))
    evaluations = evaluate(case, header, body)
    if not evaluations:
        return dkim.Result.NONE, "no signature"
    best = min(evaluations, key=lambda evaluation: BEST_FIRST.index(evaluation.result))
    return best.result, best.reason


def evaluate(case: Case, header: Header, body: bytes) -> list[dkim.Evaluation]:
    """The evaluations of all signatures, from top to bottom."""
    options = case.get("options") or {}
    settings = dkim.SignatureRules(
        min_rsa_bits=options.get("min_rsa_bits", dkim.SignatureRules().min_rsa_bits),
        allow_sha1=options.get("allow_sha1", False),
        # Cases about l= ask for the cryptographic verdict; our default would answer `policy` to an unsigned tail.
        refuse_unsigned_body="l-tag" not in case.get("flags", ()),
    )
    zone = Zone(case["dns"])
    parsed = [dkim.parse(field) for field in header.all("DKIM-Signature")]
    signatures = [one for one in parsed if isinstance(one, dkim.Signature)]
    hashes = dkim.BodyHashes(signature.body_hash_spec for signature in signatures)
    hashes.update(body)
    verified = [
        dkim.verify(
            signature,
            zone.solve(dkim.fetch_key(signature)),
            header,
            hashes,
            now=case.get("now", NOW),
            settings=settings,
        )
        for signature in signatures
    ]
    return verified + [one for one in parsed if isinstance(one, dkim.Evaluation)]
