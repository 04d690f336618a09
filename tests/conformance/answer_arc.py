# SPDX-License-Identifier: GPL-3.0-or-later
"""What our ARC validator answers to a published case."""

from __future__ import annotations

import base64
import sys

import pytest

from assay.model.message import Header, HeaderField, split_message
from assay.model.name import Domain
from assay.protocol import arc, dkim
from conformance.cases import Case
from zone import Zone

seal = sys.modules["assay.protocol.arc.seal"]  # whose name in its package is the function's

#: No case has a time, and no field in them an expiration.
NOW = 1_795_300_000


def answer(case: Case) -> tuple[str, str]:
    """The result word and the reason."""
    evaluation = evaluate(case, *split_message(base64.b64decode(case["message_b64"])))
    return evaluation.result, evaluation.reason


def evaluate(case: Case, header: Header, body: bytes) -> arc.Evaluation:
    """The evaluation of the message's chain."""
    chain = arc.parse_chain(header)
    if isinstance(chain, arc.Evaluation):
        return chain
    hashes = dkim.BodyHashes(chain.body_hash_specs)
    hashes.update(body)
    lookups = Zone(case["dns"]).solve(arc.fetch_keys(chain, header))
    return arc.verify(chain, lookups, header, hashes, now=case.get("now", NOW))


def answer_sign(case: Case) -> dict[str, HeaderField]:
    """The fields of our set for an ``arc-sign`` case, by the names that its `expect` has; empty where none is added."""
    header, body = split_message(base64.b64decode(case["message_b64"]))
    hashes = dkim.BodyHashes([arc.BODY_HASH_SPEC])
    hashes.update(body)
    with pytest.MonkeyPatch.context() as patch:
        # The suite's signatures are over tags sorted by name, which a tag list may be as well (RFC 6376, 3.2).
        patch.setattr(seal, "_order", sorted)
        fields = arc.seal(
            header,
            hashes,
            validation=evaluate(case, header, body),
            authserv_id=case["authserv_id"],
            authentication_results=arc.recorded_results(header, case["authserv_id"]),
            domain=Domain.parse(case["domain"]),
            selector=Domain.parse(case["selector"]),
            private_key=dkim.load_private_key(case["private_key"].encode()),
            timestamp=int(case["timestamp"]),
            sign_headers=case["sign_headers"].split(":"),
        )
    return dict(zip(("AS", "AMS", "AAR"), fields, strict=bool(fields)))
