# SPDX-License-Identifier: GPL-3.0-or-later
"""Each criterion finds exactly its messages, newest first, however small the pages and windows are."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from assay.store import overview, search
from assay.store.database import Database, connect, open_database
from assay.store.rows import FindingRow, MessageRow
from assay.store.search import Criteria, Cursor
from postgresql import PASSWORD, Postgresql
from store_generator import OURS, fill, generated

END = 1_700_049_600_000
GENERATED = tuple(generated(1500, days=10, end=END))
#: What a stranger wrote looks like a finding, in the text of JSON.
LIAR = FindingRow("dkim", "dkim", "fail", "arc", "policy", reason='["dmarc","dmarc","policy",')
ROWS = (*GENERATED, replace(GENERATED[0], id=b"\xff" * 16, time=END + 1, queue="LIAR", findings=(LIAR,)))
SINCE, UNTIL = ROWS[400].time, ROWS[1100].time
ANN = "ann@example.org"

Wanted = Callable[[MessageRow], bool]


def people(row: MessageRow) -> set[str]:
    return {row.sender, row.author, row.login, *row.recipients}


def in_time(row: MessageRow) -> bool:
    return SINCE <= row.time < UNTIL


CRITERIA: dict[str, tuple[Criteria, Wanted]] = {
    "all": (Criteria(), lambda row: True),
    "time": (Criteria(since=SINCE, until=UNTIL), in_time),
    "queue": (Criteria(queue=ROWS[7].queue), lambda row: row.queue == ROWS[7].queue),
    "message id": (Criteria(message_id=ROWS[7].message_id), lambda row: row.message_id == ROWS[7].message_id),
    "author": (Criteria(author_domain="example.org"), lambda row: row.author_domain == "example.org"),
    "domain": (
        Criteria(domain="lists.example", since=SINCE),
        lambda row: "lists.example" in (row.author_domain, row.sender_domain) and row.time >= SINCE,
    ),
    "address": (Criteria(address=f"<{ANN.upper()}>"), lambda row: ANN in people(row)),
    "address in time": (
        Criteria(address=ANN, since=SINCE, until=UNTIL),
        lambda row: ANN in people(row) and in_time(row),
    ),
    "address and action": (
        Criteria(address=ANN, action="reject"),
        lambda row: ANN in people(row) and row.action == "reject",
    ),
    "client": (Criteria(client="192.0.2.77"), lambda row: row.client == "192.0.2.77"),
    "host": (Criteria(host="mx2.example.org"), lambda row: row.host == "mx2.example.org"),
    "direction": (Criteria(direction="outbound"), lambda row: row.direction == "outbound"),
    "by": (Criteria(by="dmarc.temperror"), lambda row: row.by == "dmarc.temperror"),
    "no dmarc": (
        Criteria(dmarc="none", direction="inbound"),
        lambda row: (
            row.direction == "inbound"
            and not any(found.key == "dmarc" and found.result != "none" for found in row.findings)
        ),
    ),
    "disposition": (
        Criteria(disposition="quarantine"),
        lambda row: row.dmarc is not None and row.dmarc.disposition == "quarantine",
    ),
    "not taken": (
        Criteria(disposition=search.NOT_TAKEN),
        lambda row: row.dmarc is None or not row.dmarc.disposition,
    ),
    "finding": (
        Criteria(finding="spf.mailfrom", result="softfail"),
        lambda row: any((found.key, found.result) == ("spf.mailfrom", "softfail") for found in row.findings),
    ),
    "key of a finding": (
        Criteria(finding="spf.helo"),
        lambda row: any(found.key == "spf.helo" for found in row.findings),
    ),
    "result of any finding": (
        Criteria(result="softfail"),
        lambda row: any(found.result == "softfail" for found in row.findings),
    ),
    "a result that is only in a text": (Criteria(result="policy"), lambda row: False),
    "another key of that text": (Criteria(finding="dmarc", queue="LIAR"), lambda row: False),
    "the key beside it": (Criteria(finding="arc", result="policy"), lambda row: False),
    "no such key": (Criteria(finding="spf"), lambda row: False),
    "watched": (
        Criteria(watched="rule 'bulk'"),
        lambda row: any(by == "rule 'bulk'" for _, by in row.watched),
    ),
    "a word that is no word here": (Criteria(queue=search.ANY), lambda row: False),
    "nothing": (Criteria(action="discard"), lambda row: False),
}


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    if request.param == "sqlite":
        made = open_database(str(tmp_path_factory.mktemp("store") / "store.sqlite"))
    else:
        server: Postgresql = request.getfixturevalue("postgresql")
        made = connect(server.create(), PASSWORD)
        made.migrate()
    fill(made, ROWS)
    yield made
    made.close()


@pytest.mark.parametrize(("criteria", "wanted"), CRITERIA.values(), ids=CRITERIA)
def test_a_criterion_finds_exactly_its_messages(
    database: Database, criteria: Criteria, wanted: Wanted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "MAX_LOOKED_AT", 100)
    monkeypatch.setattr(search, "_SORTED", 30)
    found: list[bytes] = []
    after: Cursor | None = None
    for _ in range(len(ROWS)):
        page = search.find(database, criteria, after=after, most=20)
        found += [each.id for each in page.messages]
        if page.further is None:
            break
        after = Cursor.parse(str(page.further))
        assert after == page.further
    assert found == [row.id for row in reversed(ROWS) if wanted(row)]


def test_all_of_a_message_is_found_by_its_id(database: Database, tmp_path: Path) -> None:
    row = next(row for row in ROWS if row.by == "dmarc.reject")
    stored = search.message(database, row.id)
    assert stored is not None
    assert stored.values["reason"] == row.reason
    assert row.dmarc is not None
    assert stored.values["record"] == row.dmarc.published.record
    assert [found.result for found in stored.findings] == [found.result for found in row.findings]
    assert dict(stored.addresses)["author"] == row.author
    assert stored.waits == row.waits
    assert search.message(database, b"\0" * 16) is None


@pytest.mark.parametrize("text", ["", "-", "1-", "x-00", "1-zz", "-1-00", "9" * 30 + "-00"])
def test_what_is_no_cursor_is_none(text: str) -> None:
    assert Cursor.parse(text) is None or text == "1-"


def test_a_page_has_a_bounded_number_of_messages(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "MAX_ROWS", 10)
    assert len(search.find(database, Criteria(), most=1000).messages) == 10


def test_sums_look_at_a_bounded_number_of_domains_and_days(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    days = range(END // 86_400_000 - 10, END // 86_400_000 + 1)
    whole = overview.failing_domains(database, OURS, days)
    assert len(whole) > 1
    last = max(each.day for each in overview.daily(database, "action", days))
    monkeypatch.setattr(overview, "MAX_SUBJECTS", 1)
    of_one = overview.failing(database, [each.name for each in whole], days)
    assert overview.failing_domains(database, [each.name for each in whole], days) == whole[:1]
    assert sum(each.total for each in of_one) <= whole[0].total
    monkeypatch.setattr(overview, "MAX_DAYS", 1)
    assert {each.day for each in overview.daily(database, "action", (last, *days))} == {last}
