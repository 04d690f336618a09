# SPDX-License-Identifier: GPL-3.0-or-later
"""Evaluations that were made before, so that the same one need not be made again.

An evaluation is a function of its arguments and of the answers it is given: with the same arguments it asks the same
first questions, and as long as it gets the same answers it asks the same next ones. So it is enough to ask again, batch
by batch, and to compare: if nothing has changed, neither has the evaluation. If something has, it is made anew with the
answers that are there by then, as if nobody had remembered anything. What is asked, in which order and how often, is
the same in either case, and how long an answer holds is the resolver's affair alone.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any, TypeVar, cast

from msgspec import Struct

from assay.caches import ENTRY, Cache, Entry, measure
from assay.inquiry import Answer, Inquiry, Outcome, Question

T = TypeVar("T")
_Batch = tuple[Sequence[Question], Sequence[Answer]]

#: Octets that an evaluation takes at most that is kept, with all that it asked and was answered; usual policies take
#: two to six KiB.
MAX_OCTETS = 16_384


class _Past(Struct, frozen=True):
    """An evaluation, and the batches of questions with their answers that led to it."""

    batches: tuple[_Batch, ...]
    value: Any


class Memory:
    """What was evaluated lately."""

    __slots__ = ("_kept",)

    def __init__(self, octets: int | None = None) -> None:
        """:param octets: how much it may take, where it is not what `assay.caches` says."""
        self._kept: Cache[Hashable, _Past] = Cache("evaluations", octets)

    def __len__(self) -> int:
        """How many evaluations are kept."""
        return len(self._kept)

    def again(
        self, key: Hashable, evaluate: Callable[[], Inquiry[T]], worth_keeping: Callable[[T], bool] = lambda _: True
    ) -> Inquiry[T]:
        """Evaluate, or find that a former evaluation still holds.

        :param key: all that the evaluation depends on beside the answers.
        :param evaluate: begins it.
        :param worth_keeping: is told the evaluation: whether it depends on nothing but `key` and the answers.
        """
        found = self._kept.find(key)
        batches: list[_Batch] = []
        if found is not None:
            for questions, former in found.value.batches:
                answers = yield questions
                batches.append((questions, answers))
                if not all(map(_same, answers, former)):
                    break
            else:
                return cast(T, found.value.value)
        value = yield from _make(evaluate(), batches)
        if worth_keeping(value) and not _failed(batches):
            past = _Past(tuple(batches), value)
            weight = ENTRY + measure(key, past)
            if weight <= MAX_OCTETS:
                self._kept.keep(key, Entry(past, weight))
        return value


def _make(inquiry: Inquiry[T], batches: list[_Batch]) -> Inquiry[T]:
    """Make an evaluation whose first `batches` are answered already, and note those that follow."""
    try:
        questions = next(inquiry)
        for _, answers in batches:
            questions = inquiry.send(answers)
        while True:
            answers = yield questions
            batches.append((questions, answers))
            questions = inquiry.send(answers)
    except StopIteration as end:
        return cast(T, end.value)


def _same(answer: Answer, former: Answer) -> bool:
    """Whether an answer says what the former one did; its TTL is nothing that an evaluation depends on."""
    return answer is former or (
        answer.outcome is former.outcome
        and answer.records == former.records
        and answer.secure == former.secure
        and answer.reason == former.reason
    )


def _failed(batches: Sequence[_Batch]) -> bool:
    """Whether some question had no answer."""
    return any(answer.outcome is Outcome.TEMPFAIL for _, answers in batches for answer in answers)
