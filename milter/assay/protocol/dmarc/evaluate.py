# SPDX-License-Identifier: GPL-3.0-or-later
"""The DMARC verdict on one message (RFC 9989, 5.3).

In: what discovery found, and what SPF said of MAIL FROM and DKIM of each signature. Out: pass where any passed and is
aligned; fail where none is; temperror where that could not be found out (RFC 9989, 5.3.6). `Evaluation.disposition` is
what the domain owner asks for. What is done with the message is the operator's policy and not decided here: RFC 9989,
7.4 forbids to reject for ``p=reject`` alone.

A pass that is established is not undone by the temporary error of another mechanism. Both the SPF and the DKIM verdict
are always found out, because the reports need both (RFC 9990, 3.1.1.9).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum

from msgspec.structs import replace

from assay.inquiry import Inquiry
from assay.model.name import Domain
from assay.protocol.dmarc import alignment
from assay.protocol.dmarc.alignment import DomainAlignment
from assay.protocol.dmarc.discovery import Discovery
from assay.protocol.dmarc.record import Alignment, DmarcPolicy, DmarcRecord
from assay.protocol.dmarc.result import Evaluation, Identifier, Result


class LegacyPct(StrEnum):
    """What to make of RFC 7489's ``pct``, which RFC 9989 removed (C.5.2). A record with ``t=`` is never asked for it.

    ``ignore``: nothing, as RFC 9989 says. ``zero-as-t``: ``pct=0`` is read as ``t=y``, which is what those who
    published it meant. ``sample``: as in RFC 7489, 6.6.4, a message that is not drawn gets the policy one level lower.
    """

    IGNORE = "ignore"
    ZERO_AS_T = "zero-as-t"
    SAMPLE = "sample"


def no_author(fault: str) -> Evaluation:
    """The verdict on a message without any author domain to ask for: DMARC cannot be applied (RFC 9989, 4.4)."""
    return Evaluation(Result.PERMERROR, fault)


def evaluate_several(
    discoveries: Sequence[Discovery],
    fault: str,
    *,
    legacy_pct: LegacyPct = LegacyPct.IGNORE,
    draw: float = 0.0,
) -> Inquiry[Evaluation]:
    """Evaluate a message with several domains of which each could be its author's (RFC 9989, 11.5).

    It passes for none of them, whatever SPF and DKIM say, and the strictest of their policies applies.

    :param discoveries: what `discover` found for each of the domains, one at least.
    :param fault: why there is not just one.
    """
    judged: list[Evaluation] = []
    for one in discoveries:
        judged.append((yield from evaluate(one, None, (), legacy_pct=legacy_pct, draw=draw)))
    strictest = max(judged, key=_strictness)
    if strictest.result is not Result.FAIL:
        return strictest
    return replace(strictest, reason=fault)


def _strictness(judged: Evaluation) -> int:
    """How much is asked for a message that did not pass. What could not be found out may be the policy reject."""
    match judged.result, judged.disposition:
        case Result.FAIL, DmarcPolicy.REJECT:
            return 5
        case Result.TEMPERROR, _:
            return 4
        case Result.FAIL, DmarcPolicy.QUARANTINE:
            return 3
        case Result.FAIL, _:
            return 2
        case Result.PERMERROR, _:
            return 1
        case _:
            return 0


def evaluate(
    discovery: Discovery,
    spf: Identifier | None,
    dkim: Sequence[Identifier],
    *,
    legacy_pct: LegacyPct = LegacyPct.IGNORE,
    draw: float = 0.0,
) -> Inquiry[Evaluation]:
    """Evaluate one message (RFC 9989, 5.3).

    :param discovery: what `discover` found for the author domain.
    :param spf: the MAIL FROM domain and what SPF said of it; with a null reverse-path that is the HELO domain
        (RFC 9989, 4.4.2). None where SPF said nothing. Never the HELO identity's own result.
    :param dkim: the ``d=`` of every signature and what DKIM said of it.
    :param legacy_pct: what to make of a ``pct`` in the record.
    :param draw: a number from 0 to below 1, drawn for this message; used for ``LegacyPct.SAMPLE`` only.
    """
    record = discovery.record
    if discovery.result is not None or record is None:
        return _ended(discovery)
    of_spf = _relevant(() if spf is None else (spf,))
    of_dkim = _relevant(dkim)
    spf_verdicts, dkim_verdicts = yield from _verdicts(discovery, record, of_spf, of_dkim)
    spf_aligned = _aligned(of_spf, spf_verdicts)
    dkim_aligned = _aligned(of_dkim, dkim_verdicts)
    aligned = spf_aligned + dkim_aligned
    disposition, sampled_out = DmarcPolicy.NONE, False
    if aligned:
        result, reason = Result.PASS, f"{aligned[0].domain} passed {'SPF' if spf_aligned else 'DKIM'} and is aligned"
    else:
        result, reason = Result.TEMPERROR, _undecided(of_spf, spf_verdicts) or _undecided(of_dkim, dkim_verdicts)
        if not reason and discovery.policy is None:
            reason = discovery.failure
        if not reason:
            result, reason = Result.FAIL, _why_fail(discovery, spf, dkim)
            disposition, sampled_out = _disposition(discovery, record, legacy_pct, draw)
    return Evaluation(
        result,
        reason,
        author_domain=discovery.author_domain,
        policy=discovery.policy,
        disposition=disposition,
        spf_aligned=bool(spf_aligned),
        dkim_aligned=bool(dkim_aligned),
        aligned=aligned,
        policy_domain=discovery.policy_domain,
        organizational_domain=discovery.organizational_domain,
        record=record,
        testing=_testing(record, legacy_pct),
        sampled_out=sampled_out,
        notes=discovery.notes,
        method=discovery.method,
    )


def _ended(discovery: Discovery) -> Evaluation:
    """The verdict where discovery found nothing to evaluate against."""
    return Evaluation(
        discovery.result or Result.NONE,
        discovery.reason,
        author_domain=discovery.author_domain,
        policy_domain=discovery.policy_domain,
        organizational_domain=discovery.organizational_domain,
        record=discovery.record,
        notes=discovery.notes,
        method=discovery.method,
    )


def _relevant(identifiers: Sequence[Identifier]) -> tuple[Identifier, ...]:
    """Those that passed, and behind them those that might have (RFC 9989, 5.3.6): all others cannot matter."""
    passed = tuple(one for one in identifiers if one.result == "pass")
    return passed + tuple(one for one in identifiers if one.result == "temperror")


def _verdicts(
    discovery: Discovery, record: DmarcRecord, spf: Sequence[Identifier], dkim: Sequence[Identifier]
) -> Inquiry[tuple[Mapping[Domain, DomainAlignment], Mapping[Domain, DomainAlignment]]]:
    """Whether each identifier is aligned, by the record's aspf and adkim; all walks in one batch."""
    relaxed = [*spf] if record.aspf is Alignment.RELAXED else []
    relaxed += dkim if record.adkim is Alignment.RELAXED else ()
    walked = yield from alignment.relaxed(discovery, [one.domain for one in _relevant(relaxed)])
    return (
        walked if record.aspf is Alignment.RELAXED else _strict(discovery, spf),
        walked if record.adkim is Alignment.RELAXED else _strict(discovery, dkim),
    )


