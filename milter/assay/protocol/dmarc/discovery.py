# SPDX-License-Identifier: GPL-3.0-or-later
"""Policy discovery: which record applies to an author domain, and which of its policies (RFC 9989, 4.10.1).

The author domain's own record comes first, then its organizational domain's, then its public suffix's. With a public
suffix list the order is RFC 7489's instead: the author domain's, then its organizational domain's.

If there is no record to evaluate against, discovery ends with the result: none, temperror or permerror. It does not
look at whether the message passes.
"""

from __future__ import annotations

from msgspec import Struct
from msgspec.structs import replace

from assay.inquiry import Answer, Grounds, Inquiry, Outcome, Question, RecordType, grounds, joined
from assay.model.name import Domain
from assay.protocol.dmarc.record import DmarcPolicy, DmarcRecord
from assay.protocol.dmarc.result import DiscoveryMethod, Result
from assay.protocol.dmarc.tree import (
    Found,
    PublicSuffix,
    Walk,
    answers_by_name,
    below_suffix,
    failure_of,
    owner,
    questions,
    single_record,
    walk_until,
)


class Discovery(Struct, frozen=True):
    """What applies to an author domain (RFC 9989, 4.10.1).

    `result` is None where there is a record to evaluate against, else the result DMARC ends with: none, temperror or
    permerror. `reason` says why, or where the record was found. `policy` is the published policy for this very name;
    it is None without a record, and while the answer that np= or sp= depends on is missing. `policy_domain` is where
    the record was found. `organizational_domain` is None where a question failed, and where the author domain has its
    own record and the rest of the `walk`, which is for alignment only, is slow to answer. `exists` is whether the
    author domain exists, None if that did not matter. `queries` are the names that policy discovery queries, in order.
    `failure` names a question that had no answer. `notes` tell a postmaster what was wrong with the records. `grounds`
    are of the answers to `queries`, and of the one about `exists`.
    """

    author_domain: Domain
    result: Result | None
    reason: str
    record: DmarcRecord | None = None
    policy: DmarcPolicy | None = None
    policy_domain: Domain | None = None
    organizational_domain: Domain | None = None
    exists: bool | None = None
    queries: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    failure: str = ""
    public_suffix: PublicSuffix | None = None
    walk: Walk | None = None
    grounds: Grounds = Grounds.UNPROVEN

    @property
    def method(self) -> DiscoveryMethod:
        """How organizational domains are found here."""
        return DiscoveryMethod.TREEWALK if self.public_suffix is None else DiscoveryMethod.PSL


def discover(author_domain: Domain, *, public_suffix: PublicSuffix | None = None) -> Inquiry[Discovery]:
    """Find the record that applies to an author domain, in one batch of questions.

    A second batch of one question asks whether the author domain exists, if that makes a difference.

    :param public_suffix: use RFC 7489's organizational domain instead of the tree walk.
    """
    if public_suffix is not None:
        return (yield from _discover_by_suffix(author_domain, public_suffix))
    way = yield from walk_until(author_domain, lambda way: not way.pending or _has_own_record(way))
    discovery = Discovery(
        author_domain,
        None,
        "",
        organizational_domain=way.organizational_domain,
        exists=way.proves_existence or None,
        queries=way.queries,
        notes=way.notes,
        failure=way.failure,
        walk=way,
        grounds=grounds(way.answers),
    )
    if _has_own_record(way):
        # RFC 9989, 4.10.1: the author domain's own record comes first. The rest of the walk is for alignment only.
        own = replace(discovery, queries=way.queries[:1], grounds=grounds(way.answers[:1]))
        return _applied(own, way.found[0])
    if way.failure:
        return replace(discovery, result=Result.TEMPERROR, reason=way.failure)  # RFC 9989, 5.3.6
    applicable = _applicable(way)
    if applicable is None:
        return _without_record(discovery)
    return (yield from _applied_to_subdomain(discovery, applicable))


def _has_own_record(way: Walk) -> bool:
    return bool(way.found) and way.found[0].domain == way.start


