# SPDX-License-Identifier: GPL-3.0-or-later
"""An SPF check step by step, as ``assay spfquery -v`` prints it.

The check reports its steps (`spf.Step`), and the resolver's observer the time of each question. This module joins the
two by name and type. Each line begins with the milliseconds after which its fact was known: several questions are
asked in parallel, and a term may wait for the slowest.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from msgspec import Struct
from msgspec.structs import replace

from assay.cli.output import lookup
from assay.inquiry import Answer, Outcome, Question, RecordType
from assay.protocol import spf


class Asked(NamedTuple):
    """A question and the resolver's answer: the seconds it took, and the seconds since the check began."""

    question: Question
    answer: Answer
    seconds: float
    at: float


class Check(Struct, frozen=True):
    """One identity that was checked: its steps, its Received-SPF value, all DNS questions and the seconds it took."""

    evaluation: spf.Evaluation
    steps: tuple[spf.Step, ...]
    received_spf: str
    asked: tuple[Asked, ...]
    seconds: float


def narrate(check: Check) -> Iterator[str]:
    """Describe one check: a policy, its terms, indented each term's questions and comparisons, included policies.

    :returns: lines that may have a stranger's octets.
    """
    asked = {(each.question.name, each.question.type): each for each in check.asked}
    told: set[tuple[str, RecordType]] = set()
    known = 0.0
    line = ""
    for step in check.steps:
        if step.event is spf.Event.COUNT:  # belongs to the previous step
            line += f" [{step.text}]"
            continue
        if line:
            yield line
        text = step.text
        if step.question is not None and step.answer is not None:
            key = (step.question.name, step.question.type)
            made = asked.get(key)
            answer = step.answer
            if made is None:
                answer = replace(answer, secure=False)  # true, but nobody signed it
                took = "not asked: the DNS cannot carry this name"
            else:
                took = "as above" if key in told else f"{made.seconds * 1000:.1f} ms"
                known = max(known, made.at)
            # The record found follows on its own line.
            is_policy = not step.term and step.answer.outcome is Outcome.FOUND
            text = f"{lookup(step.question, answer, count=is_policy)} ({took})"
            told.add(key)
        elif step.event is spf.Event.OUTCOME:
            text = f"-> {text}" if step.term else f"=> {step.domain}: {text}"
        line = f"{_milliseconds(known)}  {'  ' * _level(step)}{text}"
    if line:
        yield line
    for key, made in asked.items():
        if key not in told:
            text = f"{lookup(made.question, made.answer)} ({made.seconds * 1000:.1f} ms)"
            yield f"{_milliseconds(made.at)}  asked in advance, not needed: {text}"
    evaluation = check.evaluation
    if not check.steps:  # there was no domain to check
        yield f"{_milliseconds(known)}  => {evaluation.result}: {evaluation.reason}"
    yield (
        f"{_milliseconds(check.seconds)}  in all; questions {len(check.asked)}, DNS terms {evaluation.dns_terms}, "
        f"void lookups {evaluation.void_lookups}"
    )


def _level(step: spf.Step) -> int:
    """The indentation of a step: a policy lies inside the term that includes it, a term inside its policy."""
    if not step.term:
        return 2 * step.depth + (step.event is spf.Event.RECORD)
    return 2 * step.depth + (1 if step.event is spf.Event.TERM else 2)


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:8.1f} ms"
