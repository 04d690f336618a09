# SPDX-License-Identifier: GPL-3.0-or-later
"""The DMARC verdict on one message (RFC 9989, 5.3).

In: what discovery found, SPF's result for MAIL FROM, and DKIM's for each signature. Out: pass if any passed and is
aligned; fail if none is; temperror if that could not be determined (RFC 9989, 5.3.6). `Evaluation.disposition` is what
the domain owner asks for. What happens to the message is the operator's policy and not decided here: RFC 9989, 7.4
forbids rejecting for ``p=reject`` alone.

A temporary error of one mechanism does not undo the pass of another. Both the SPF and the DKIM verdict are always
determined, because the reports need both (RFC 9990, 3.1.1.9).
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

from msgspec.structs import replace

from assay.inquiry import Grounds, Inquiry, joined
from assay.protocol.dmarc import alignment
from assay.protocol.dmarc.alignment import DomainAlignment, Verdicts
from assay.protocol.dmarc.discovery import Discovery
from assay.protocol.dmarc.record import Alignment, DmarcPolicy, DmarcRecord
from assay.protocol.dmarc.result import Evaluation, Identifier, Result


class LegacyPct(StrEnum):
    """How to read RFC 7489's ``pct``, which RFC 9989 removed (C.5.2). In a record with ``t=`` it is always ignored.

    ``ignore``: ignore it, as RFC 9989 says. ``zero-as-t``: read ``pct=0`` as ``t=y``, which is what its publishers
    meant. ``sample``: as in RFC 7489, 6.6.4, a message that is not drawn gets the policy one level lower.
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
    """Evaluate a message with several domains, each of which could be its author's (RFC 9989, 11.5).

    It passes for none of them, whatever SPF and DKIM say, and the strictest of their policies applies.

    :param discoveries: what `discover` found for each of the domains; at least one.
    :param fault: why there is not just one.
    """
    judged: list[Evaluation] = []
    for discovery in discoveries:
        judged.append((yield from evaluate(discovery, None, (), legacy_pct=legacy_pct, draw=draw)))
    strictest = max(judged, key=_strictness)
    if strictest.result is not Result.FAIL:
        return strictest
    return replace(strictest, reason=fault)


def _strictness(judged: Evaluation) -> int:
    """How strict the policy is for a message that did not pass. A temperror may hide the policy reject."""
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
    :param spf: the MAIL FROM domain and its SPF result; with a null reverse-path that is the HELO domain
        (RFC 9989, 4.4.2). None without an SPF result. Never the HELO identity's own result.
    :param dkim: the ``d=`` of every signature and its DKIM result.
    :param legacy_pct: how to read a ``pct`` in the record.
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
    walked = (spf_verdicts,) if spf_verdicts is dkim_verdicts else (spf_verdicts, dkim_verdicts)
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
        grounds=_grounds(discovery, aligned, dkim if spf is None else (spf, *dkim), walked),
    )


def _grounds(
    discovery: Discovery, aligned: Sequence[Identifier], identifiers: Sequence[Identifier], verdicts: Sequence[Verdicts]
) -> Grounds:
    """What the verdict rests on: one identifier that passes is enough, and for a fail it takes all."""
    parts = []
    for identifier in aligned or identifiers:
        found = identifier.grounds
        if identifier.domain != discovery.author_domain:
            for each in verdicts:
                if each.ours is not None:
                    found = joined((found, each.grounds(identifier.domain)))
        parts.append(found)
    if aligned and len(parts) > 1:
        parts = [next((word for word in _BEST_FIRST if word in parts), Grounds.STALE)]
    parts.append(discovery.grounds)
    return joined(parts)


_BEST_FIRST = (Grounds.SECURE, Grounds.UNPROVEN)


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
        grounds=discovery.grounds,
    )


def _relevant(identifiers: Sequence[Identifier]) -> tuple[Identifier, ...]:
    """Those that passed, then those that might have (RFC 9989, 5.3.6): no others can matter."""
    passed = [identifier for identifier in identifiers if identifier.result == "pass"]
    passed += [identifier for identifier in identifiers if identifier.result == "temperror"]
    return tuple(passed)


def _verdicts(
    discovery: Discovery, record: DmarcRecord, spf: Sequence[Identifier], dkim: Sequence[Identifier]
) -> Inquiry[tuple[Verdicts, Verdicts]]:
    """Whether each identifier is aligned, by the record's aspf and adkim; all walks in one batch."""
    relaxed = [*spf] if record.aspf is Alignment.RELAXED else []
    relaxed += dkim if record.adkim is Alignment.RELAXED else ()
    passed = [identifier.domain for identifier in relaxed if identifier.result == "pass"]
    others = [identifier.domain for identifier in relaxed if identifier.result != "pass"]
    walked = yield from alignment.relaxed(discovery, passed + others, passed)
    return (
        walked if record.aspf is Alignment.RELAXED else _strict(discovery, spf),
        walked if record.adkim is Alignment.RELAXED else _strict(discovery, dkim),
    )


def _strict(discovery: Discovery, identifiers: Sequence[Identifier]) -> Verdicts:
    return Verdicts({identifier.domain: alignment.strict(discovery, identifier.domain) for identifier in identifiers})


def _aligned(identifiers: Sequence[Identifier], verdicts: Verdicts) -> tuple[Identifier, ...]:
    return tuple(
        [
            identifier
            for identifier in identifiers
            if identifier.result == "pass" and verdicts.of[identifier.domain] is DomainAlignment.ALIGNED
        ]
    )


def _undecided(identifiers: Sequence[Identifier], verdicts: Verdicts) -> str:
    """Why there may be an aligned pass that could not be determined; empty if there is none (RFC 9989, 5.3.6)."""
    for identifier in identifiers:
        verdict = verdicts.of[identifier.domain]
        if verdict is DomainAlignment.UNKNOWN:
            return f"the organizational domain of {identifier.domain} or of the author domain could not be determined"
        if verdict is DomainAlignment.ALIGNED:  # it did not pass, or this would not be called
            return f"{identifier.domain} is aligned, but its authentication had a temporary error"
    return ""


def _why_fail(discovery: Discovery, spf: Identifier | None, dkim: Sequence[Identifier]) -> str:
    identifiers = (*(() if spf is None else (spf,)), *dkim)
    passed = [identifier.domain.name for identifier in identifiers if identifier.result == "pass"]
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
    """The value of pct; 100 if it is absent or not a number from 0 to 100 (RFC 7489, 6.3)."""
    text = record.pct
    return min(int(text), 100) if text.isdigit() and len(text) <= 3 else 100