def _applicable(way: Walk) -> Found | None:
    """The record for a domain that has none itself: its organizational domain's, else its public suffix's (4.10.1)."""
    for found in way.found:
        if found.domain == way.organizational_domain:
            return found
    # RFC 9989, 4.10.1: a public suffix's policy is for organizational domains that publish none. If records were found
    # and none is the organizational domain's, the last one has the psd=y above it.
    return way.found[-1] if way.found else None


def _applied_to_subdomain(discovery: Discovery, found: Found) -> Inquiry[Discovery]:
    """Apply a record from above; ask whether the author domain exists where np= makes that matter."""
    record = found.record
    if discovery.exists is None and record.policy_for(exists=False) is not record.policy_for(exists=True):
        # RFC 9989, 3.2.13: a domain does not exist if the answer is NXDOMAIN, whatever the type.
        (answer,) = yield [Question(discovery.author_domain.name, RecordType.A)]
        if answer.outcome is Outcome.TEMPFAIL:
            failure = f"A lookup of {discovery.author_domain} failed, so sp= or np= is undecided: {answer.reason}"
            return replace(_applied(discovery, found), policy=None, failure=failure)
        rests_on = joined((discovery.grounds, grounds((answer,))))
        discovery = replace(discovery, exists=answer.outcome is not Outcome.NXDOMAIN, grounds=rests_on)
    return _applied(discovery, found)


def _applied(discovery: Discovery, found: Found) -> Discovery:
    """A discovery that ends with a record: one to evaluate against, unless it is unusable (RFC 9989, 4.10.1)."""
    record = found.record
    place = owner(found.domain.name)
    result, reason = None, f"DMARC record at {place}"
    if record.p is None:
        result = Result.PERMERROR if record.malformed else Result.NONE
        reason = f"the DMARC record at {place} has no usable policy and no usable rua="
    own = found.domain == discovery.author_domain
    return replace(
        discovery,
        result=result,
        reason=reason,
        record=record,
        policy=record.p if own else record.policy_for(exists=discovery.exists is not False),
        policy_domain=found.domain,
        notes=discovery.notes + record.notes,
    )


def _without_record(discovery: Discovery) -> Discovery:
    reason = discovery.notes[0] if discovery.notes else f"no DMARC record for {discovery.author_domain}"
    return replace(discovery, result=Result.NONE, reason=reason)


def _discover_by_suffix(author_domain: Domain, public_suffix: PublicSuffix) -> Inquiry[Discovery]:
    """RFC 7489, 6.6.3: the author domain's record, else that of its organizational domain."""
    organizational = below_suffix(author_domain, public_suffix)
    domains = tuple(dict.fromkeys((author_domain, organizational)))
    answers: dict[str, Answer] = {}
    notes: list[str] = []
    read: list[Answer] = []
    discovery = Discovery(author_domain, None, "", organizational_domain=organizational, public_suffix=public_suffix)
    for domain in domains:
        while domain.name not in answers:  # nobody waits for the second record if the first one applies
            asked = questions(other.name for other in domains if other.name not in answers)
            answers |= answers_by_name(asked, (yield asked))
        answer = answers[domain.name]
        exists = discovery.exists
        if domain == author_domain and answer.outcome in (Outcome.FOUND, Outcome.NODATA):
            exists = True
        read.append(answer)
        asked_for = (*discovery.queries, owner(domain.name))
        discovery = replace(discovery, queries=asked_for, exists=exists, grounds=grounds(read))
        if answer.outcome is Outcome.TEMPFAIL:
            reason = failure_of(domain.name, answer)
            return replace(discovery, result=Result.TEMPERROR, reason=reason, failure=reason)
        record = single_record(domain.name, answer, notes)
        discovery = replace(discovery, notes=tuple(notes))
        if record is not None and domain == author_domain:
            return _applied(discovery, Found(domain, record))
        if record is not None:
            return (yield from _applied_to_subdomain(discovery, Found(domain, record)))
        if notes:  # RFC 7489, 6.6.3, step 5: several records end discovery, unlike in RFC 9989
            break
    return _without_record(discovery)
