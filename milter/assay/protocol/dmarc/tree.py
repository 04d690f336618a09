# SPDX-License-Identifier: GPL-3.0-or-later
"""The DNS tree walk, and the organizational domain it finds (RFC 9989, 4.10).

A walk asks for the DMARC records of a domain and its parents, at most eight. All are asked in one batch and then read
in the RFC's order, so answers after the point where the RFC stops have no influence, not even if they failed.

For comparison, and for sites that are not ready for the walk, there is RFC 7489's method, the public suffix list. It is
passed in as a function, because nothing here reads files; PyPI's ``publicsuffixlist`` has one::

    public_suffix = publicsuffixlist.PublicSuffixList().publicsuffix

Invariants: an organizational domain is always the name itself or above it. A question without a usable answer is never
read as "no record" (RFC 9989, 5.3.6).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from msgspec import Struct

from assay.caches import remember
from assay.inquiry import PENDING, Answer, Brief, Eager, Inquiry, Outcome, Question, RecordType
from assay.model.name import Domain
from assay.protocol.dmarc import record as records
from assay.protocol.dmarc.record import DmarcRecord

MAX_QUERIES = 8  # a walk's, RFC 9989, 4.10

PublicSuffix = Callable[[str], str | None]
"""Maps a name in lower-case A-labels to its public suffix in the same form."""


class Found(Struct, frozen=True):
    """A domain that publishes exactly one DMARC record."""

    domain: Domain
    record: DmarcRecord


class Walk(Struct, frozen=True):
    """One tree walk (RFC 9989, 4.10).

    `queries` are the names in the order the RFC asks for them, up to where it stops. `found` goes from the longest
    domain to the shortest. `organizational_domain` is None where the question for `unanswered` had no usable answer:
    `failure` says why, unless the answer is only `pending`.
    `proves_existence` is whether the answers prove that `start` exists in the DNS. `notes` report records that were
    discarded. `answers` are those to `queries`, as far as they are there.
    """

    start: Domain
    queries: tuple[str, ...]
    found: tuple[Found, ...]
    organizational_domain: Domain | None
    failure: str = ""
    proves_existence: bool = False
    notes: tuple[str, ...] = ()
    unanswered: str = ""
    pending: bool = False
    answers: tuple[Answer, ...] = ()

    @property
    def highest(self) -> Domain:
        """The last domain with a record, as far as the walk came; where there is none, the one that it began with."""
        return self.found[-1].domain if self.found else self.start


def walk(domain: Domain) -> Inquiry[Walk]:
    """Walk the tree from a domain, in one batch of questions (RFC 9989, 4.10)."""
    return (yield from walk_until(domain, lambda way: not way.pending))


def walk_until(domain: Domain, enough: Callable[[Walk], bool]) -> Inquiry[Walk]:
    """Walk the tree as far as is `enough`, and if more answers come at once, further; nobody waits long for these.

    :param enough: it has to be where nothing is pending.
    """
    answers: dict[str, Answer] = {}
    while True:
        asked = questions(name for name in targets(domain) if name not in answers)
        answers |= answers_by_name(asked, (yield asked))
        way = read_walk(domain, answers)
        if enough(way):
            break
    if way.pending:
        rest = questions(name for name in targets(domain) if name not in answers)
        answers |= answers_by_name(rest, (yield Brief(rest)))
        way = read_walk(domain, answers)
    return way


def organizational_domain(domain: Domain, *, public_suffix: PublicSuffix | None = None) -> Inquiry[Domain | None]:
    """The organizational domain of a domain (RFC 9989, 4.10.2); None where a question failed."""
    if public_suffix is not None:
        return below_suffix(domain, public_suffix)
    return (yield from walk(domain)).organizational_domain


@remember("tree walks")
def targets(domain: Domain) -> tuple[str, ...]:
    """The names whose records a walk may need, longest first: never more than MAX_QUERIES (RFC 9989, 4.10).

    The name itself, then its parents with seven labels or fewer; parents with more labels are skipped.
    """
    labels = domain.name.split(".")
    first = max(1, len(labels) - (MAX_QUERIES - 1))
    return (domain.name, *(".".join(labels[at:]) for at in range(first, len(labels))))


def questions(names: Iterable[str]) -> Eager:
    """The questions for the records of some names. `answers_by_name` reads their answers."""
    return Eager(Question(owner(name), RecordType.TXT) for name in names)


def answers_by_name(asked: Sequence[Question], answers: Sequence[Answer]) -> dict[str, Answer]:
    """The answers to `questions` that are there, as `read_walk` wants them."""
    return {
        question.name.removeprefix(_PREFIX): answer
        for question, answer in zip(asked, answers, strict=True)
        if answer is not PENDING
    }


def read_walk(start: Domain, answers: Mapping[str, Answer]) -> Walk:
    """Walk from `start` over answers that are already there.

    :param answers: for each of the `targets`, the answer to its TXT question, or none while it is pending.
    """
    queries: list[str] = []
    found: list[Found] = []
    read: list[Answer] = []
    notes: list[str] = []
    failure = unanswered = ""
    for name in targets(start):
        answer = answers.get(name, PENDING)
        queries.append(owner(name))
        if answer is PENDING:
            unanswered = name
            break
        read.append(answer)
        if answer.outcome is Outcome.TEMPFAIL:
            failure, unanswered = failure_of(name, answer), name
            break
        record = single_record(name, answer, notes)
        if record is None:
            continue
        found.append(Found(start if name == start.name else Domain(name), record))
        if record.psd != "u":  # RFC 9989, 4.10, steps 2 and 6: psd=y and psd=n end the walk
            break
    return Walk(
        start,
        tuple(queries),
        tuple(found),
        None if unanswered else _organizational(start, found),
        failure,
        # RFC 8020: a name with a name below it exists. NXDOMAIN for the name below says nothing.
        proves_existence=answers.get(start.name, PENDING).outcome in (Outcome.FOUND, Outcome.NODATA),
        notes=tuple(notes),
        unanswered=unanswered,
        pending=bool(unanswered) and not failure,
        answers=tuple(read),
    )


def below_suffix(domain: Domain, public_suffix: PublicSuffix) -> Domain:
    """RFC 7489's organizational domain: the public suffix and one more label (RFC 7489, 3.2)."""
    suffix = public_suffix(domain.name)
    if not suffix or not domain.name.endswith("." + suffix):
        return domain  # it is a public suffix itself
    return _ancestor(domain, suffix.count(".") + 2)


