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

from assay.inquiry import Answer, Question
from assay.narration import lookup, spf_lines
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
    asked = {each.question: each for each in check.asked}
    printed: set[Question] = set()
    known = 0.0
    for line in spf_lines(check.steps, asked):
        text = line.text
        if line.question is not None:
            made = asked.get(line.question)
            if made is None:
                took = "not asked: the DNS cannot carry this name"
            else:
                took = "as above" if line.question in printed else f"{made.seconds * 1000:.1f} ms"
                known = max(known, made.at)
            text += f" ({took})"
            printed.add(line.question)
        yield f"{_milliseconds(known)}  {'  ' * line.level}{text}{line.limits}"
    for question, made in asked.items():
        if question not in printed:
            text = f"{lookup(question, made.answer)} ({made.seconds * 1000:.1f} ms)"
            yield f"{_milliseconds(made.at)}  asked in advance, not needed: {text}"
    evaluation = check.evaluation
    if not check.steps:  # there was no domain to check
        yield f"{_milliseconds(known)}  => {evaluation.result}: {evaluation.reason}"
    yield (
        f"{_milliseconds(check.seconds)}  in all; questions {len(check.asked)}, DNS terms {evaluation.dns_terms}, "
        f"void lookups {evaluation.void_lookups}"
    )


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:8.1f} ms"
