# SPDX-License-Identifier: GPL-3.0-or-later
"""The DMARC result of a message, and its grounds (RFC 9989, 5.3 and 9.2)."""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct

from assay.inquiry import Grounds
from assay.model.name import Domain
from assay.protocol.dmarc.record import DmarcPolicy, DmarcRecord


class Result(StrEnum):
    """The DMARC results (RFC 9989, 9.2)."""

    NONE = "none"
    PASS = "pass"
    FAIL = "fail"
    TEMPERROR = "temperror"
    PERMERROR = "permerror"


class DiscoveryMethod(StrEnum):
    """How organizational domains are found; the words of the reports' discovery_method (RFC 9990, 3.1.1.5)."""

    TREEWALK = "treewalk"
    PSL = "psl"


class Identifier(Struct, frozen=True):
    """A domain, the result of its mechanism ("pass", "temperror" or any other result word of RFC 8601, 2.7), and the
    grounds of that."""

    domain: Domain
    result: str
    grounds: Grounds = Grounds.UNPROVEN


class Evaluation(Struct, frozen=True):
    """The verdict and its grounds.

    `policy` is what the domain owner publishes for this very name, None without a usable record. `disposition` is what
    the owner asks for this message: ``none`` unless it failed; one level below `policy` where the record is in test
    mode (`testing`) or the message was not drawn (`sampled_out`). `aligned` are the identifiers that passed and are
    aligned, SPF's first. `notes` say what was wrong with the records. `grounds` are of the record, of alignment, and of
    the mechanisms: for a pass those of one that passed, otherwise those of all.
    """

    result: Result
    reason: str
    author_domain: Domain | None = None
    policy: DmarcPolicy | None = None
    disposition: DmarcPolicy = DmarcPolicy.NONE
    spf_aligned: bool = False
    dkim_aligned: bool = False
    aligned: tuple[Identifier, ...] = ()
    policy_domain: Domain | None = None
    organizational_domain: Domain | None = None
    record: DmarcRecord | None = None
    testing: bool = False
    sampled_out: bool = False
    notes: tuple[str, ...] = ()
    method: DiscoveryMethod = DiscoveryMethod.TREEWALK
    grounds: Grounds = Grounds.UNPROVEN