_PREFIX = "_dmarc."


def owner(name: str) -> str:
    """Where a domain publishes its record (RFC 9989, 4.5)."""
    return _PREFIX + name


def failure_of(name: str, answer: Answer) -> str:
    """The reason to report for a record lookup that had no usable answer."""
    return f"TXT lookup of {owner(name)} failed: {answer.reason}"


def _ancestor(domain: Domain, count: int) -> Domain:
    """The `count` rightmost labels of a domain."""
    return Domain(".".join(domain.name.split(".")[-count:]))


def single_record(name: str, answer: Answer, notes: list[str]) -> DmarcRecord | None:
    """The one DMARC record at a name. RFC 9989, 4.10, steps 2 and 6: of several, all are discarded."""
    texts = [text for text in answer.texts if records.is_record(text)]
    if len(texts) == 1:
        return records.parse(texts[0])
    if texts:
        notes.append(f"{len(texts)} DMARC records at {owner(name)}: all are discarded")
    return None


def _organizational(start: Domain, found: Sequence[Found]) -> Domain:
    """Select the organizational domain (RFC 9989, 4.10.2). The walk stopped at the first psd=y or psd=n."""
    if not found:
        return start
    last = found[-1]
    if last.record.psd == "y" and last.domain != start:
        # "One label below" counts from the name the walk started at, and may be a level that was never queried.
        return _ancestor(start, last.domain.name.count(".") + 2)
    return last.domain  # psd=n, or the record with the fewest labels
