# SPDX-License-Identifier: GPL-3.0-or-later
"""Identifier alignment: does an authenticated domain belong to the author domain? (RFC 9989, 4.4 and 4.10.2)

Strict alignment compares names. Relaxed alignment compares organizational domains, which costs a tree walk for each
identifier. Three facts save most of them without changing a verdict: equal names have equal organizational domains; an
organizational domain is its own; and it is at or above its name, so a name that is not at or below the author's
organizational domain cannot have the same one.

Nothing here looks at SPF or DKIM results; `evaluate` does.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from enum import Enum
from types import MappingProxyType

from msgspec import Struct

from assay.inquiry import Answer, Grounds, Inquiry, grounds
from assay.model.name import Domain
from assay.protocol.dmarc.discovery import Discovery
from assay.protocol.dmarc.tree import MAX_QUERIES, Walk, answers_by_name, below_suffix, questions, read_walk, targets

#: Our choice: the names that the walks of one message may ask for, besides the author's own. It is as many as the
#: longest walk has, and honest domains need one to three each. Further domains count as not aligned.
MAX_WALKED_NAMES = MAX_QUERIES
#: The same for questions that are asked before it is known whether they matter.
MAX_NAMES_AHEAD = 4


class DomainAlignment(Enum):
    """Whether a domain is aligned. UNKNOWN: a question that decides it had no answer."""

    ALIGNED = "aligned"
    NOT_ALIGNED = "not aligned"
    UNKNOWN = "unknown"


class Verdicts(Struct, frozen=True):
    """Whether each domain is aligned, and the walks that this rests on: the author's, and those of other domains.

    `ours` is None if no answer matters: equal names and a list of suffixes need none.
    """

    of: Mapping[Domain, DomainAlignment]
    ours: Walk | None = None
    ways: Mapping[Domain, Walk] = MappingProxyType({})

    def grounds(self, domain: Domain) -> Grounds:
        """What the verdict on a domain other than the author's rests on."""
        way = self.ways.get(domain)
        read = () if self.ours is None else self.ours.answers
        return grounds(read if way is None else read + way.answers)


def strict(discovery: Discovery, domain: Domain) -> DomainAlignment:
    """Strict alignment: the same name (RFC 9989, 4.4)."""
    return DomainAlignment.ALIGNED if domain == discovery.author_domain else DomainAlignment.NOT_ALIGNED


def relaxed(discovery: Discovery, domains: Iterable[Domain], passed: Collection[Domain] = ()) -> Inquiry[Verdicts]:
    """Relaxed alignment: the same organizational domain (RFC 9989, 4.4), with all walks in one batch of questions.

    :param domains: the most important first, because `MAX_WALKED_NAMES` bounds how many are walked.
    :param passed: once one of these is aligned, nobody waits for records above the author domain's known ones. Domains
        that depend on those are UNKNOWN.
    """
    author, ours = discovery.author_domain, discovery.walk
    domains = tuple(dict.fromkeys(domains))
    answers: dict[str, Answer] = {}
    walked: list[Domain] = []
    while True:
        if ours is not None and ours.pending:
            ours = read_walk(author, answers) if answers else ours
        found = {domain: _without_walk(discovery, ours, domain) for domain in domains}
        if None not in found.values() and DomainAlignment.UNKNOWN not in found.values():
            verdicts = {domain: verdict for domain, verdict in found.items() if verdict is not None}
            return Verdicts(verdicts, ours)
        wanted = [*walked, *(domain for domain in domains if found[domain] is None and domain not in walked)]
        walked = _affordable(author, wanted, MAX_WALKED_NAMES)
        missing: dict[str, None] = {}
        verdicts = {}
        ways: dict[Domain, Walk] = {}
        for domain, verdict in found.items():
            if verdict is None and domain in walked and ours is not None:
                way = ways[domain] = read_walk(domain, answers)
                verdict = _compared(ours, way)
                if verdict is DomainAlignment.UNKNOWN and way.pending:
                    missing |= dict.fromkeys(targets(domain))
            verdicts[domain] = DomainAlignment.NOT_ALIGNED if verdict is None else verdict
        settled = DomainAlignment.UNKNOWN not in verdicts.values() or any(
            verdicts.get(domain) is DomainAlignment.ALIGNED for domain in passed
        )
        if ours is not None and ours.pending and not settled:
            missing |= dict.fromkeys(targets(author))
        asked = questions(name for name in missing if name not in answers)
        if not asked:
            return Verdicts(verdicts, ours, ways)
        answers |= answers_by_name(asked, (yield asked))


