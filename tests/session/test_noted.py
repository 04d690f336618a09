# SPDX-License-Identifier: GPL-3.0-or-later
"""What a connection and its messages asked the DNS, and what is kept of it."""

from __future__ import annotations

import itertools
from random import Random

import pytest
from msgspec.structs import replace

from assay.inquiry import Answer, Brief, Eager, Inquiry, Outcome, Question, RecordType
from assay.policy import Trust
from assay.session import Session, Settings
from assay.session.noted import MAX_NOTED, Notes
from assay.store import from_verdict
from assay.store.from_verdict import Keeping, message_row
from assay.store.rows import AnswerRow, MessageRow
from sending import ROWS
from talking import NOW, greet, talk
from zone import Zone

MACROS = {"local.example": [["TXT", ["v=spf1 exists:%{l}.%{l1r-}.x.local.example a -all"]], ["A", "192.0.2.1"]]}


def session(rows: object = ROWS, *, noted: bool = True) -> tuple[Session, Zone]:
    zone = Zone(rows)  # type: ignore[arg-type]  # as Zone takes it
    clock = itertools.count(0, 0.25).__next__
    return Session(Settings(), Trust(), lambda: zone, clock=clock if noted else None), zone


def row_of(one: Session, path: str = "<joe@example.org>", **keeping: bool) -> MessageRow:
    return message_row(talk(one, path=path), Keeping("mx", **keeping), now=NOW, waits={})


def test_every_question_is_noted_once_with_its_answer() -> None:
    one, zone = session()
    greet(one)
    verdict = talk(one)
    found = {noted.question: noted.answer for noted in verdict.answers}
    assert set(found) == set(zone.asked)
    assert all(answer == zone.answer(question) for question, answer in found.items())
    assert all(noted.seconds > 0 for noted in verdict.answers)


def test_the_next_message_has_what_the_connection_asked_and_nothing_of_the_first() -> None:
    one, _ = session({**ROWS, **MACROS})
    greet(one)
    first = {noted.question for noted in talk(one).answers}
    one.mail("<x@local.example>", now=NOW)
    one.abort()
    second = {noted.question for noted in talk(one).answers}
    assert second == first, "what is remembered is asked again"
    third = {noted.question.name for noted in talk(one, path="<joe@local.example>").answers}
    assert "local.example" in third
    assert "local.example" not in {question.name for question in first}


def test_nothing_is_noted_unless_it_is_wanted() -> None:
    one, _ = session(noted=False)
    greet(one)
    assert talk(one).answers == ()
    row = row_of(one)
    assert (row.answers, row.further_answers) == ((), 0)


def questions(count: int) -> list[Question]:
    return [Question(f"{number}.example", RecordType.A) for number in range(count)]


@pytest.mark.parametrize("kind", [tuple, Eager, Brief])
def test_a_batch_keeps_its_kind_and_what_is_pending_is_no_answer(kind: type) -> None:
    def inquiry() -> Inquiry[int]:
        open_ = questions(4)
        while open_:
            answers = yield kind(open_)
            open_ = [each for each, got in zip(open_, answers, strict=True) if got.reason == "not answered yet"]
        return 7

    notes = Notes(lambda: 0.0)
    batch = next(notes.of(inquiry()))
    assert type(batch) is kind
    assert Zone({}).solve_piecemeal(notes.of(inquiry()), Random(5)) == 7  # noqa: S311 - the same each time
    assert [noted.answer.outcome for noted in notes.taken()] == [Outcome.NXDOMAIN] * 4


def test_what_is_cancelled_is_closed_and_notes_are_bounded() -> None:
    closed = []

    def inquiry() -> Inquiry[None]:
        try:
            yield questions(MAX_NOTED + 5)
            yield []
        finally:
            closed.append(True)

    notes = Notes(lambda: 0.0)
    running = notes.of(inquiry())
    batch = next(running)
    running.send([Answer(Outcome.NODATA)] * len(batch))
    running.close()
    assert closed
    assert len(notes.taken()) == MAX_NOTED


def test_what_is_kept_of_an_answer() -> None:
    one, _ = session()
    greet(one)
    row = row_of(one)
    record = next(each for each in row.answers if (each.name, each.type) == ("_dmarc.example.org", "TXT"))
    assert record.outcome == "found"
    assert record.records == (ROWS["_dmarc.example.org"][0][1][0],)
    assert (record.ttl, record.secure, record.stale) == (300, False, False)
    assert record.milliseconds > 0
    assert len({(each.name.lower(), each.type) for each in row.answers}) == len(row.answers)


@pytest.mark.parametrize("addresses", [True, False])
def test_a_local_part_is_in_no_name_unless_addresses_are_kept(addresses: bool) -> None:
    one, zone = session({**ROWS, **MACROS})
    greet(one)
    row = row_of(one, "<Jane_D-Doe@local.example>", addresses=addresses)
    asked = [question.name for question in zone.asked if question.name.endswith(".x.local.example")]
    assert asked, "the record asks for it"
    there = [each.name for each in row.answers if "jane" in each.name.lower() or "doe" in each.name.lower()]
    assert bool(there) is addresses
    assert row.further_answers == (0 if addresses else len(set(asked)))
    assert any(each.name == "local.example" for each in row.answers)


def test_a_message_has_so_many_answers_and_so_much_text(monkeypatch: pytest.MonkeyPatch) -> None:
    one, _ = session()
    greet(one)
    verdict = talk(one)
    texts = Answer(Outcome.FOUND, tuple(b"\xff%d" % number + b"x" * 5000 for number in range(50)))
    verdict = replace(verdict, answers=tuple(replace(noted, answer=texts) for noted in verdict.answers))
    row = message_row(verdict, Keeping("mx"), now=NOW, waits={})
    assert row.answers == ()
    assert row.further_answers > 3
    monkeypatch.setattr(from_verdict, "MAX_ANSWERS_TEXT", 10**6)
    monkeypatch.setattr(from_verdict, "MAX_ANSWERS", 3)
    row = message_row(verdict, Keeping("mx"), now=NOW, waits={})
    assert len(row.answers) == 3
    assert {len(each.records) for each in row.answers} == {from_verdict.MAX_ANSWER_RECORDS}
    assert {len(record) for each in row.answers for record in each.records} == {from_verdict.MAX_ANSWER_TEXT}
    assert row.answers[0].records[0].startswith("\\xff0xx")


def test_a_row_that_is_too_long_has_no_answers() -> None:
    from assay.store.rows import MAX_ROW_OCTETS, decode, encode

    one, _ = session()
    greet(one)
    row = row_of(one)
    answers = (AnswerRow("a.example", "TXT", "found", ("x" * MAX_ROW_OCTETS,)),) * 2
    assert decode(encode(replace(row, answers=answers, further_answers=1))) == replace(
        row, answers=(), further_answers=3
    )
