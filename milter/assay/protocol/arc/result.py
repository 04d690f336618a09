# SPDX-License-Identifier: GPL-3.0-or-later
"""What validating an ARC chain came to (RFC 8617, 4.4 and 5.2)."""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct

from assay.model.name import Domain


class Result(StrEnum):
    """The Chain Validation Status (RFC 8617, 4.4): what cv= and ``arc=`` say."""

    NONE = "none"  #: the message came without ARC sets
    FAIL = "fail"  #: the chain is broken, and will be for everybody behind us
    #: the chain is whole: the last sealer vouches for what it received
    PASS = "pass"


class Sealer(Struct, frozen=True):
    """Who added one ARC set, for trust decisions and reports: as[i].d, as[i].s and what was recorded then.

    `payload` is the ARC-Authentication-Results field behind its instance, unfolded: authserv-id and results. It is
    worth as much as the chain's result and the trust in every sealer from this one on.
    """

    instance: int
    domain: Domain
    selector: str
    cv: Result
    payload: str


class Evaluation(Struct, frozen=True):
    """What validating a chain came to (RFC 8617, 5.2).

    `instance` is the number of sets, 0 without any or where the structure does not tell. `oldest_pass` is the
    instance since which the signed content did not change, 0 where it never did, None where the chain does not pass.
    `sealers` are from the first to the last; none where the structure is broken.
    """

    result: Result
    reason: str
    instance: int = 0
    oldest_pass: int | None = None
    sealers: tuple[Sealer, ...] = ()
