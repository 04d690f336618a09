# SPDX-License-Identifier: GPL-3.0-or-later
"""What drives the inquiries of one message: inline while the cache can answer, then from answer to answer.

`BudgetDriver.start` runs an evaluator on the calling thread until it asks what neither the local zone nor the cache
knows. Only then it is passed to the loop's thread, which resumes it as answers arrive. A lock in each `Running` guards
its generator; when the time budget is spent, `result` takes the generator back and ends it on the calling thread, so it
returns in time even if the loop's thread does not.

The budget is the total time during which any inquiry of this driver waits for the DNS: a client that takes a minute to
send its body uses none of it. Answers from the zone and the cache cost no time and are given even when it is spent;
only questions that would have to wait are then answered TEMPFAIL.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import CancelledError
from contextlib import suppress
from functools import partial
from threading import Event, Lock
from typing import Any, Generic, NoReturn, Protocol, TypeVar, cast

from assay.inquiry import (
    ANYBODY,
    BRIEFLY,
    PENDING,
    Answer,
    Asker,
    Brief,
    Eager,
    Inquiry,
    Outcome,
    Pending,
    Question,
    Urgency,
)
from assay.resolver.flight import Flight
from assay.resolver.statistics import Statistics

T = TypeVar("T")
#: Called with each question, its answer and the seconds between, in the thread that has the answer.
Observer = Callable[[Question, Answer, float], None]

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

    def ask(self, question: Question, waiter: Running[Any], index: int) -> Answer | Flight:
        """Ask the DNS, unless the answer has arrived in the meantime. In the loop's thread."""

    def withdraw(self, flight: Flight, waiter: Running[Any], index: int) -> None:
        """Stop waiting for an answer. In the loop's thread."""


class BudgetDriver:
    """Answers inquiries on behalf of one connection or message (`assay.inquiry.Driver`).

    `start` may be called from any thread, by one at a time.
    """

    __slots__ = ("_clock", "_left", "_lock", "_lookup", "_observer", "_open", "_since", "_source")

    def __init__(
        self, source: Source, budget_seconds: float, clock: Callable[[], float], observer: Observer | None = None
    ) -> None:
        self._source = source
        self._clock = clock
        self._observer = observer
        self._lookup = source.lookup if observer is None else self._observed_lookup
        self._left = budget_seconds
        self._open = 0  # inquiries that wait
        self._since = 0.0  # since when some inquiry waits
        self._lock = Lock()

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
                if not _goes_on(batch, answers):
                    running = Running(self, self._source, inquiry, batch, answers, asker, urgency)
                    _give_way()
                    return running
                missed = _open(batch, answers)
                batch = inquiry.send(_filled(answers))
        except StopIteration as end:
            return Solved(end.value)
        except Exception as error:  # an evaluator's bug: `result` raises it
            return Failed(error)

    @property
    def remaining(self) -> float:
        """Seconds of the budget that are left, zero or less when it is spent."""
        with self._lock:
            return self._left - (self._clock() - self._since) if self._open else self._left

    def _waits(self) -> None:
        """One more inquiry waits for the DNS."""
        with self._lock:
            if not self._open:
                self._since = self._clock()
            self._open += 1

    def _waits_no_more(self) -> None:
        with self._lock:
            self._open -= 1
            if not self._open:
                self._left -= self._clock() - self._since

    def _observed_lookup(self, question: Question) -> Answer | None:
        answer = self._source.lookup(question)
        if answer is not None:
            self._narrate(question, answer, self._clock())
        return answer

    def _narrate(self, question: Question, answer: Answer, since: float) -> None:
        if self._observer is not None:
            self._observer(question, answer, self._clock() - since)


def _goes_on(batch: Sequence[Question], answers: Sequence[Answer | None]) -> bool:
    """Whether the evaluator need not wait for the answers that are missing."""
    return isinstance(batch, Eager) and any(answers)


def _open(batch: Sequence[Question], answers: Sequence[Answer | None]) -> list[Question]:
    """The questions without an answer."""
    return [question for question, answer in zip(batch, answers, strict=True) if answer is None]


