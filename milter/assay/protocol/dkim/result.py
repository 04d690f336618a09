# SPDX-License-Identifier: GPL-3.0-or-later
"""The result of verifying one DKIM signature, in the words of RFC 8601, 2.7.1."""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct

from assay.inquiry import Grounds
from assay.model.message import HeaderField
from assay.model.name import Domain


class Result(StrEnum):
    """The ``dkim=`` results of RFC 8601, 2.7.1, with the cases that end in each."""

    NONE = "none"  #: the message has no signature; never the result of one
    #: the signature verified and no local rule objects
    PASS = "pass"
    FAIL = "fail"  #: the key could be used, but the body hash or the signature did not verify
    POLICY = "policy"  #: it verified, but a local rule refuses it: see `Evaluation.policy`
    NEUTRAL = "neutral"  #: its syntax is wrong, or it needs something that this verifier does not support
    TEMPERROR = "temperror"  #: the key lookup failed temporarily
    PERMERROR = "permerror"  #: it can never verify: no key, a revoked one, a required tag missing, expired, too weak


class Evaluation(Struct, frozen=True):
    """One signature's evaluation: the evidence for Authentication-Results, DMARC, the log and the reports.

    Members that could not be parsed are empty. `domain` is d= and `identity` is i=, both with A-labels in the domain;
    `selector` is s= likewise; `algorithm` is a= and `b` the whole b= without white space (RFC 6008 wants a unique
    prefix of it). `testing` is whether the key record has t=y. `body_length` is l=, None where
    absent. `policy` names the local rule behind the result ``policy``. `key_bits` is the size of the key that was
    used last, 0 for none. `signed_fields` are the names of h= in lower case. `grounds` are of the key's answer.
    """

    result: Result
    reason: str
    field: HeaderField
    domain: Domain | None = None
    identity: str = ""
    selector: str = ""
    algorithm: str = ""
    b: str = ""
    testing: bool = False
    body_length: int | None = None
    policy: str = ""
    key_bits: int = 0
    signed_fields: tuple[str, ...] = ()
    grounds: Grounds = Grounds.UNPROVEN
