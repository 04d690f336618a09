# SPDX-License-Identifier: GPL-3.0-or-later
"""Identifier alignment: does an authenticated domain belong to the author domain? (RFC 9989, 4.4 and 4.10.2)

Strict alignment compares names. Relaxed alignment compares organizational domains, which costs a tree walk for each
identifier. Three facts save most of them, and change no verdict: equal names have equal organizational domains; an
organizational domain is its own one; and it is at or above its name, so a name that is not at or below the author's
organizational domain cannot have the same one.

Nothing here looks at what SPF or DKIM said; that is `evaluate`'s part.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum

from assay.inquiry import Inquiry
from assay.model.name import Domain
from assay.protocol.dmarc.discovery import Discovery
from assay.protocol.dmarc.tree import answers_by_name, below_suffix, questions, read_walk

MAX_WALKED_DOMAINS = 8  # our choice: 64 questions a message at most; further domains are taken as not aligned


class Verdict(Enum):
    """Whether a domain is aligned. UNKNOWN: a question that decides it had no answer."""

    ALIGNED = "aligned"
    NOT_ALIGNED = "not aligned"
    UNKNOWN = "unknown"


def strict(discovery: Discovery, domain: Domain) -> Verdict:
    """Strict alignment: the same name (RFC 9989, 4.4)."""
    return Verdict.ALIGNED if domain == discovery.author_domain else Verdict.NOT_ALIGNED


def relaxed(discovery: Discovery, domains: Iterable[Domain]) -> Inquiry[dict[Domain, Verdict]]:
    """Relaxed alignment: the same organizational domain (RFC 9989, 4.4), with all walks in one batch of questions.

    :param domains: the most interesting first, for no more than `MAX_WALKED_DOMAINS` are walked.
    """
    verdicts: dict[Domain, Verdict] = {}
    walked: list[Domain] = []
    for domain in dict.fromkeys(domains):
        verdict = _without_walk(discovery, domain)
        if verdict is not None:
            verdicts[domain] = verdict
        elif len(walked) < MAX_WALKED_DOMAINS:
            walked.append(domain)
        else:
            verdicts[domain] = Verdict.NOT_ALIGNED
    if not walked:
        return verdicts
    asked = questions(walked)
    answers = answers_by_name(asked, (yield asked))
    for domain in walked:
        way = read_walk(domain, answers)
        if way.organizational_domain is None:
            verdicts[domain] = Verdict.UNKNOWN
        else:
            verdicts[domain] = _verdict(way.organizational_domain == discovery.organizational_domain)
    return verdicts


def _without_walk(discovery: Discovery, domain: Domain) -> Verdict | None:
    """The verdict on a domain where it takes no walk, else None."""
    if domain == discovery.author_domain:
        return Verdict.ALIGNED
    organizational = discovery.organizational_domain
    if organizational is None:
        # The author's walk failed. Both organizational domains are at least a top-level domain.
        return Verdict.UNKNOWN if domain.labels[-1] == discovery.author_domain.labels[-1] else Verdict.NOT_ALIGNED
    if domain == organizational:
        # It publishes the last record of the author's walk, and a walk that begins with it finds the same record last;
        # or it stands below a psd=y, and its own walk ends there too.
        return Verdict.ALIGNED
    if not domain.is_at_or_below(organizational):
        return Verdict.NOT_ALIGNED
    if discovery.public_suffix is not None:
        return _verdict(below_suffix(domain, discovery.public_suffix) == organizational)
    return None


def _verdict(aligned: bool) -> Verdict:
    return Verdict.ALIGNED if aligned else Verdict.NOT_ALIGNED
