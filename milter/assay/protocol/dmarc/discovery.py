# SPDX-License-Identifier: GPL-3.0-or-later
"""Which record applies to an author domain, and which organizational domain a name belongs to (RFC 9989, 4.10).

RFC 9989 walks up the DNS tree, at most eight questions a name. They are asked in one batch and then read in the RFC's
order, so the answers behind the point where the RFC stops have no influence, not even when they failed.

For comparison and for those who are not ready for the walk there is RFC 7489's way: the public suffix list. It is
handed in as a function, because nothing here reads files; PyPI's ``publicsuffixlist`` has one::

    discover(domain, public_suffix=publicsuffixlist.PublicSuffixList().publicsuffix)

Invariants: an organizational domain is always the name itself or above it. A question without a usable answer is never
read as "no record" (RFC 9989, 5.3.6).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

from assay.inquiry import Answer, Inquiry, Outcome, Question, RecordType
from assay.model.name import Domain
from assay.protocol.dmarc import record as records
from assay.protocol.dmarc.record import Policy, Record

MAX_QUERIES = 8  # a walk's, RFC 9989, 4.10

PublicSuffix = Callable[[str], str | None]
"""Maps a name in lower-case A-labels to its public suffix in the same form."""


class Result(StrEnum):
    """What DMARC says of a message (RFC 9989, 9.2)."""

    NONE = "none"
    PASS = "pass"  # noqa: S105 - a result word
    FAIL = "fail"
    TEMPERROR = "temperror"
    PERMERROR = "permerror"


class Method(StrEnum):
    """How organizational domains are found; the words of the reports' discovery_method (RFC 9990, 3.1.1.5)."""

    TREEWALK = "treewalk"
    PSL = "psl"


@dataclass(frozen=True, slots=True)
class Found:
    """A domain that publishes exactly one DMARC record."""

    domain: Domain
    record: Record


@dataclass(frozen=True, slots=True)
class Walk:
    """One tree walk (RFC 9989, 4.10).

    `queries` are the names in the order the RFC asks for them, up to where it stops. `found` goes from the longest
    domain to the shortest. `organizational_domain` is None where `failure` says which question had no answer.
    `notes` tell of records that were discarded.
    """

    start: Domain
    queries: tuple[str, ...]
    found: tuple[Found, ...]
    organizational_domain: Domain | None
    failure: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Discovery:
    """What applies to an author domain (RFC 9989, 4.10.1).

    `result` is None where there is a record to evaluate against, else the result DMARC ends with: none, temperror or
    permerror. `reason` says why, or where the record was found. `policy` is the published policy for this very name;
    it is None without a record, and where the answer on which np= or sp= depends is missing. `policy_domain` is where
    the record was found. `organizational_domain` is None where a question failed. `exists` is whether the author domain
    exists, None where nobody had to know. `queries` are the names that policy discovery consults, in order. `failure`
    is the question without an answer, where one was. `notes` tell what was wrong with the records, for a postmaster.
    """

    author_domain: Domain
    result: Result | None
    reason: str
    record: Record | None = None
    policy: Policy | None = None
    policy_domain: Domain | None = None
    organizational_domain: Domain | None = None
    exists: bool | None = None
    queries: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    failure: str = ""
    public_suffix: PublicSuffix | None = field(default=None, repr=False, compare=False)

    @property
    def method(self) -> Method:
        """How organizational domains are found here."""
        return Method.TREEWALK if self.public_suffix is None else Method.PSL


