# SPDX-License-Identifier: GPL-3.0-or-later
"""What drives the inquiries of one message: inline while the cache can answer, then from answer to answer.

`BudgetDriver.start` runs an evaluator on the calling thread until it asks what neither the local zone nor the cache
knows. Only then it is passed to the loop's thread, which resumes it as answers arrive (`running`).

Each inquiry has a time budget, and the message a time that its MTA waits for all of them (`budget`). Answers from the
zone and the cache cost no time and are given even when these are spent; only questions that would have to wait are then
answered TEMPFAIL.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Generic, NoReturn, TypeVar

from assay.inquiry import ANYBODY, Answer, Asker, Inquiry, Pending, Question, Urgency
from assay.resolver.budget import Allowance, Budget
from assay.resolver.running import Running, Source, Terms, filled, goes_on, unanswered

T = TypeVar("T")
#: Called with each question, its answer and the seconds between, in the thread that has the answer.
Observer = Callable[[Question, Answer, float], None]


class BudgetDriver:
    """Answers inquiries on behalf of one connection or message (`assay.inquiry.Driver`).

    `start` may be called from any thread, by one at a time.
    """

    __slots__ = ("_allowance", "_budget", "_lookup", "_observer", "_source")

    def __init__(
        self,
        source: Source,
        budget_seconds: float,
        clock: Callable[[], float],
        observer: Observer | None = None,
        allowance: Allowance | None = None,
    ) -> None:
        self._source = source
        self._observer = observer
        self._lookup = source.lookup if observer is None else self._observed_lookup
        self._budget = Budget(budget_seconds, clock)
        self._allowance = Allowance(budget_seconds) if allowance is None else allowance

    @property
    def remaining(self) -> float:
        """Seconds of the budget that are left, zero or less when it is spent."""
        return self._budget.remaining

    def start(self, inquiry: Inquiry[T], asker: Asker = ANYBODY, urgency: Urgency = Urgency.EVIDENCE) -> Pending[T]:
        """Start an evaluation; it goes on in the background once it must wait."""
        lookup = self._lookup
        missed: Sequence[Question] = ()  # what was looked up for the batch before
        try:
            batch = next(inquiry)
            while True:
                answers = [None if question in missed else lookup(question) for question in batch]
                if None not in answers:
                    batch = inquiry.send(answers)  # type: ignore[arg-type]  # there is no None in it
                    continue
                if not goes_on(batch, answers):
                    terms = Terms(self._budget, self._allowance, lookup, self._narrate)
                    running = Running(terms, self._source, inquiry, batch, answers, asker, urgency)
                    _give_way()
                    return running
                missed = unanswered(batch, answers)
                batch = inquiry.send(filled(answers))
        except StopIteration as end:
            return Solved(end.value)
        except Exception as error:  # an evaluator's bug: `result` raises it
            return Failed(error)

    def _observed_lookup(self, question: Question) -> Answer | None:
        answer = self._source.lookup(question)
        if answer is not None:
            self._narrate(question, answer, self._budget.clock())
        return answer

    def _narrate(self, question: Question, answer: Answer, since: float) -> None:
        if self._observer is not None:
            self._observer(question, answer, self._budget.clock() - since)


def _give_way() -> None:
    """Let the loop's thread, which waits for this core and for the interpreter, send its questions now: else it would
    wait until this thread has processed all that has arrived of the message."""
    with suppress(OSError, AttributeError):  # not permitted or not supported: then a little later
        os.sched_yield()


class Solved(Generic[T]):
    """An evaluation that has already ended."""

    __slots__ = ("_value",)

    def __init__(self, value: T) -> None:
        self._value = value

    def result(self) -> T:
        """The evaluation."""
        return self._value

    def cancel(self) -> None:
        """There is nothing to stop."""


class Failed:
    """An evaluation that failed because its evaluator has a bug."""

    __slots__ = ("_error",)

    def __init__(self, error: Exception) -> None:
        self._error = error

    def result(self) -> NoReturn:
        """Raise what the evaluator raised."""
        raise self._error

    def cancel(self) -> None:
        """There is nothing to stop."""
