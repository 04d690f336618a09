# SPDX-License-Identifier: GPL-3.0-or-later
"""The result of validating an ARC chain (RFC 8617, 4.4 and 5.2)."""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct

from assay.inquiry import Grounds
from assay.model.name import Domain


class Result(StrEnum):
    """The Chain Validation Status (RFC 8617, 4.4): what cv= and ``arc=`` say."""

    NONE = "none"  #: the message has no ARC sets
    FAIL = "fail"  #: the chain is broken, and will be for every later hop
    #: the chain is whole: the last sealer vouches for what it received
    PASS = "pass"


class Sealer(Struct, frozen=True):
    """The sealer of one ARC set, for trust decisions and reports: as[i].d, as[i].s and what it recorded.

    `payload` is the ARC-Authentication-Results field after its instance, unfolded: authserv-id and results. It is worth
    as much as the chain's result and the trust in every sealer from this one on.
    """

    instance: int
    domain: Domain
    selector: str
    cv: Result
    payload: str


class Evaluation(Struct, frozen=True):
    """The result of validating a chain (RFC 8617, 5.2).

    `instance` is the number of sets, 0 without any or if the structure is unclear. `oldest_pass` is the
    instance since which the signed content did not change, 0 where it never did, None where the chain does not pass.
    `sealers` are from the first to the last; none where the structure is broken. `grounds` are of the keys' answers.
    """

    result: Result
    reason: str
    instance: int = 0
    oldest_pass: int | None = None
    sealers: tuple[Sealer, ...] = ()
    grounds: Grounds = Grounds.UNPROVEN
