# SPDX-License-Identifier: GPL-3.0-or-later
"""What our ARC validator answers to a published case."""

from __future__ import annotations

import base64

from assay.model.message import Header, split_message
from assay.protocol import arc, dkim
from conformance.cases import Case
from zone import Zone

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
    keys = Zone(case["dns"]).solve(arc.fetch_keys(chain))
    return arc.verify(chain, keys, header, hashes, now=case.get("now", NOW))
