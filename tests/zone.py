# SPDX-License-Identifier: GPL-3.0-or-later
"""A DNS zone written as a dict, and a driver that answers inquiries from it: no network, no thread, no clock.

The form is that of the published cases: ``{owner: [[type, value], ...]}``, where TXT values are lists of
character-strings, MX is ``[preference, host]`` and ``["SERVFAIL", type or "*"]`` makes questions fail.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address
from random import Random
from typing import Any, Generic, TypeVar, cast

from assay.inquiry import MX, PENDING, Answer, Eager, Inquiry, Outcome, Question, Record, RecordType, solve

T = TypeVar("T")
Rows = Mapping[str, Sequence[Sequence[Any]]]

MAX_CNAMES = 8
TTL = 300


@dataclass
class Zone:
    """The DNS as a dict. `asked` records every question in order."""

    rows: Rows
    asked: list[Question] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._owners = {owner.lower().rstrip("."): tuple(rows) for owner, rows in self.rows.items()}
        self._parents = {
            ".".join(labels[start:])
            for labels in (owner.split(".") for owner in self._owners)
            for start in range(1, len(labels))
        }

    def answer(self, question: Question) -> Answer:
        """Answer as an authoritative server with a resolver in front of it would."""
        self.asked.append(question)
        name = question.name.lower().rstrip(".")
        labels = name.split(".")
        if len(name) > 253 or not all(0 < len(label) <= 63 for label in labels):
            return Answer(Outcome.NXDOMAIN)
        for _ in range(MAX_CNAMES):
            rows = self._owners.get(name)
            if rows is None:
                return Answer(Outcome.NODATA if name in self._parents else Outcome.NXDOMAIN)
            if any(kind == "SERVFAIL" and value == question.type for kind, value in rows):  # even where it has records
                return Answer(Outcome.TEMPFAIL, reason="SERVFAIL")
            found = tuple(_record(question.type, value) for kind, value in rows if kind == question.type)
            if found:
                return Answer(Outcome.FOUND, found, ttl=TTL)
            cname = next((value for kind, value in rows if kind == "CNAME"), None)
            if cname is None:
                failing = any(kind == "SERVFAIL" and value == "*" for kind, value in rows)
                return Answer(Outcome.TEMPFAIL, reason="SERVFAIL") if failing else Answer(Outcome.NODATA)
            name = cname.lower().rstrip(".")
        return Answer(Outcome.TEMPFAIL, reason="CNAME loop")

    def solve(self, inquiry: Inquiry[T]) -> T:
        """Run an inquiry to its end."""
        return solve(inquiry, self.answer)

    def solve_piecemeal(self, inquiry: Inquiry[T], draw: Random) -> T:
        """Run an inquiry to its end, and let its answers come in any order and grouping."""
        try:
            batch = next(inquiry)
            while True:
                number = draw.randint(1, len(batch)) if isinstance(batch, Eager) else len(batch)
                here = set(draw.sample(range(len(batch)), number))
                batch = inquiry.send([self.answer(one) if at in here else PENDING for at, one in enumerate(batch)])
        except StopIteration as end:
            return cast(T, end.value)

    def start(self, inquiry: Inquiry[T], *_: object) -> Solved[T]:
        """The `assay.inquiry.Driver` of the tests: everything is answered at once."""
        return Solved(self.solve(inquiry))


@dataclass(frozen=True)
class Solved(Generic[T]):
    """An evaluation that is already there."""

    value: T

    def result(self) -> T:
        return self.value

    def cancel(self) -> None:
        pass


def _record(kind: RecordType, value: Any) -> Record:
    match kind:
        case RecordType.A | RecordType.AAAA:
            return ip_address(value)
        case RecordType.MX:
            return MX(int(value[0]), value[1].rstrip("."))
        case RecordType.PTR:
            return str(value).rstrip(".")
        case RecordType.TXT:
            strings = [value] if isinstance(value, str) else value
            return b"".join(string.encode("utf-8", "surrogateescape") for string in strings)
