# SPDX-License-Identifier: GPL-3.0-or-later
"""Floor 3: what was asked, found and decided, in words, for everything that explains it: ``assay check --explain``,
``assay spfquery -v`` and the page.

The words may have a stranger's octets in them: escape them before printing.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence

from msgspec import Struct
from msgspec.structs import replace

from assay.inquiry import MX, Answer, Grounds, Outcome, Question, Record, grounds
from assay.model.wording import counted
from assay.protocol import spf

MAX_LISTED = 20  # records shown of one answer; our choice: --json has all

_WORTH = {Grounds.SECURE: " (secure)", Grounds.UNPROVEN: "", Grounds.STALE: " (an expired answer)"}
_RESTS_ON = {
    Grounds.SECURE: "; its DNS answers are secure (DNSSEC)",
    Grounds.UNPROVEN: "",
    Grounds.STALE: "; some of its DNS answers have expired",
}


class Line(Struct, frozen=True):
    """One line about a check of SPF.

    :ivar level: how far it is indented: what is below a term is what the term did.
    :ivar limits: how far it fills the limits of RFC 7208, 4.6.4; empty if it does not.
    :ivar question: of a line about a question and its answer.
    """

    level: int
    text: str
    limits: str = ""
    question: Question | None = None


def lookup(question: Question, answer: Answer, *, count: bool = False) -> str:
    """A question and its answer in words, or with `count` only the number of its records."""
    asked = f"{question.type} {question.name or '(empty name)'}{_WORTH[grounds((answer,))]}"
    match answer.outcome:
        case Outcome.NXDOMAIN:
            return f"{asked}: the name does not exist"
        case Outcome.NODATA:
            return f"{asked}: no {question.type} record"
        case Outcome.TEMPFAIL:
            return f"{asked}: no answer, {answer.reason or 'no reason known'}"
    number = len(answer.records)
    if count:
        return f"{asked}: {counted(number, 'record')}"
    listed = ", ".join(_record(record) for record in answer.records[:MAX_LISTED])
    return f"{asked}: {listed}" + (f" and {number - MAX_LISTED} more" if number > MAX_LISTED else "")


def found(result: str, about: str, reason: str, rests_on: Grounds = Grounds.UNPROVEN) -> str:
    """What one method found. The arguments are as in `assay.findings.Finding`."""
    text = f"{result} ({about})" if about else result
    return (f"{text}: {reason}" if reason else text) + _RESTS_ON[rests_on]


def decided(action: str, where: str, by: str, reason: str) -> str:
    """A decision.

    :param where: at which stage, as `at mail`; empty at the end of the message.
    :param by: the key or rule that decided; empty if none did.
    """
    words = f"{action} {where}" if where else action
    return words + (f", by {by}" if by else "") + (f": {reason}" if reason else "")


def spf_lines(steps: Sequence[spf.Step], asked: Container[Question]) -> Iterator[Line]:
    """A check of SPF step by step: a policy, its terms, each term's questions and comparisons, included policies.

    :param asked: the questions that the DNS was asked, with names in lower case. It cannot carry the names of others.
    """
    line: Line | None = None
    for step in steps:
        if step.event is spf.Event.COUNT:  # belongs to the previous step
            line = None if line is None else replace(line, limits=f"{line.limits} [{step.text}]")
            continue
        if line is not None:
            yield line
        text = step.text
        if step.question is not None and step.answer is not None:
            # That the DNS cannot carry a name is true, but not proved by DNSSEC.
            answer = step.answer if step.question in asked else replace(step.answer, secure=False)
            # The record found follows on its own line.
            text = lookup(step.question, answer, count=not step.term and answer.outcome is Outcome.FOUND)
        elif step.event is spf.Event.OUTCOME:
            text = f"-> {text}" if step.term else f"=> {step.domain}: {text}"
        line = Line(_level(step), text, question=step.question)
    if line is not None:
        yield line


def _level(step: spf.Step) -> int:
    """A policy lies inside the term that includes it, a term inside its policy."""
    if not step.term:
        return 2 * step.depth + (step.event is spf.Event.RECORD)
    return 2 * step.depth + (1 if step.event is spf.Event.TERM else 2)


def _record(record: Record) -> str:
    match record:
        case bytes():
            return '"' + record.decode("utf-8", "backslashreplace") + '"'
        case MX(preference, exchange):
            return f"{preference} {exchange or '.'}"
        case _:
            return str(record)
