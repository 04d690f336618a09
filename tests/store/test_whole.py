# SPDX-License-Identifier: GPL-3.0-or-later
"""What was written comes back as it was, whatever it is."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from assay.store.database import Database
from assay.store.rows import AnswerRow, DmarcRow, FindingRow, MessageRow, PublishedRow
from assay.store.search import Criteria
from assay.store.whole import exported, rows
from assay.store.writer import Writer
from store_rows import row

#: All that PostgreSQL stores. Lone surrogates and NUL are below.
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
SMALL = st.integers(0, 2**31 - 1)
PAIRS = st.lists(st.tuples(TEXT, TEXT), max_size=3).map(tuple)
FINDING = st.builds(FindingRow, TEXT, TEXT, TEXT, TEXT, TEXT, st.booleans(), TEXT)
PUBLISHED = st.builds(PublishedRow, TEXT, TEXT, TEXT)
DMARC = st.builds(DmarcRow, PUBLISHED, TEXT, TEXT, st.booleans(), st.booleans(), PAIRS)
ANSWER = st.builds(
    AnswerRow, TEXT, TEXT, TEXT, st.lists(TEXT, max_size=3).map(tuple), st.booleans(), st.booleans(), SMALL, TEXT, SMALL
)
#: Of each type of a member, and of those members that are bounded.
OF_TYPES = {"str": TEXT, "bool": st.booleans(), "int": SMALL}
MEMBERS = {
    "time": st.integers(0, 2**47),
    "recipient_domains": st.lists(TEXT, max_size=3).map(tuple),
    "recipients": st.lists(TEXT.filter(bool), max_size=3).map(tuple),
    "watched": PAIRS,
    "waits": st.lists(st.tuples(TEXT, SMALL), max_size=3).map(tuple),
    "findings": st.lists(FINDING, max_size=5).map(tuple),
    "answers": st.lists(ANSWER, max_size=3).map(tuple),
    "dmarc": st.none() | DMARC,
}
ROWS = st.fixed_dictionaries(
    {
        name: MEMBERS[name] if name in MEMBERS else OF_TYPES[MessageRow.__annotations__[name]]
        for name in MessageRow.__struct_fields__
        if name not in ("id", "incident")
    }
)
NUMBERS = itertools.count(1)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(drawn=st.lists(ROWS, min_size=1, max_size=3))
def test_any_row_comes_back(database: Database, drawn: list[dict[str, object]]) -> None:
    written = [row(next(NUMBERS), **members) for members in drawn]
    assert Writer(database).write(written) == len(written)
    with database.reading() as connection:
        assert rows(connection, [each.id for each in written]) == written


@pytest.mark.parametrize("text", ["a\0b", "caf\udce9", "\ud800", "x" * 10_000, "'; DROP TABLE messages; --", "%s ? :a"])
def test_hostile_text_is_kept_as_far_as_text_can_be(database: Database, text: str) -> None:
    finding = FindingRow("spf", "spf.helo", "fail", text, text, False, text)
    dmarc = DmarcRow(PublishedRow(text, text, text), "none", "none", False, False, ((text, text),))
    written = row(
        1, helo=text, sender=text, recipients=(text,), findings=(finding,), dmarc=dmarc, watched=((text, text),)
    )
    assert Writer(database).write([row(2), written]) == 2
    with database.reading() as connection:
        (found,) = rows(connection, [written.id])
    kept = {"a\0b": ("a\0b", "a\ufffdb"), "caf\udce9": ("caf\\xe9",), "\ud800": ("\\ud800",)}.get(text, (text,))
    assert found.helo in kept
    assert found.recipients == (found.helo,)
    assert (found.findings[0].reason, found.watched) == (found.helo, ((found.helo, found.helo),))
    assert found.dmarc is not None
    assert found.dmarc.published.record == found.helo


def test_an_export_is_longer_than_a_page(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("assay.store.whole.MAX_ROWS", 3)
    written = [row(number) for number in range(10)]
    Writer(database).write(written)
    assert list(exported(database, Criteria())) == written[::-1]
    assert list(exported(database, Criteria(queue=written[4].queue))) == [written[4]]
    assert list(exported(database, Criteria(queue="none"))) == []
