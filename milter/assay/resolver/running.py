# SPDX-License-Identifier: GPL-3.0-or-later
"""An evaluation that had to wait for the DNS, from answer to answer.

A lock in each `Running` guards its generator; when the time is spent, `result` takes the generator back and ends it on
the calling thread, so it returns in time even if the loop's thread does not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import CancelledError
from functools import partial
from threading import Event, Lock
from typing import Any, Generic, Protocol, TypeVar, cast

from msgspec import Struct

from assay.inquiry import BRIEFLY, PENDING, Answer, Asker, Brief, Eager, Inquiry, Outcome, Question, Urgency
from assay.resolver.budget import Allowance, Budget
from assay.resolver.flight import Flight
from assay.resolver.statistics import Statistics

T = TypeVar("T")

SPENT = Answer(Outcome.TEMPFAIL, reason="time budget spent")
CLOSED = Answer(Outcome.TEMPFAIL, reason="resolver closed")


class Source(Protocol):
    """The source of answers: the part of the resolver that a driver needs."""

    closed: bool
    statistics: Statistics

    def lookup(self, question: Question) -> Answer | None:
        """The answer, if it needs no query. In any thread."""

    def hand_over(self, call: Callable[[], None]) -> bool:
        """Call a function in the loop's thread; False if the resolver is closed. In any thread."""

    def stale(self, question: Question) -> Answer | None:
        """An expired answer that may be given because there is no time for a fresh one. In any thread."""

    def as_asked(self, question: Question, answer: Answer) -> Answer:
        """The DNS's answer as that to a question. In any thread."""

    def ask(self, question: Question, waiter: Running[Any], index: int) -> Answer | Flight:
        """Ask the DNS, unless the answer has arrived in the meantime. In the loop's thread."""

    def withdraw(self, flight: Flight, waiter: Running[Any], index: int) -> None:
        """Stop waiting for an answer. In the loop's thread."""


class Terms(Struct, frozen=True):
    """What applies to all inquiries of a driver.

    :ivar lookup: the answer to a question, if it needs no query.
    :ivar narrate: is told each question with its answer, and since when it was wanted.
    """

    budget: Budget
    allowance: Allowance
    lookup: Callable[[Question], Answer | None]
    narrate: Callable[[Question, Answer, float], None]


def goes_on(batch: Sequence[Question], answers: Sequence[Answer | None]) -> bool:
    """Whether the evaluator need not wait for the answers that are missing."""
    return isinstance(batch, Eager) and any(answers)


def unanswered(batch: Sequence[Question], answers: Sequence[Answer | None]) -> list[Question]:
    """The questions without an answer."""
    return [question for question, answer in zip(batch, answers, strict=True) if answer is None]


def filled(answers: Sequence[Answer | None]) -> list[Answer]:
    """What the evaluator is sent."""
    return [PENDING if answer is None else answer for answer in answers]


