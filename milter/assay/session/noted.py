# SPDX-License-Identifier: GPL-3.0-or-later
"""What one connection or message asked the DNS, so that it can be kept.

Evaluations that are remembered ask again regardless (`assay.memory`), so the notes are complete.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, cast

from msgspec import Struct

from assay.inquiry import PENDING, Answer, Inquiry, Question

T = TypeVar("T")

MAX_NOTED = 200  # questions of one connection, and as many of each message; our choice: SPF may ask 112


class NotedAnswer(Struct, frozen=True):
    """A question and its answer. `seconds` is how long the evaluation waited for it, with all else that it did."""

    question: Question
    answer: Answer
    seconds: float


class Notes:
    """The answers to some inquiries, in the order in which they came, each question once."""

    __slots__ = ("_answers", "_clock")

    def __init__(self, clock: Callable[[], float]) -> None:
        """:param clock: seconds, from any start."""
        self._clock = clock
        self._answers: dict[Question, NotedAnswer] = {}

    def taken(self) -> tuple[NotedAnswer, ...]:
        """Those so far; some may still be under way."""
        return tuple(self._answers.copy().values())  # another thread may add to them

    def of(self, inquiry: Inquiry[T]) -> Inquiry[T]:
        """The same inquiry, noting what it is answered."""
        asked: dict[Question, float] = {}
        try:
            batch = next(inquiry)
            while True:
                now = self._clock()
                for question in batch:
                    asked.setdefault(question, now)
                answers = yield batch
                now = self._clock()
                for question, answer in zip(batch, answers, strict=True):
                    if answer is not PENDING and question not in self._answers and len(self._answers) < MAX_NOTED:
                        self._answers[question] = NotedAnswer(question, answer, now - asked[question])
                batch = inquiry.send(answers)
        except StopIteration as end:
            return cast(T, end.value)
        finally:
            inquiry.close()
