# SPDX-License-Identifier: GPL-3.0-or-later
"""DKIM (RFC 6376, RFC 8301, RFC 8463, RFC 8616): who took responsibility for a message by signing it.

The path of a signature: `parse` the field, `fetch_key`, feed the body to one `BodyHashes` for all, `verify`. For mail
of ours: feed the body to the same hashes, then `sign`.
"""

from assay.protocol.dkim.canonical import BodyHashes, BodyHashSpec, Canonicalization
from assay.protocol.dkim.hazards import BodyHazards, Hazard, harmless_changes, header_hazards
from assay.protocol.dkim.key import Key, KeyFault, KeyLookup, fetch_key, key_question, parse_key, read_answer
from assay.protocol.dkim.preference import preferred
from assay.protocol.dkim.record import prove, record_of, same_key, split_strings
from assay.protocol.dkim.result import Evaluation, Result
from assay.protocol.dkim.sign import MAX_RSA_BITS, MIN_RSA_BITS, PrivateKey, load_private_key
from assay.protocol.dkim.sign_field import (
    DEFAULT_SIGNING_RULES,
    OVERSIGNED_FIELDS,
    SIGNED_FIELDS,
    SigningError,
    SigningKey,
    SigningRules,
    sign,
)
from assay.protocol.dkim.signature import Algorithm, Signature, key_name, parse
from assay.protocol.dkim.verify import (
    DEFAULT_RULES,
    SINGLE_FIELDS,
    STANDARD_MIN_RSA_BITS,
    SignatureRules,
    find_signing_key,
    verify,
)

__all__ = [
    "DEFAULT_RULES",
    "DEFAULT_SIGNING_RULES",
    "MAX_RSA_BITS",
    "MIN_RSA_BITS",
    "OVERSIGNED_FIELDS",
    "SIGNED_FIELDS",
    "SINGLE_FIELDS",
    "STANDARD_MIN_RSA_BITS",
    "Algorithm",
    "BodyHashSpec",
    "BodyHashes",
    "BodyHazards",
    "Canonicalization",
    "Evaluation",
    "Hazard",
    "Key",
    "KeyFault",
    "KeyLookup",
    "PrivateKey",
    "Result",
    "Signature",
    "SignatureRules",
    "SigningError",
    "SigningKey",
    "SigningRules",
    "fetch_key",
    "find_signing_key",
    "harmless_changes",
    "header_hazards",
    "key_name",
    "key_question",
    "load_private_key",
    "parse",
    "parse_key",
    "preferred",
    "prove",
    "read_answer",
    "record_of",
    "same_key",
    "sign",
    "split_strings",
    "verify",
]
