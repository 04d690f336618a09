# SPDX-License-Identifier: GPL-3.0-or-later
"""Floor 1, the questions: what an evaluator may ask the DNS, and how it asks.

An evaluator is a generator. It yields a *batch* of questions, is sent the answers in the same order, and returns its
evaluation::

    def txt_of(domain: Domain) -> Inquiry[tuple[bytes, ...]]:
        (answer,) = yield [Question(domain.name, RecordType.TXT)]
        return answer.texts

So the protocols need no socket, thread or clock; parallel lookups are data. A driver answers: the resolver in a worker,
a plain loop on the command line, a dict in the tests. When a message's time budget is spent, the driver answers
TEMPFAIL at once to all further questions, and each evaluator ends by its own RFC's rules.

An evaluator that asks for more than it may need does not wait for all of it. It yields an `Eager` batch and is resumed
with the first answers to arrive, and PENDING in place of the others. Then it ends, or yields what it still wants to
know. A question in flight is not asked again. One that is left out is no longer waited for. So answers arrive in any
order and any grouping, and no result may depend on that.

Where the result is settled, and answers only complete the evidence, it yields a `Brief` batch: whoever needs the result
waits for these for a moment at most.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Iterable, Sequence
from enum import Enum, IntEnum, StrEnum
from typing import Protocol, TypeVar, cast

from msgspec import Struct

from assay.model.smtp import Address

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class RecordType(StrEnum):
    """The DNS record types that e-mail authentication asks for."""

    A = "A"
    AAAA = "AAAA"
    MX = "MX"
    PTR = "PTR"
    TXT = "TXT"


class Question(Struct, frozen=True):
    """One DNS question: `name` without a final dot, as the evaluator built it.

    The driver compares names without regard to case. A name that the DNS cannot carry (an empty or overlong label, an
    overlong name) is answered NXDOMAIN without a query.
    """

    name: str
    type: RecordType


class Outcome(Enum):
    """How a question ended. SPF's void lookups and DMARC's ``np`` need all four."""

    FOUND = "found"  #: at least one record of the type, after CNAMEs
    NODATA = "nodata"  #: the name exists, the type does not (RFC 2308, 2.2)
    NXDOMAIN = "nxdomain"  #: the name does not exist, nor anything below it (RFC 8020)
    TEMPFAIL = "tempfail"  #: no usable answer: timeout, SERVFAIL, REFUSED, or no time left


class MX(Struct, frozen=True):
    """A mail exchanger (RFC 5321, 5.1). `exchange` has no final dot; a null MX (RFC 7505) is the empty name."""

    preference: int
    exchange: str


Record = Address | MX | bytes | str


class Answer(Struct, frozen=True):
    """The answer to one question.

    `records` are of the asked type only, CNAMEs already followed: an address for A and AAAA, an `MX`, a name without
    final dot for PTR, and for TXT the character-strings of one record joined without a separator (RFC 7208, 3.3;
    RFC 6376, 3.6.2.2). `secure` is a trusted validating resolver's AD bit (RFC 4035, 3.2.3). `ttl` is for how
    many seconds it was valid when it arrived; no evaluation depends on it. `reason` says why a
    TEMPFAIL happened, for a postmaster. `stale`: it has expired and stands in for one that cannot be had (RFC 8767, 4);
    such an answer is never `secure`.
    """

    outcome: Outcome
    records: tuple[Record, ...] = ()
    secure: bool = False
    ttl: int = 0
    reason: str = ""
    stale: bool = False

    @property
    def addresses(self) -> tuple[Address, ...]:
        """The records of an A or AAAA answer."""
        return cast(tuple[Address, ...], self.records)

    @property
    def exchanges(self) -> tuple[MX, ...]:
        """The records of an MX answer, unordered."""
        return cast(tuple[MX, ...], self.records)

    @property
    def names(self) -> tuple[str, ...]:
        """The records of a PTR answer."""
        return cast(tuple[str, ...], self.records)

    @property
    def texts(self) -> tuple[bytes, ...]:
        """The records of a TXT answer."""
        return cast(tuple[bytes, ...], self.records)


class Grounds(Enum):
    """What the answers are that a result rests on."""

    SECURE = "secure"  #: all of them are
    UNPROVEN = "unproven"  #: some are not, or there are none
    STALE = "stale"  #: some have expired


#: Plain names: to read a member of an enumeration from its class takes ten times as long.
_SECURE, _UNPROVEN, _STALE = Grounds


def grounds(answers: Iterable[Answer]) -> Grounds:
    """The grounds of a result that rests on these answers."""
    found = None
    for answer in answers:
        if answer.stale:
            return _STALE
        if not answer.secure:
            found = _UNPROVEN
        elif found is None:
            found = _SECURE
    return found or _UNPROVEN


def joined(parts: Collection[Grounds]) -> Grounds:
    """The grounds of a result that rests on several others."""
    if _STALE in parts:
        return _STALE
    return _UNPROVEN if _UNPROVEN in parts or not parts else _SECURE


#: In an `Eager` batch, the answer that is not there yet. Who takes it for an answer errs on the safe side.
PENDING = Answer(Outcome.TEMPFAIL, reason="not answered yet")


class Eager(tuple[Question, ...]):
    """A batch of which any answer may be enough: the evaluator is resumed as soon as one is there."""

    __slots__ = ()


#: Seconds to wait for a `Brief` batch. Most answers that a resolver must look up itself take a tenth.
BRIEFLY = 0.5


class Brief(tuple[Question, ...]):
    """A batch that cannot change the result word: after `BRIEFLY`, PENDING takes the place of what is not answered."""

    __slots__ = ()


#: An evaluator in flight. Prime it with ``next`` or ``send(None)``; it ends with ``StopIteration.value``.
Inquiry = Generator[Sequence[Question], Sequence[Answer], T]


def solve(inquiry: Inquiry[T], answer: Callable[[Question], Answer]) -> T:
    """Run an evaluator to its end with answers that are available at once."""
    try:
        batch = next(inquiry)
        while True:
            batch = inquiry.send([answer(question) for question in batch])
    except StopIteration as end:
        return cast(T, end.value)


class Pending(Protocol[T_co]):
    """An evaluation that was started."""

    def result(self) -> T_co:
        """Wait for the evaluation, at most until the driver's time budget is spent."""

    def cancel(self) -> None:
        """The result is not needed: stop working for it."""


class Asker(Struct, frozen=True, eq=False):
    """For whom a question is asked: one message, or one connection before its messages. Each equals only itself.

    Where not all questions can be asked at once, each client has its turn, and each of its messages (`client` None:
    all without a network client take turns as one).
    """

    client: Address | None = None


#: For a caller that is alone.
ANYBODY = Asker()


class Urgency(IntEnum):
    """Which of a message's questions come first if not all can be asked at once."""

    VERDICT = 0  #: there is no verdict without the answer: SPF and the author's DMARC policy
    EVIDENCE = 1  #: keys, and the names of clients
    AHEAD = 2  #: may turn out not to be needed


class Driver(Protocol):
    """Answers inquiries within one time budget."""

    def start(self, inquiry: Inquiry[T], asker: Asker = ANYBODY, urgency: Urgency = Urgency.EVIDENCE, /) -> Pending[T]:
        """Start an evaluation, in the background if it must wait."""