def _strict(discovery: Discovery, identifiers: Sequence[Identifier]) -> Mapping[Domain, DomainAlignment]:
    return {one.domain: alignment.strict(discovery, one.domain) for one in identifiers}


def _aligned(identifiers: Sequence[Identifier], verdicts: Mapping[Domain, DomainAlignment]) -> tuple[Identifier, ...]:
    return tuple(one for one in identifiers if one.result == "pass" and verdicts[one.domain] is DomainAlignment.ALIGNED)


def _undecided(identifiers: Sequence[Identifier], verdicts: Mapping[Domain, DomainAlignment]) -> str:
    """Why there may be an aligned pass that we could not see; empty where there is none (RFC 9989, 5.3.6)."""
    for one in identifiers:
        verdict = verdicts[one.domain]
        if verdict is DomainAlignment.UNKNOWN:
            return f"the organizational domain of {one.domain} or of the author domain could not be found out"
        if verdict is DomainAlignment.ALIGNED:  # it did not pass, or nobody would ask
            return f"{one.domain} is aligned, and its authentication had a temporary error"
    return ""


def _why_fail(discovery: Discovery, spf: Identifier | None, dkim: Sequence[Identifier]) -> str:
    passed = [one.domain.name for one in (*(() if spf is None else (spf,)), *dkim) if one.result == "pass"]
    if not passed:
        return "neither SPF nor DKIM passed"
    return f"{passed[0]} passed, but is not aligned with {discovery.author_domain}"


def _testing(record: DmarcRecord, legacy_pct: LegacyPct) -> bool:
    if not record.t and legacy_pct is LegacyPct.ZERO_AS_T:
        return _percentage(record) == 0
    return record.testing


def _disposition(
    discovery: Discovery, record: DmarcRecord, legacy_pct: LegacyPct, draw: float
) -> tuple[DmarcPolicy, bool]:
    """What the owner asks for a message that failed, and whether ``pct`` spared it."""
    policy = discovery.policy or DmarcPolicy.NONE
    if _testing(record, legacy_pct):
        return policy.one_lower, False  # RFC 9989, 4.7: t=y
    if legacy_pct is LegacyPct.SAMPLE and not record.t and draw * 100 >= _percentage(record):
        return policy.one_lower, True  # RFC 7489, 6.6.4
    return policy, False


def _percentage(record: DmarcRecord) -> int:
    """The value of pct, 100 where there is none or no number from 0 to 100 (RFC 7489, 6.3)."""
    text = record.pct
    return min(int(text), 100) if text.isdigit() and len(text) <= 3 else 100
