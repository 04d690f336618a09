# SPDX-License-Identifier: GPL-3.0-or-later
"""Identifier alignment: does an authenticated domain belong to the author domain? (RFC 9989, 4.4 and 4.10.2)

Strict alignment compares names. Relaxed alignment compares organizational domains, which costs a tree walk for each
identifier. Three facts save most of them without changing a verdict: equal names have equal organizational domains; an
organizational domain is its own; and it is at or above its name, so a name that is not at or below the author's
organizational domain cannot have the same one.

Nothing here looks at SPF or DKIM results; `evaluate` does.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import Enum

from assay.inquiry import Inquiry
from assay.model.name import Domain
from assay.protocol.dmarc.discovery import Discovery
from assay.protocol.dmarc.tree import MAX_QUERIES, answers_by_name, below_suffix, questions, read_walk, targets

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


def strict(discovery: Discovery, domain: Domain) -> DomainAlignment:
    """Strict alignment: the same name (RFC 9989, 4.4)."""
    return DomainAlignment.ALIGNED if domain == discovery.author_domain else DomainAlignment.NOT_ALIGNED


def relaxed(discovery: Discovery, domains: Iterable[Domain]) -> Inquiry[dict[Domain, DomainAlignment]]:
    """Relaxed alignment: the same organizational domain (RFC 9989, 4.4), with all walks in one batch of questions.

    :param domains: the most important first, because `MAX_WALKED_NAMES` bounds how many are walked.
    """
    verdicts: dict[Domain, DomainAlignment] = {}
    walked: list[Domain] = []
    for domain in dict.fromkeys(domains):
        verdict = _without_walk(discovery, domain)
        if verdict is not None:
            verdicts[domain] = verdict
        else:
            walked.append(domain)
    affordable = _affordable(discovery.author_domain, walked, MAX_WALKED_NAMES)
    verdicts |= dict.fromkeys(walked[len(affordable) :], DomainAlignment.NOT_ALIGNED)
    walked = affordable
    if not walked:
        return verdicts
    asked = questions(walked)
    answers = answers_by_name(asked, (yield asked))
    for domain in walked:
        way = read_walk(domain, answers)
        if way.organizational_domain is None:
            verdicts[domain] = DomainAlignment.UNKNOWN
        else:
            verdicts[domain] = _verdict(way.organizational_domain == discovery.organizational_domain)
    return verdicts


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
        yield questions(affordable)


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


def _without_walk(discovery: Discovery, domain: Domain) -> DomainAlignment | None:
    """The verdict on a domain if it needs no walk, else None."""
    if domain == discovery.author_domain:
        return DomainAlignment.ALIGNED
    organizational = discovery.organizational_domain
    if organizational is None:
        # The author's walk failed. Both organizational domains are at least a top-level domain.
        return (
            DomainAlignment.UNKNOWN
            if domain.labels[-1] == discovery.author_domain.labels[-1]
            else DomainAlignment.NOT_ALIGNED
        )
    if domain == organizational:
        # It publishes the last record of the author's walk, and a walk that starts at it finds the same record last; or
        # it is right below a psd=y, and its own walk ends there too.
        return DomainAlignment.ALIGNED
    if not domain.is_at_or_below(organizational):
        return DomainAlignment.NOT_ALIGNED
    if discovery.public_suffix is not None:
        return _verdict(below_suffix(domain, discovery.public_suffix) == organizational)
    return None


def _verdict(aligned: bool) -> DomainAlignment:
    return DomainAlignment.ALIGNED if aligned else DomainAlignment.NOT_ALIGNED
