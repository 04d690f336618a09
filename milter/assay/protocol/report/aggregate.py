# SPDX-License-Identifier: GPL-3.0-or-later
"""What an aggregate report says (RFC 9990, 3.1.1): plain values, made from what a store keeps.

Domains and selectors are text, in A-labels where the caller has them; `render` converts U-labels, and escapes and
bounds everything that a stranger may have written.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from enum import StrEnum

from msgspec import Struct

from assay.protocol import dkim, spf
from assay.protocol.dmarc import Alignment, DiscoveryMethod, DmarcPolicy, DmarcRecord

#: In one record: what a report SHOULD have at most (RFC 9990, 3.1.3).
MAX_SIGNATURES = 100


class Disposition(StrEnum):
    """What was done with a message because of DMARC (RFC 9990, 3.1.1.9)."""

    NONE = "none"  #: nothing, whether it failed or its domain asks for nothing
    PASS = "pass"  #: nothing: it passed, and its domain asks for action on what fails
    QUARANTINE = "quarantine"
    REJECT = "reject"


class OverrideType(StrEnum):
    """Why what was done is not what the domain owner asks for (RFC 9990, 3.1.6)."""

    LOCAL_POLICY = "local_policy"  #: a rule or setting of the operator's
    MAILING_LIST = "mailing_list"
    OTHER = "other"  #: the comment says what
    POLICY_TEST_MODE = "policy_test_mode"  #: the record has t=y
    TRUSTED_FORWARDER = "trusted_forwarder"
    SAMPLED_OUT = "sampled_out"  #: the record has a pct that we heed; a word of RFC 7489 only


class OverrideReason(Struct, frozen=True):
    """One reason, with a comment for the domain owner, or none."""

    type: OverrideType
    comment: str = ""


class DkimResult(Struct, frozen=True):
    """The result of one signature. `domain` is its d=, `selector` its s=; both are REQUIRED (RFC 9990, 3.1.1.12)."""

    domain: str
    selector: str
    result: dkim.Result
    human_result: str = ""


class SpfResult(Struct, frozen=True):
    """The result of SPF for the MAIL FROM identity, the only one that DMARC uses (RFC 9990, 3.1.1.13).

    `domain` is what was checked: the HELO name for the null reverse-path (RFC 7208, 2.4).
    """

    domain: str
    result: spf.Result
    human_result: str = ""


class ReportRecord(Struct, frozen=True):
    """Messages that are alike in all of this, and their number (RFC 9990, 3.1.1.7 to 3.1.1.11).

    `source_ip` is an address as Python writes it; mail that came from no network client is not reported. `count` is at
    least 1. `dkim_aligned` and `spf_aligned` are whether the mechanism passed for an aligned domain. `envelope_from` is
    the domain of the reverse-path, empty for the null one, and None where it has no domain. `dkim` are the signatures
    in the order to report, as of `reported_signatures`. `spf` is None where it was not checked.
    """

    source_ip: str
    count: int
    disposition: Disposition
    dkim_aligned: bool
    spf_aligned: bool
    header_from: str
    envelope_from: str | None = None
    reasons: tuple[OverrideReason, ...] = ()
    dkim: tuple[DkimResult, ...] = ()
    spf: SpfResult | None = None


class PolicyPublished(Struct, frozen=True):
    """The policy that applied to all records of a report (RFC 9990, 3.1.1.5), with the defaults where it has no tag.

    `domain` is the DMARC policy domain. `fo` is as in the record. `pct` is for the older schema only.
    """

    domain: str
    p: DmarcPolicy
    sp: DmarcPolicy
    np: DmarcPolicy
    fo: str = "0"
    adkim: Alignment = Alignment.RELAXED
    aspf: Alignment = Alignment.RELAXED
    testing: bool = False
    discovery_method: DiscoveryMethod = DiscoveryMethod.TREEWALK
    pct: int = 100


class ReportMetadata(Struct, frozen=True):
    """Who reports, and about which time (RFC 9990, 3.1.1.3).

    `email` is the contact of `org_name`, `report_id` as `submission.report_id` makes it. `begin` and `end` are seconds
    since the epoch. `errors` are what was wrong with the domain's records (RFC 9990, 3.1.5). `generator` is name and
    version of the program.
    """

    org_name: str
    email: str
    report_id: str
    begin: int
    end: int
    extra_contact_info: str = ""
    errors: tuple[str, ...] = ()
    generator: str = ""


class AggregateReport(Struct, frozen=True):
    """A report without its records, of which there may be a million: they are passed one by one.

    One that is divided because of its size is several reports, of which each is one of so many parts.
    """

    metadata: ReportMetadata
    policy: PolicyPublished
    part: int = 0
    parts: int = 0


def published(domain: str, record: DmarcRecord, method: DiscoveryMethod = DiscoveryMethod.TREEWALK) -> PolicyPublished:
    """What a DMARC record publishes.

    :param domain: where the record was found.
    :param method: how it was found.
    :raises ValueError: the record asks for no DMARC processing (`DmarcRecord.p` is None): nothing can be reported.
    """
    if record.p is None:
        raise ValueError("the record has no usable policy")
    sp = record.p if record.sp is None else record.sp  # RFC 9989, 4.7: sp defaults to p, and np to sp
    digits = record.pct.isascii() and record.pct.isdecimal() and len(record.pct) <= 3
    return PolicyPublished(
        domain=domain,
        p=record.p,
        sp=sp,
        np=sp if record.np is None else record.np,
        fo=":".join(record.fo),
        adkim=record.adkim,
        aspf=record.aspf,
        testing=record.testing,
        discovery_method=method,
        pct=min(int(record.pct), 100) if digits else 100,  # RFC 7489, 6.3
    )


def reported_signatures(
    results: Iterable[DkimResult], header_from: str, aligned: Collection[str] = ()
) -> tuple[DkimResult, ...]:
    """The signatures to report, the most telling first (RFC 9990, 3.1.3).

    Those that pass for the author domain itself come first, then those that pass for an aligned domain, other passing
    ones, and those that fail; among equals, the order in which they were tried. At most `MAX_SIGNATURES` are left. A
    signature without d= or s= says nothing about any domain and is left out.

    :param header_from: the author domain.
    :param aligned: the domains that are aligned with it.
    """

    def rank(signature: DkimResult) -> int:
        if signature.result is not dkim.Result.PASS:
            return 3
        if signature.domain == header_from:
            return 0
        return 1 if signature.domain in aligned else 2

    named = [signature for signature in results if signature.domain and signature.selector]
    return tuple(sorted(named, key=rank)[:MAX_SIGNATURES])
