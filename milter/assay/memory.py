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

from assay.inquiry import MX, Answer, Inquiry, Outcome, Question, Record

T = TypeVar("T")
_Batch = tuple[Sequence[Question], Sequence[Answer]]

#: Evaluations kept, each with its questions and answers; the answers are mostly the resolver's own. An evaluation costs
#: some two KiB with usual policies, so a full memory takes eight MiB; strangers can make it `MAX_OCTETS` each.
DEFAULT_SIZE = 4096
#: Octets that the questions and answers of an evaluation take at most that is kept: more than usual policies have.
#: Without a bound, strangers would decide how large a memory is.
MAX_OCTETS = 8192
_OBJECTS = 256  # octets of a question and its answer, whatever they say
_RECORD = 64  # octets of a record, beside its text


class _Past(Struct, frozen=True):
    """An evaluation, and the batches of questions with their answers that led to it."""

    batches: tuple[_Batch, ...]
    value: Any


class Memory:
    """What was evaluated lately: a bounded map, of which the least recently used half goes first."""

    __slots__ = ("_half", "_old", "_young")

    def __init__(self, size: int = DEFAULT_SIZE) -> None:
        """:param size: how many evaluations to keep at most."""
        self._half = max(1, size // 2)
        self._young: dict[Hashable, _Past] = {}
        self._old: dict[Hashable, _Past] = {}

    def __len__(self) -> int:
        """How many evaluations are kept."""
        return len(self._young.keys() | self._old.keys())

    def again(
        self, key: Hashable, evaluate: Callable[[], Inquiry[T]], worth_keeping: Callable[[T], bool] = lambda _: True
    ) -> Inquiry[T]:
        """Evaluate, or find that a former evaluation still holds.

        :param key: all that the evaluation depends on beside the answers.
        :param evaluate: begins it.
        :param worth_keeping: is told the evaluation: whether it depends on nothing but `key` and the answers.
        """
        past = self._get(key)
        batches: list[_Batch] = []
        if past is not None:
            for questions, former in past.batches:
                answers = yield questions
                batches.append((questions, answers))
                if not all(map(_same, answers, former)):
                    break
            else:
                return cast(T, past.value)
        value = yield from _make(evaluate(), batches)
        if worth_keeping(value) and _may_be_kept(batches):
            self._keep(key, _Past(tuple(batches), value))
        return value

    def _get(self, key: Hashable) -> _Past | None:
        past = self._young.get(key)
        if past is None:
            past = self._old.get(key)
            if past is not None:
                self._keep(key, past)
        return past

    def _keep(self, key: Hashable, past: _Past) -> None:
        if len(self._young) >= self._half:
            # Two threads that come here at once lose a generation: a few evaluations are made again.
            self._old, self._young = self._young, {}
        self._young[key] = past


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


def _may_be_kept(batches: Sequence[_Batch]) -> bool:
    """Whether an evaluation is small, and came to its end without a failure."""
    octets = 0
    for questions, answers in batches:
        for question, answer in zip(questions, answers, strict=True):
            if answer.outcome is Outcome.TEMPFAIL:
                return False
            octets += _OBJECTS + len(question.name) + sum(map(_size, answer.records))
    return octets <= MAX_OCTETS


def _size(record: Record) -> int:
    match record:
        case bytes() | str():
            return _RECORD + len(record)
        case MX():
            return _RECORD + len(record.exchange)
        case _:
            return _RECORD
