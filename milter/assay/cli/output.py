# SPDX-License-Identifier: GPL-3.0-or-later
"""Output of the subcommands: DNS answers in words, and a stranger's octets escaped for the terminal."""

from __future__ import annotations

import json
from collections.abc import Iterable

from assay.cli.plain import plain
from assay.inquiry import MX, Answer, Grounds, Outcome, Question, Record, grounds
from assay.model.printable import escaped

MAX_LISTED = 20  # records shown of one answer; our choice: --json has all

_WORTH = {Grounds.SECURE: " (secure)", Grounds.UNPROVEN: "", Grounds.STALE: " (an expired answer)"}


def say(lines: Iterable[str]) -> None:
    """Print lines, escaped for the terminal. Tabs stay, since they fold header fields."""
    for line in lines:
        print(escaped(line, keep="\t"))


def say_object(value: object) -> None:
    """Print a value as one JSON object, in ASCII, so that nothing in it controls a terminal."""
    print(json.dumps(plain(value), indent=2))


def counted(number: int, noun: str) -> str:
    """A number of things: "1 message", "2 messages"."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


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


def _record(record: Record) -> str:
    match record:
        case bytes():
            return '"' + record.decode("utf-8", "backslashreplace") + '"'
        case MX(preference, exchange):
            return f"{preference} {exchange or '.'}"
        case _:
            return str(record)
