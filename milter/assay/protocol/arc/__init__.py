# SPDX-License-Identifier: GPL-3.0-or-later
"""ARC (RFC 8617): what earlier hops found out about a message, for those who trust them.

ARC is on its way to historic; no other protocol imports this package, and nothing follows from a chain unless the
operator trusts its sealers. The path of a chain: `parse_chain`, `fetch_keys`, feed the body to `dkim.BodyHashes` made
for its `body_hash_specs`, `verify`. `seal` adds our own set.
"""

from assay.protocol.arc.chain import MAX_SETS, ARCSet, Chain, Seal, parse_chain
from assay.protocol.arc.result import Evaluation, Result, Sealer
from assay.protocol.arc.seal import BODY_HASH_SPEC, fields_to_sign, recorded_results, seal
from assay.protocol.arc.verify import Lookups, fetch_key_ahead, fetch_keys, verify

__all__ = [
    "BODY_HASH_SPEC",
    "MAX_SETS",
    "ARCSet",
    "Chain",
    "Evaluation",
    "Lookups",
    "Result",
    "Seal",
    "Sealer",
    "fetch_key_ahead",
    "fetch_keys",
    "fields_to_sign",
    "parse_chain",
    "recorded_results",
    "seal",
    "verify",
]