def walk_ahead(author_domain: Domain, domains: Iterable[Domain]) -> Inquiry[None]:
    """Ask what `relaxed` may need about some domains, before it is known whether they matter.

    Only for domains that look related to the author's: others cannot be aligned. A relation that is missed here costs
    time at the end but changes no verdict.
    """
    related = [
        domain
        for domain in dict.fromkeys(domains)
        if domain != author_domain and domain.labels[-2:] == author_domain.labels[-2:]
    ]
    affordable = _affordable(author_domain, related, MAX_NAMES_AHEAD)
    if affordable:
        yield list(questions(dict.fromkeys(name for domain in affordable for name in targets(domain))))


def _affordable(author_domain: Domain, domains: Sequence[Domain], limit: int) -> list[Domain]:
    """The first domains whose walks together ask for no more than `limit` names besides the author's."""
    own = set(targets(author_domain))
    names: set[str] = set()
    affordable = []
    for domain in domains:
        names.update(name for name in targets(domain) if name not in own)
        if len(names) > limit:
            break
        affordable.append(domain)
    return affordable


def _without_walk(discovery: Discovery, ours: Walk | None, domain: Domain) -> DomainAlignment | None:
    """The verdict on a domain if it needs no walk, else None."""
    author = discovery.author_domain
    if domain == author:
        return DomainAlignment.ALIGNED
    organizational = discovery.organizational_domain if ours is None else ours.organizational_domain
    if organizational is None:
        # The author's walk has no end. Both organizational domains are at least a top-level domain.
        if domain.labels[-1] != author.labels[-1]:
            return DomainAlignment.NOT_ALIGNED
        return None if ours is not None and domain.is_at_or_below(ours.highest) else DomainAlignment.UNKNOWN
    if domain == organizational:
        # It publishes the last record of the author's walk, and a walk that starts at it finds the same record last; or
        # it is right below a psd=y, and its own walk ends there too.
        return DomainAlignment.ALIGNED
    if not domain.is_at_or_below(organizational):
        return DomainAlignment.NOT_ALIGNED
    if discovery.public_suffix is not None:
        return _verdict(below_suffix(domain, discovery.public_suffix) == organizational)
    return None


def _compared(ours: Walk, theirs: Walk) -> DomainAlignment:
    """Compare the organizational domains that two walks lead to (RFC 9989, 4.10.2).

    Where both lack the answer for the same name, and the last record below that name is the same, the answer does not
    matter, nor do those above it. From that name on both walks read the same records. If they find none, the
    organizational domain of both is the domain of that last record. If the last one they find has no psd=y, it is that
    one's domain. If it has psd=y, it is the domain one label below it, on the way to either name; and that is the same
    for both, since both are at or below the domain of the record in common.
    """
    if ours.unanswered and ours.unanswered == theirs.unanswered and ours.highest == theirs.highest:
        return DomainAlignment.ALIGNED
    if theirs.organizational_domain is not None and not ours.start.is_at_or_below(theirs.organizational_domain):
        return DomainAlignment.NOT_ALIGNED
    if ours.organizational_domain is None or theirs.organizational_domain is None:
        return DomainAlignment.UNKNOWN
    return _verdict(ours.organizational_domain == theirs.organizational_domain)


def _verdict(aligned: bool) -> DomainAlignment:
    return DomainAlignment.ALIGNED if aligned else DomainAlignment.NOT_ALIGNED