class Running(Generic[T]):
    """An evaluation that had to wait for the DNS.

    `_lock` guards the generator and the other attributes. After `_ended`, late answers are dropped. `_asked` is what
    the DNS has not answered, by the index under which the resolver was asked: the place in the batch, and since when it
    is wanted. `_end` wakes `result` when the evaluation has ended, and when it no longer waits for long.
    """

    __slots__ = (
        "_answers", "_asked", "_batch", "_end", "_ended", "_error", "_inquiry", "_lock", "_missing", "_next_index",
        "_since", "_source", "_terms", "_value", "asker", "urgency",
    )  # fmt: skip

    def __init__(
        self,
        terms: Terms,
        source: Source,
        inquiry: Inquiry[T],
        batch: Sequence[Question],
        answers: list[Answer | None],
        asker: Asker,
        urgency: Urgency,
    ) -> None:
        """Take over an inquiry that must wait for those `answers` to `batch` that are None."""
        self.asker = asker
        self.urgency = urgency
        self._terms = terms
        self._source = source
        self._inquiry = inquiry
        self._asked: dict[int, tuple[int, Flight, float]] = {}
        self._next_index = 0
        self._batch = batch
        self._answers = answers
        self._missing = answers.count(None)
        self._lock = Lock()
        self._end = Event()
        self._ended = False
        self._value: T | None = None
        self._error: Exception | None = None
        self._since = terms.budget.clock()
        with self._lock:
            terms.budget.begin()
            if terms.budget.remaining <= 0 or not source.hand_over(self._begin):
                self._run(may_ask=False)

    def result(self) -> T:
        """Wait for the evaluation, at most until the driver's time budget or the message's allowance is spent.

        :raises Exception: what the evaluator raised, a bug.
        :raises concurrent.futures.CancelledError: after `cancel`.
        """
        if not self._ended:
            clock, allowance = self._terms.budget.clock, self._terms.allowance
            began = clock()
            allowance.begin()
            try:
                self._wait(began + allowance.left)
            finally:
                allowance.spend(clock() - began)
        if self._error is not None:
            raise self._error
        return cast(T, self._value)

    def cancel(self) -> None:
        """Close the evaluator. Its questions that nobody else waits for leave the queue of the resolver's client."""
        with self._lock:
            if not self._ended:
                self._finish(error=CancelledError("the evaluation was cancelled"))
                self._inquiry.close()

    def deliver(self, index: int, answer: Answer) -> None:
        """Take the answer to one question of the batch (`assay.resolver.flight.Waiter`). In the loop's thread."""
        with self._lock:
            asked = self._asked.pop(index, None)
            if self._ended or asked is None:
                return
            position, _, since = asked
            try:
                self._set(position, self._source.as_asked(self._batch[position], answer), since)
            except Exception as error:  # the observer's bug must not affect others that wait for this answer
                self._finish(error=error)
                return
            if not self._must_wait:
                self._run(may_ask=True)

    def _begin(self) -> None:
        """Start in the loop's thread."""
        with self._lock:
            if not self._ended:
                self._run(may_ask=True)

    def _wait(self, deadline: float) -> None:
        """Wait for the end, and force it at this time or when the budget is spent."""
        while not self._ended:
            self._end.wait(max(0.0, self._patience(deadline)))
            with self._lock:
                if not self._ended:
                    self._end.clear()
                    if self._patience(deadline) <= 0:
                        self._end_batch(deadline)

    def _left(self, deadline: float) -> float:
        """Seconds that are left."""
        budget = self._terms.budget
        return min(budget.remaining, deadline - budget.clock())

    def _patience(self, deadline: float) -> float:
        """Seconds to wait for what is missing."""
        left = self._left(deadline)
        return min(left, self._since + BRIEFLY - self._terms.budget.clock()) if isinstance(self._batch, Brief) else left

    def _end_batch(self, deadline: float) -> None:
        """Go on, on the calling thread, without the answers that are missing."""
        if self._left(deadline) <= 0:
            self._run(may_ask=False)
        else:
            self._missing = 0
            self._run(may_ask=True, in_loop=False)

    @property
    def _must_wait(self) -> bool:
        return self._missing > 0 and not goes_on(self._batch, self._answers)

    def _run(self, may_ask: bool, in_loop: bool = True) -> None:
        """Drive the generator until it must wait or has ended.

        :param in_loop: whether this is the loop's thread, which alone may ask.
        """
        try:
            while True:
                if self._must_wait:
                    if not may_ask or self._source.closed or self._terms.budget.remaining <= 0:
                        self._refuse()
                    elif not in_loop:
                        if self._source.hand_over(self._begin):
                            return
                        self._refuse()
                    else:
                        self._ask()
                        if self._must_wait:
                            return
                self._take(self._inquiry.send(filled(self._answers)))
        except StopIteration as end:
            self._finish(value=end.value)
        except Exception as error:  # an evaluator's bug: it surfaces in result(), not in the loop's thread
            self._finish(error=error)

    def _take(self, batch: Sequence[Question]) -> None:
        """Start a batch: look up what was not looked up for the batch before."""
        missed: Sequence[Question] = unanswered(self._batch, self._answers) if self._missing else ()
        if self._asked:
            self._move(batch)
        self._since = self._terms.budget.clock()
        lookup = self._terms.lookup
        self._answers = [None if question in missed else lookup(question) for question in batch]
        self._batch = batch
        self._missing = self._answers.count(None)
        if isinstance(batch, Brief):
            self._end.set()  # so that `result` does not sleep longer than that

    def _move(self, batch: Sequence[Question]) -> None:
        """What is in flight goes over to the next batch; what that leaves out is not waited for."""
        positions = {question: position for position, question in enumerate(batch)}
        left: dict[int, tuple[int, Flight, float]] = {}
        for index, (position, flight, since) in list(self._asked.items()):
            moved = positions.get(self._batch[position])
            if moved is None:
                left[index] = self._asked.pop(index)
            else:
                self._asked[index] = (moved, flight, since)
        if left:
            self._source.hand_over(partial(self._withdraw, left))

    def _ask(self) -> None:
        asked = {position for position, *_ in self._asked.values()}
        for position, answer in enumerate(self._answers):
            if answer is None and position not in asked:
                index = self._next_index
                self._next_index += 1
                found = self._source.ask(self._batch[position], self, index)
                if isinstance(found, Answer):
                    self._set(position, found, self._since)
                else:
                    self._asked[index] = (position, found, self._since)

    def _refuse(self) -> None:
        """Answer the open questions: there is no time left, or the resolver is closed."""
        source = self._source
        closed = source.closed
        for position, answer in enumerate(self._answers):
            if answer is None:
                old = None if closed else source.stale(self._batch[position])
                self._set(position, old or (CLOSED if closed else SPENT), self._since)
                if old is not None:
                    source.statistics.stood_in(self._terms.budget.clock())
                else:
                    source.statistics.spent += not closed

    def _set(self, position: int, answer: Answer, since: float) -> None:
        self._answers[position] = answer
        self._missing -= 1
        self._terms.narrate(self._batch[position], answer, since)

    def _finish(self, value: T | None = None, error: Exception | None = None) -> None:
        self._value = value
        self._error = error
        self._ended = True
        self._terms.budget.end()
        self._end.set()
        asked, self._asked = self._asked, {}
        if asked:
            self._source.hand_over(partial(self._withdraw, asked))

    def _withdraw(self, asked: Mapping[int, tuple[int, Flight, float]]) -> None:
        """Nobody waits for these answers any more. In the loop's thread."""
        for index, (_, flight, _) in asked.items():
            self._source.withdraw(flight, self, index)