def discover(author_domain: Domain, *, public_suffix: PublicSuffix | None = None) -> Inquiry[Discovery]:
    """Find the record that applies to an author domain, in one batch of questions.

    A second batch of one question asks whether the author domain exists, if that makes a difference.

    :param public_suffix: use RFC 7489's organizational domain instead of the tree walk.
    """
    if public_suffix is not None:
        return (yield from _discover_by_suffix(author_domain, public_suffix))
    names = targets(author_domain)
    answers = yield [Question(_owner(name), RecordType.TXT) for name in names]
    by_name = dict(zip(names, answers, strict=True))
    way = read_walk(author_domain, by_name)
    own = by_name[author_domain.name]
    discovery = Discovery(
        author_domain,
        None,
        "",
        organizational_domain=way.organizational_domain,
        # Any answer but NXDOMAIN for a name below proves that the author domain exists (RFC 8020).
        exists=True if own.outcome in (Outcome.FOUND, Outcome.NODATA) else None,
        queries=way.queries,
        notes=way.notes,
        failure=way.failure,
    )
    if way.found and way.found[0].domain == author_domain:
        # RFC 9989, 4.10.1: the author domain's own record comes first. The rest of the walk is for alignment only.
        return _applied(replace(discovery, queries=way.queries[:1]), way.found[0])
    if way.failure:
        return replace(discovery, result=Result.TEMPERROR, reason=way.failure)  # RFC 9989, 5.3.6
    applicable = _applicable(way)
    if applicable is None:
        return _without_record(discovery)
    return (yield from _applied_to_subdomain(discovery, applicable))


def walk(domain: Domain) -> Inquiry[Walk]:
    """Walk the tree from a domain, in one batch of questions (RFC 9989, 4.10)."""
    names = targets(domain)
    answers = yield [Question(_owner(name), RecordType.TXT) for name in names]
    return read_walk(domain, dict(zip(names, answers, strict=True)))


def organizational_domain(domain: Domain, *, public_suffix: PublicSuffix | None = None) -> Inquiry[Domain | None]:
    """The organizational domain of a domain (RFC 9989, 4.10.2); None where a question failed."""
    if public_suffix is not None:
        return below_suffix(domain, public_suffix)
    return (yield from walk(domain)).organizational_domain


def targets(domain: Domain) -> tuple[str, ...]:
    """The names whose records a walk may need, longest first: never more than MAX_QUERIES (RFC 9989, 4.10).

    Above the name itself come its parents with seven labels and less; of a longer name those between are skipped.
    """
    labels = domain.name.split(".")
    first = max(1, len(labels) - (MAX_QUERIES - 1))
    return (domain.name, *(".".join(labels[at:]) for at in range(first, len(labels))))


def questions(domains: Sequence[Domain]) -> tuple[Question, ...]:
    """The questions of the walks from all these domains, each once; `answers_by_name` belongs to it."""
    names = dict.fromkeys(name for domain in domains for name in targets(domain))
    return tuple(Question(_owner(name), RecordType.TXT) for name in names)


def answers_by_name(asked: Sequence[Question], answers: Sequence[Answer]) -> dict[str, Answer]:
    """The answers to `questions`, as `read_walk` wants them."""
    return {question.name.removeprefix(_PREFIX): answer for question, answer in zip(asked, answers, strict=True)}


def read_walk(start: Domain, answers: Mapping[str, Answer]) -> Walk:
    """Walk from `start` over answers that are there already.

    :param answers: for each of the `targets` the answer of its TXT question.
    """
    queries: list[str] = []
    found: list[Found] = []
    notes: list[str] = []
    failure = ""
    for name in targets(start):
        answer = answers[name]
        queries.append(_owner(name))
        if answer.outcome is Outcome.TEMPFAIL:
            failure = _failure(name, answer)
            break
        record = _single_record(name, answer, notes)
        if record is None:
            continue
        found.append(Found(start if name == start.name else Domain(name), record))
        if record.psd != "u":  # RFC 9989, 4.10, steps 2 and 6: psd=y and psd=n end the walk
            break
    organizational = None if failure else _organizational(start, found)
    return Walk(start, tuple(queries), tuple(found), organizational, failure, tuple(notes))


def below_suffix(domain: Domain, public_suffix: PublicSuffix) -> Domain:
    """RFC 7489's organizational domain: the public suffix and one label more (RFC 7489, 3.2)."""
    suffix = public_suffix(domain.name)
    if not suffix or not domain.name.endswith("." + suffix):
        return domain  # it is a public suffix itself
    return _ancestor(domain, suffix.count(".") + 2)


_PREFIX = "_dmarc."


def _owner(name: str) -> str:
    return _PREFIX + name