def _filled(answers: Sequence[Answer | None]) -> list[Answer]:
    return [PENDING if answer is None else answer for answer in answers]


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


class Running(Generic[T]):
    """An evaluation that had to wait for the DNS.

    `_lock` guards the generator and the other attributes. After `_ended`, late answers are dropped. `_asked` is what
    the DNS has not answered, by the index under which the resolver was asked: the place in the batch, and since when it
    is wanted. `_end` wakes `result` when the evaluation has ended, and when it no longer waits for long.
    """

    __slots__ = (
        "_answers", "_asked", "_batch", "_driver", "_end", "_ended", "_error", "_inquiry", "_lock", "_missing",
        "_next_index", "_since", "_source", "_value", "asker", "urgency",
    )  # fmt: skip

    def __init__(
        self,
        driver: BudgetDriver,
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
        self._driver = driver
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
        self._since = driver._clock()
        with self._lock:
            driver._waits()
            if driver.remaining <= 0 or not source.hand_over(self._begin):
                self._run(may_ask=False)

    def result(self) -> T:
        """Wait for the evaluation, at most until the driver's time budget is spent.

        :raises Exception: what the evaluator raised, a bug.
        :raises concurrent.futures.CancelledError: after `cancel`.
        """
        while not self._ended:
            self._end.wait(max(0.0, self._patience))
            with self._lock:
                if not self._ended:
                    self._end.clear()
                    if self._patience <= 0:
                        self._end_batch()
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
                self._set(position, answer, since)
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

    @property
    def _patience(self) -> float:
        """Seconds to wait for what is missing."""
        left = self._driver.remaining
        return min(left, self._since + BRIEFLY - self._driver._clock()) if isinstance(self._batch, Brief) else left

    def _end_batch(self) -> None:
        """Go on, on the calling thread, without the answers that are missing."""
        if self._driver.remaining <= 0:
            self._run(may_ask=False)
        else:
            self._missing = 0
            self._run(may_ask=True, in_loop=False)

    @property
    def _must_wait(self) -> bool:
        return self._missing > 0 and not _goes_on(self._batch, self._answers)

    def _run(self, may_ask: bool, in_loop: bool = True) -> None:
        """Drive the generator until it must wait or has ended.

        :param in_loop: whether this is the loop's thread, which alone may ask.
        """
        try:
            while True:
                if self._must_wait:
                    if not may_ask or self._source.closed or self._driver.remaining <= 0:
                        self._refuse()
                    elif not in_loop:
                        if self._source.hand_over(self._begin):
                            return
                        self._refuse()
                    else:
                        self._ask()
                        if self._must_wait:
                            return
                self._take(self._inquiry.send(_filled(self._answers)))
        except StopIteration as end:
            self._finish(value=end.value)
        except Exception as error:  # an evaluator's bug: it surfaces in result(), not in the loop's thread
            self._finish(error=error)

    def _take(self, batch: Sequence[Question]) -> None:
        """Start a batch: look up what was not looked up for the batch before."""
        missed: Sequence[Question] = _open(self._batch, self._answers) if self._missing else ()
        if self._asked:
            self._move(batch)
        self._since = self._driver._clock()
        lookup = self._driver._lookup
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
        closed = self._source.closed
        for position, answer in enumerate(self._answers):
            if answer is None:
                self._set(position, CLOSED if closed else SPENT, self._since)
                self._source.statistics.spent += not closed

    def _set(self, position: int, answer: Answer, since: float) -> None:
        self._answers[position] = answer
        self._missing -= 1
        self._driver._narrate(self._batch[position], answer, since)

    def _finish(self, value: T | None = None, error: Exception | None = None) -> None:
        self._value = value
        self._error = error
        self._ended = True
        self._driver._waits_no_more()
        self._end.set()
        asked, self._asked = self._asked, {}
        if asked:
            self._source.hand_over(partial(self._withdraw, asked))

    def _withdraw(self, asked: Mapping[int, tuple[int, Flight, float]]) -> None:
        """Nobody waits for these answers any more. In the loop's thread."""
        for index, (_, flight, _) in asked.items():
            self._source.withdraw(flight, self, index)
