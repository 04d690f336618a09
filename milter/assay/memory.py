# SPDX-License-Identifier: GPL-3.0-or-later
"""Earlier evaluations, so that the same one need not be made again.

An evaluation is a function of its arguments and of the answers it gets: with the same arguments it asks the same first
questions, and as long as it gets the same answers it asks the same next ones. So it is enough to ask again, batch by
batch, and to compare: if nothing has changed, neither has the evaluation. If something has, it is made again with the
answers so far, as if nothing had been remembered. The questions, their order and their number are the same in either
case, and only the resolver decides how long an answer is valid.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any, TypeVar, cast

from msgspec import Struct

from assay.caches import ENTRY, Cache, Entry, measure
from assay.inquiry import Answer, Inquiry, Outcome, Question

T = TypeVar("T")
_Batch = tuple[Sequence[Question], Sequence[Answer]]

#: The largest evaluation to keep, in octets, with all its questions and answers; usual policies take two to six KiB.
MAX_OCTETS = 16_384


class _Past(Struct, frozen=True):
    """An evaluation, and the batches of questions with their answers that led to it."""

    batches: tuple[_Batch, ...]
    value: Any


class Memory:
    """Recent evaluations."""

    __slots__ = ("_kept",)

    def __init__(self, octets: int | None = None) -> None:
        """:param octets: its bound, if not the one in `assay.caches`."""
        self._kept: Cache[Hashable, _Past] = Cache("evaluations", octets)

    def __len__(self) -> int:
        """The number of evaluations."""
        return len(self._kept)

    def again(
        self, key: Hashable, evaluate: Callable[[], Inquiry[T]], worth_keeping: Callable[[T], bool] = lambda _: True
    ) -> Inquiry[T]:
        """Evaluate, or find that an earlier evaluation is still valid.

        :param key: all that the evaluation depends on besides the answers.
        :param evaluate: starts it.
        :param worth_keeping: whether the evaluation depends on nothing but `key` and the answers.
        """
        found = self._kept.find(key)
        batches: list[_Batch] = []
        if found is not None:
            for number, (questions, former) in enumerate(found.value.batches):
                answers = yield questions
                if answers != former and not all(map(_same, answers, former)):
                    batches = [*found.value.batches[:number], (questions, answers)]
                    break
            else:
                value: T = found.value.value
                return value
        value = yield from _make(evaluate(), batches)
        if worth_keeping(value) and not _failed(batches):
            past = _Past(tuple(batches), value)
            weight = ENTRY + measure(key, past)
            if weight <= MAX_OCTETS:
                self._kept.keep(key, Entry(past, weight))
        return value


def _make(inquiry: Inquiry[T], batches: list[_Batch]) -> Inquiry[T]:
    """Make an evaluation whose first `batches` have been answered, and note those that follow."""
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
    """Whether an answer says the same as the earlier one; no evaluation depends on its TTL."""
    return answer is former or (
        answer.outcome is former.outcome
        and answer.records == former.records
        and answer.secure == former.secure
        and answer.stale == former.stale
        and answer.reason == former.reason
    )


def _failed(batches: Sequence[_Batch]) -> bool:
    """Whether some question had no answer."""
    return any(answer.outcome is Outcome.TEMPFAIL for _, answers in batches for answer in answers)