def _failure(name: str, answer: Answer) -> str:
    return f"TXT lookup of {_owner(name)} failed: {answer.reason}"


def _ancestor(domain: Domain, count: int) -> Domain:
    """The `count` rightmost labels of a domain."""
    return Domain(".".join(domain.name.split(".")[-count:]))


def _single_record(name: str, answer: Answer, notes: list[str]) -> Record | None:
    """The one DMARC record at a name. RFC 9989, 4.10, steps 2 and 6: of several, all are discarded."""
    texts = [text for text in answer.texts if records.is_record(text)]
    if len(texts) == 1:
        return records.parse(texts[0])
    if texts:
        notes.append(f"{len(texts)} DMARC records at {_owner(name)}: all are discarded")
    return None


def _organizational(start: Domain, found: Sequence[Found]) -> Domain:
    """Select the organizational domain (RFC 9989, 4.10.2). The walk stopped at the first psd=y or psd=n."""
    if not found:
        return start
    last = found[-1]
    if last.record.psd == "y" and last.domain != start:
        # "One label below" is counted on the name the walk began with, and may be a level nobody asked about.
        return _ancestor(start, last.domain.name.count(".") + 2)
    return last.domain  # psd=n, or the record with the fewest labels


def _applicable(way: Walk) -> Found | None:
    """The record for a domain that has none itself: its organizational domain's, else its public suffix's (4.10.1)."""
    for one in way.found:
        if one.domain == way.organizational_domain:
            return one
    # RFC 9989, 4.10.1: a public suffix's policy is for organizational domains that publish none.
    return way.found[-1] if way.found and way.found[-1].record.psd == "y" else None


def _applied_to_subdomain(discovery: Discovery, found: Found) -> Inquiry[Discovery]:
    """Apply a record from above; ask whether the author domain exists where np= makes that matter."""
    record = found.record
    if discovery.exists is None and record.policy_for(exists=False) is not record.policy_for(exists=True):
        # RFC 9989, 3.2.13: a domain does not exist if the answer is NXDOMAIN, whatever the type.
        (answer,) = yield [Question(discovery.author_domain.name, RecordType.A)]
        if answer.outcome is Outcome.TEMPFAIL:
            failure = f"A lookup of {discovery.author_domain} failed, so sp= or np= is undecided: {answer.reason}"
            return replace(_applied(discovery, found), policy=None, failure=failure)
        discovery = replace(discovery, exists=answer.outcome is not Outcome.NXDOMAIN)
    return _applied(discovery, found)


def _applied(discovery: Discovery, found: Found) -> Discovery:
    """A discovery that ends with a record: one to evaluate against, unless it is unusable (RFC 9989, 4.10.1)."""
    record = found.record
    owner = _owner(found.domain.name)
    result, reason = None, f"DMARC record at {owner}"
    if record.p is None:
        result = Result.PERMERROR if record.malformed else Result.NONE
        reason = f"the DMARC record at {owner} has no usable policy and no usable rua="
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
    answers = yield [Question(_owner(domain.name), RecordType.TXT) for domain in domains]
    notes: list[str] = []
    discovery = Discovery(
        author_domain,
        None,
        "",
        organizational_domain=organizational,
        exists=True if answers[0].outcome in (Outcome.FOUND, Outcome.NODATA) else None,
        public_suffix=public_suffix,
    )
    for domain, answer in zip(domains, answers, strict=True):
        discovery = replace(discovery, queries=(*discovery.queries, _owner(domain.name)))
        if answer.outcome is Outcome.TEMPFAIL:
            reason = _failure(domain.name, answer)
            return replace(discovery, result=Result.TEMPERROR, reason=reason, failure=reason)
        record = _single_record(domain.name, answer, notes)
        discovery = replace(discovery, notes=tuple(notes))
        if record is not None and domain == author_domain:
            return _applied(discovery, Found(domain, record))
        if record is not None:
            return (yield from _applied_to_subdomain(discovery, Found(domain, record)))
        if notes:  # RFC 7489, 6.6.3, step 5: several records end discovery, other than in RFC 9989
            break
    return _without_record(discovery)
