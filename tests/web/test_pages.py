# SPDX-License-Identifier: GPL-3.0-or-later
"""Every page on a store of 100,000 messages: fast, valid, and with a stranger's text as text."""

from __future__ import annotations

import contextlib
import csv
import html
import io
import json
import re
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import html5lib
import markupsafe
import pytest
from msgspec.structs import replace
from sqlalchemy import Connection, event

import store_rows
from asking import Browser
from assay.config.store import StoreSection
from assay.daemon.status import Period
from assay.model.printable import escaped
from assay.store import folding, outbox, overview, received, reporting, search
from assay.store.database import Database, open_database
from assay.store.feeding import UnavailableError
from assay.store.folding import Folding
from assay.store.reporting import SeenBeside
from assay.store.rows import DmarcRow, PublishedRow
from assay.store.search import Criteria, Cursor
from assay.store.writer import Writer
from assay.web import dns, messages
from assay.web import received as received_page
from assay.web.parts import DataTable
from assay.web.periods import RARE
from assay.web.site import MAX_ARGUMENT, WebQuery
from assay.web.store import ReadStore
from store_generator import OURS
from web.pages import ATTACKS, filled, serving

MOST_SECONDS = 0.3  # of a processor, at the server: on a busy machine a page waits for one
PATHS = (
    "/overview", "/messages", "/messages?author=example.org&dmarc=fail", "/messages?q=ann%40example.org",
    "/messages?q=example.org", "/messages?action=discard", "/messages?finding=spf.mailfrom&result=softfail",
    "/messages?since=2026-01-01&until=today", "/senders", "/senders?domain=example.org", "/domains",
    "/domains/example.org", "/domains/shop.example.com", "/dry-run", "/dns", "/configuration",
    "/reports", "/reports?state=not%20sent", "/reports?state=failed&from=50", "/reports?domain=example.org",
    "/received", "/received?kind=tls", "/received?kind=failure", "/received?domain=example.org&from=50",
    "/received?client=203.0.113.7", "/received?author=example.org&since=2026-01-01", "/reports?since=2026-01-01&why=x",
    "/messages?author=example.org&direction=inbound&reported=fail", "/messages?q=example.org&ours=yes&dmarc=fail",
    "/messages?by=none&action=accept", "/messages?watched=iprev.fail&would=reject",
)  # fmt: skip


@pytest.fixture(scope="module")
def store(large_store: StoreSection) -> StoreSection:
    return large_store


@pytest.fixture(scope="module")
def browser(store: StoreSection, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with serving(tmp_path_factory.mktemp("site"), store) as app:
        browser = Browser(app)
        browser.log_in()
        yield browser


@pytest.fixture(scope="module")
def attacked(browser: Browser) -> list[str]:
    """The pages of the messages that strangers wrote, newest first."""
    listed = browser.get("/messages").text
    return re.findall(r'href="(/messages/[0-9a-f]{32})"', listed)[: len(ATTACKS)][::-1]


@pytest.mark.parametrize("path", PATHS)
def test_a_page_is_made_fast_and_is_valid(browser: Browser, path: str) -> None:
    _fast_and_valid(browser, path)


@pytest.mark.parametrize(
    "path",
    ["/reports?state=sent", "/reports?state=refused", "/reports?kind=failure", "/received?kind=aggregate",
     "/received?kind=failure", "/received?kind=tls", "/messages", "/messages?q=orders.example",
     "/messages?author=example.org&dmarc=fail"],
)  # fmt: skip
def test_a_single_thing_is_shown_fast_and_is_valid(browser: Browser, path: str) -> None:
    listed = re.findall(r'href="(/(?:reports|received|messages)/[^"/]+)"', browser.get(path).text)
    for of_one in (listed[0], listed[-1]):
        _fast_and_valid(browser, of_one)


def test_a_failure_report_leads_to_its_message(browser: Browser) -> None:
    asked = "/reports?kind=failure"
    listed = re.findall(r'href="(/reports/[^"/]+)"', browser.get(asked).text)
    assert len(listed) == len(ATTACKS)
    found = ""
    for report in listed:
        shown = browser.get(report).text
        assert "The first message that it is about" in shown
        found += shown
    for attack in ATTACKS:
        seen = escaped(attack.replace("\0", "\N{REPLACEMENT CHARACTER}"))
        assert found.count(f"<dd>{markupsafe.escape(seen)}</dd>") >= 4, attack
    assert 'href="/messages?q=aaaa' in found
    kinds = {row["kind"] for row in json.loads(browser.get("/reports.json?table=reports&kind=aggregate").body)}
    assert kinds == {"aggregate"}


def test_what_was_not_taken_can_be_listed(tmp_path: Path) -> None:
    now = int(time.time() * 1000)
    policy = PublishedRow("example.org", "v=DMARC1; p=reject", "treewalk")
    section = StoreSection(directory=str(tmp_path))
    with contextlib.closing(open_database(section.location)) as database:
        rows = [
            store_rows.row(
                number, time=now, author_domain="example.org", dmarc=DmarcRow(policy, "reject", what, False, False)
            )
            for number, what in enumerate(("", "", "reject"))
        ]
        Writer(database).write(rows)
    with serving(tmp_path, section) as app:
        browser = Browser(app)
        browser.log_in()
        (name,) = json.loads(browser.get("/senders.json?table=names").body)
        assert (name["messages"], name["reject"], name["deferred"]) == (3, 1, 2)
        links = re.findall(r'href="(/messages[?][^"]*disposition=deferred[^"]*)">2</a>', browser.get("/senders").text)
        assert len(links) == 2, "by author domain and by client"
        for link in links:
            found = json.loads(browser.get(html.unescape(link).replace("/messages", "/messages.json")).body)
            assert sorted(each["queue"] for each in found) == [rows[0].queue, rows[1].queue]


def test_a_report_that_was_divided_leads_to_its_parts(tmp_path: Path) -> None:
    today = int(time.time()) // outbox.DAY_SECONDS
    whole = outbox.OutgoingReport(
        "w", today, "example.org", (1,), outbox.ReportState.DIVIDED, "it is large", 0, 0, 0, 5, 9
    )
    sent = replace(whole, state=outbox.ReportState.SENT, part_of="w", why="", supplement=1)
    part = replace(sent, form=outbox.ReportForm.PART, part=1, parts=2, first=(1, 1), last=(1, 9))
    error = replace(sent, id="e", form=outbox.ReportForm.ERROR, messages=0)
    parts = [replace(part, id=f"p{number}", part=number) for number in (1, 2)]
    section = StoreSection(directory=str(tmp_path))
    with (
        contextlib.closing(open_database(section.location)) as database,
        database.writing() as connection,
    ):
        outbox.plan(connection, today, [whole, *parts, error], now=0, dry_run=False)
    with serving(tmp_path, section) as app:
        browser = Browser(app)
        browser.log_in()
        listed = json.loads(browser.get("/reports/w.json?table=parts").body)
        assert [(each["report"], each["kind"]) for each in listed] == [
            ("e", "aggregate, supplement 1, error report"),
            ("p1", "aggregate, supplement 1, part 1 of 2"),
            ("p2", "aggregate, supplement 1, part 2 of 2"),
        ]
        for each in listed:
            assert 'href="/reports/w"' in browser.get(f"/reports/{each['report']}").text
        # It is counted as its parts, and the error report is none.
        days = json.loads(browser.get("/reports.json?table=days").body)
        assert sum(each["sent"] for each in days) == 2
        assert not any("divided" in each for each in days)


def _fast_and_valid(browser: Browser, path: str) -> None:
    times = []
    for _ in range(3):
        began = time.process_time()
        asked = browser.get(path)
        times.append(time.process_time() - began)
    assert asked.status == 200
    html5lib.HTMLParser(strict=True).parse(asked.text)
    identities = re.findall(r'\bid="([^"]*)"', asked.text)
    assert len(identities) == len(set(identities))
    assert min(times) < MOST_SECONDS


def test_what_a_stranger_wrote_is_text(browser: Browser, attacked: list[str]) -> None:
    for path, text in zip(attacked, ATTACKS, strict=True):
        asked = browser.get(path)
        assert asked.status == 200
        html5lib.HTMLParser(strict=True).parse(asked.text)
        seen = escaped(text)  # a spool or database may have replaced the NUL
        shown = {str(markupsafe.escape(each)) for each in (seen, seen.replace("\\x00", "\N{REPLACEMENT CHARACTER}"))}
        assert any(each in asked.text for each in shown)
        assert "<script" not in asked.text
        assert "<img" not in asked.text
        assert "\u202e" not in asked.text
        assert "\0" not in asked.text
    for path in PATHS:
        assert "<script" not in browser.get(path).text


def test_a_message_has_the_answers_of_the_dns_that_were_kept(browser: Browser, attacked: list[str]) -> None:
    rows = json.loads(browser.get(f"{attacked[0]}.json?table=explanation").body)
    found, failed = (row for row in rows if row["outcome"])
    assert {name: found[name] for name in ("name", "type", "outcome", "answer", "ttl", "marks", "milliseconds")} == {
        "name": ATTACKS[0], "type": "TXT", "outcome": "found", "answer": [ATTACKS[0], ATTACKS[0]], "ttl": 300,
        "marks": "secure, expired", "milliseconds": 5,
    }  # fmt: skip
    assert (failed["answer"], failed["ttl"], failed["marks"]) == (ATTACKS[0], None, "")
    asked = browser.get(attacked[0]).text
    assert "3 answers are left out" in asked
    assert "were not kept" not in asked
    without = re.findall(r'href="(/messages/[0-9a-f]{32})"', browser.get("/messages?by=dmarc.reject").text)[-1]
    assert "were not kept (store.dns_answers)" in browser.get(without).text
    assert "Explained" not in browser.get(without).text


@pytest.mark.parametrize("listed", ["/reports?day=today", "/received"])
def test_what_a_stranger_wrote_into_a_report_is_text(browser: Browser, listed: str) -> None:
    """In the list, in each report, and in its CSV and JSON."""
    today = datetime.now(UTC).date().isoformat()
    text = browser.get(listed.replace("today", today)).text
    paths = re.findall(rf'href="({listed.partition("?")[0]}/[0-9a-z]+)"', text)
    assert len(paths) >= len(ATTACKS)
    for number, path in enumerate((listed, *paths)):
        asked = text if number == 0 else browser.get(path).text
        html5lib.HTMLParser(strict=True).parse(asked)
        for forbidden in ("<script", "<img", "\u202e", "\x1b", 'href="javascript'):
            assert forbidden not in asked, (path, forbidden)
    shown = "".join([text, *(browser.get(path).text for path in paths)])
    for attack in ATTACKS:
        seen = escaped(attack.replace("\0", "\N{REPLACEMENT CHARACTER}"))
        assert str(markupsafe.escape(seen)) in shown, attack


@pytest.mark.parametrize("path", ["/reports/attack0", "/reports", "/received"])
def test_every_table_about_reports_is_had_as_csv_and_json(browser: Browser, path: str) -> None:
    tables = re.findall(r'href="([^"]*\.json\?[^"]*)"', browser.get(path).text)
    assert tables
    for table in tables:
        rows = json.loads(browser.get(html.unescape(table)).body)
        written = csv.DictReader(io.StringIO(browser.get(html.unescape(table).replace(".json", ".csv")).text))
        assert rows
        assert written.fieldnames == list(rows[0])
        assert "" not in rows[0], "a column of buttons"
        assert len(list(written)) == len(rows)


def test_what_others_saw_is_beside_what_we_saw(browser: Browser) -> None:
    names = {row["domain"]: row for row in json.loads(browser.get("/received.json?table=names").body)}
    assert set(OURS) <= set(names)
    own = json.loads(browser.get("/senders.json?table=names").body)
    for row in own:
        # Reports are made of what was taken or refused for good, within the last two weeks.
        assert 0 < names[row["domain"]]["own_failed"] <= row["messages"]
    every = browser.get("/received").text
    for row in json.loads(browser.get("/received.json?table=sources").body)[:5]:
        if row["own_failed"]:
            href = re.search(
                rf'href="(/messages\?[^"]*client={row["client"]}&amp;author={row["domain"]}&amp;reported=fail)"', every
            )
            assert href is not None
            assert browser.get(html.unescape(href[1])).text.count('href="/messages/') == min(50, row["own_failed"])


def test_rare_names_in_reports_are_one_row_without_links() -> None:
    """There is no list of exactly these."""
    seen = [SeenBeside("example.org", "192.0.2.1", 4, 3, 2, 1), SeenBeside("", "", 6, 5)]
    of_names, of_clients = received_page._by_domain(seen, [1]), received_page._by_source(seen, [1])
    assert list(of_names.rows)[1:] == [(RARE, 6, 5, None, None)]
    assert list(of_clients.rows)[1:] == [(RARE, None, 6, 5, None, None)]


def test_the_messages_of_a_report_are_found_by_their_author_domain(
    browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or those of the whole day would be looked at."""
    asked: list[Criteria] = []
    monkeypatch.setattr(search, "find", _noted(search.find, asked))
    listed = browser.get("/reports?kind=aggregate&domain=example.org").text
    report = re.search(r'href="/reports/([^"]+)"', listed)
    assert report is not None
    path = f"/messages.json?report={report[1]}"
    assert {row["author"].rpartition("@")[2] for row in json.loads(browser.get(path).body)} == {"example.org"}
    assert json.loads(browser.get(f"{path}&author=other.example").body) == []
    assert [criteria.author_domain for criteria in asked] == ["example.org", "other.example"]


def _noted(find: Callable[..., object], asked: list[Criteria]) -> Callable[..., object]:
    def noting(database: Database, criteria: Criteria, **options: Any) -> object:
        asked.append(criteria)
        return find(database, criteria, **options)

    return noting


def test_a_client_leads_to_the_reports_with_it(browser: Browser) -> None:
    page = browser.get("/received").text
    sources = json.loads(browser.get("/received.json?table=sources").body)
    seen = next(row for row in sources if row["failed"] and row["client"].startswith("203."))
    assert f'&amp;author={seen["domain"]}&amp;client={seen["client"]}">{seen["failed"]}</a>' in page
    listed = browser.get(f"/received?client={seen['client']}").text
    paths = re.findall(r'href="(/received/[0-9a-f]+)"', listed)
    assert 0 < len(paths) < 50
    for path in paths:
        assert f">{seen['client']}</a>" in browser.get(path).text
    for others in ("domain=nobody.example", "day=2020-01-01", "kind=tls"):
        none = json.loads(browser.get(f"/received.json?table=reports&client={seen['client']}&{others}").body)
        assert none == [], others


def test_the_search_finds_by_all_that_is_known(browser: Browser) -> None:
    rows = json.loads(browser.get("/messages.json?since=2000-01-01&author=example.org").body)
    assert len(rows) == 50
    one = rows[20]
    for asked in (one["queue"], one["client"], one["author"], "example.org"):
        found = json.loads(browser.get(f"/messages.json?q={asked}").body)
        assert any(one["queue"] == each["queue"] for each in found) or asked in (
            one["client"],
            one["author"],
            "example.org",
        )
        assert found
    assert "is not a time" in browser.get("/messages?since=yesterday").text
    assert browser.get("/messages?after=nonsense&q=%00").status == 200
    assert browser.get("/messages/zz").status == 404
    assert browser.get(f"/messages/{'0' * 32}").status == 404
    assert browser.get("/domains/evil.example").status == 404


def test_pages_follow_each_other_without_gap_or_repetition(browser: Browser) -> None:
    seen: list[str] = []
    path = "/messages?by=dmarc.reject"
    for _ in range(5):
        seen += re.findall(r'href="(/messages/[0-9a-f]{32})"', browser.get(path).text)
        further = re.search(r'href="([^"]+)" rel="next"', browser.get(path).text)
        assert further is not None
        path = html.unescape(further[1])
    assert len(seen) == len(set(seen)) == 250


@pytest.mark.parametrize(
    "listed", ["/messages{}?by=dmarc.reject", "/reports{}?state=sent&table=reports", "/received{}?table=reports"]
)
def test_a_program_follows_a_list_from_part_to_part(browser: Browser, listed: str) -> None:
    """Each says where the next is (RFC 8288), with as many rows as are asked for."""
    path, seen = listed.format(".json") + "&rows=90", []
    for _ in range(3):
        asked = browser.get(path)
        rows = json.loads(asked.body)
        assert len(rows) == 90 or not asked.header("link")
        seen += [json.dumps(row) for row in rows]
        if not asked.header("link"):
            break
        path = asked.header("link").removeprefix("<").removesuffix('>; rel="next"')
    assert len(seen) > 90
    assert len(set(seen)) > len(seen) * 0.9, "some look alike, and none is a repetition"
    for rows, count in (("0", 50), ("501", 50), ("500", 500)):
        assert len(json.loads(browser.get(f"/messages.json?rows={rows}").body)) == count


def test_a_spreadsheet_gets_no_formula(browser: Browser) -> None:
    rows = csv.reader(io.StringIO(browser.get("/messages.csv").text))
    assert not [cell for row in rows for cell in row if cell.startswith(("=", "+", "-", "@"))]


CRITERIA = {
    "all": Criteria(),
    "queue": Criteria(queue="4c0000001"),
    "message id": Criteria(message_id="<1@example.org>"),
    "author": Criteria(author_domain="example.org"),
    "domain": Criteria(domain="example.org", since=1),
    "address": Criteria(address="ann@example.org"),
    "client": Criteria(client="192.0.2.77"),
    "time": Criteria(since=1, until=1_900_000_000_000),
    "action": Criteria(action="reject"),
    "finding": Criteria(finding="spf.mailfrom", result="fail"),
    "watched": Criteria(watched="iprev.fail"),
}


@pytest.mark.parametrize("criteria", CRITERIA.values(), ids=CRITERIA)
def test_no_search_reads_all_messages(store: StoreSection, criteria: Criteria) -> None:
    for after in (None, Cursor(1_800_000_000_000, b"\1" * 16)):
        plans = _plans(store, lambda database, after=after: search.find(database, criteria, after=after))  # type: ignore[misc]  # a lambda
        assert plans
        for plan in plans:
            # In the order of an index, up to a LIMIT, is no full scan.
            assert not re.search(r"SCAN (messages|findings|addresses)(?! USING (COVERING )?INDEX)", plan), plan


def test_no_overview_reads_more_than_the_counts_of_its_kind(store: StoreSection) -> None:
    days = range(20_000, 20_030)
    for ask in (
        lambda database: overview.sums(database, "result", days),
        lambda database: overview.daily(database, "action", days),
        lambda database: overview.top(database, "source", days, word="fail"),
        lambda database: overview.failing(database, ("example.org",), days),
        lambda database: overview.failing_domains(database, ("example.org",), days),
        lambda database: overview.unnamed(database, "source", days),
        lambda database: overview.unnamed(database, "failing", days, ("example.org",)),
    ):
        for plan in _plans(store, ask):
            assert re.search(r"SEARCH counts USING PRIMARY KEY \(day=\? AND kind=\?", plan), plan
            assert "messages" not in plan


def test_sums_of_reports_that_went_out_are_read_from_an_index_alone(store: StoreSection) -> None:
    for plan in _plans(store, lambda database: _read(database, reporting.sent_daily, range(20_000, 20_030))):
        assert "USING COVERING INDEX reports_day " in plan


@pytest.mark.parametrize("by_source", [False, True])
@pytest.mark.parametrize("domains", [(), OURS])
def test_no_page_adds_up_reports_that_came_in(store: StoreSection, by_source: bool, domains: tuple[str, ...]) -> None:
    def ask(connection: Connection, days: range) -> None:
        reporting.received_daily(connection, days, "tls")
        reporting.beside(connection, days, domains, by_source=by_source)

    of_sums = 0
    for plan in _plans(store, lambda database: _read(database, ask, range(20_000, 20_014))):
        assert "received_reports" not in plan
        assert "received_rows" not in plan
        assert not re.search("SCAN (received|report|published)", plan), plan
        of_sums += "SEARCH received_" in plan
    assert of_sums >= 3


@pytest.mark.parametrize(
    ("criteria", "by"),
    [
        ({}, "received_reports USING INDEX received_reports_begin (begin>? AND begin<?)"),
        ({"kind": "tls"}, "received_reports USING INDEX received_reports_kind (kind=? AND begin>? AND begin<?)"),
        (
            {"domains": ("example.org",)},
            "received_reports USING INDEX received_reports_domain (domain=? AND begin>? AND begin<?)",
        ),
        (
            {"client": "192.0.2.1"},
            "received_rows USING COVERING INDEX received_rows_source (source=? AND day>? AND day<?)",
        ),
        (
            {"author": "example.org"},
            "received_rows USING COVERING INDEX received_rows_author (author_domain=? AND report=?)",
        ),
        (
            {"author": "example.org", "domains": OURS},
            "received_rows USING COVERING INDEX received_rows_author (author_domain=? AND report=?)",
        ),
    ],
    ids=str,
)
def test_reports_that_came_in_are_listed_in_the_order_of_an_index(
    store: StoreSection, criteria: dict[str, Any], by: str
) -> None:
    """Anyone may send any number of them."""

    def ask(connection: Connection, days: range) -> None:
        received.summaries(connection, days[0], days[-1], **criteria)

    (plan,) = _plans(store, lambda database: _read(database, ask, range(20_000, 20_030)))
    assert by in plan
    # Only those with a client are sorted, after they were counted off.
    assert ("USE TEMP B-TREE FOR ORDER BY" in plan) is ("client" in criteria), plan


def _read(database: Database, ask: Callable[[Connection, range], object], days: range) -> None:
    with database.reading() as connection:
        ask(connection, days)


def _plans(store: StoreSection, ask: object) -> list[str]:
    """How SQLite answers the statements that are executed."""
    database = open_database(store.location, may_write=False)
    executed: list[tuple[str, object]] = []
    event.listen(
        database.engine, "before_cursor_execute", lambda _c, _k, text, values, *_: executed.append((text, values))
    )
    try:
        ask(database)  # type: ignore[operator]  # a callable
        statements = [(text, values) for text, values in executed if text.startswith(("SELECT", "WITH"))]
        with database.reading() as connection:
            return [
                "\n".join(row[3] for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {text}", values))
                for text, values in statements
                if "alembic" not in text and "sqlite_master" not in text
            ]
    finally:
        database.close()


def test_a_store_that_is_not_there_yet_is_said_so(tmp_path: Path) -> None:
    with serving(tmp_path, StoreSection(directory=str(tmp_path))) as app:
        browser = Browser(app)
        browser.log_in()
        asked = browser.get("/overview")
        assert asked.status == 503
        assert "there is no database yet" in asked.text
        assert browser.get("/dns").status == 200


@pytest.mark.parametrize(
    ("text", "end", "moment"),
    [
        ("2023-11-14", False, 1_699_920_000_000),
        ("2023-11-14", True, 1_700_006_400_000),
        ("2023-11-14 22:13", False, 1_699_999_980_000),
        ("2023-11-14T22:13:20Z", True, 1_700_000_040_000),
        ("", True, 0),
    ],
)
def test_a_time_of_the_search_includes_its_day_or_minute(text: str, end: bool, moment: int) -> None:
    assert messages._moment(text, end=end) == moment


@pytest.mark.parametrize("argument", ["since", "until"])
@pytest.mark.parametrize("day", ["0001-01-01", "1969-12-31", "1970-01-01", "9999-12-31"])
def test_a_search_at_the_ends_of_time(browser: Browser, argument: str, day: str) -> None:
    for asked in ("", "ann%40example.org"):
        found = browser.get(f"/messages?{argument}={day}&q={asked}")
        assert found.status == 200
        if (argument == "until") == (day < "1971"):
            assert "No message." in found.text or "is not a time" in found.text
        elif "is not a time" not in found.text:
            assert "/messages/0" in found.text


def test_a_nul_in_the_address_is_left_out_and_a_long_argument_cut() -> None:
    assert WebQuery("/messages", {"q": " a\0b "}).text("q") == "ab"
    assert len(WebQuery("/messages", {"q": "a" * 10_000}).text("q")) == MAX_ARGUMENT


def test_a_database_that_is_away_is_not_tried_again_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = 0

    def away(*_: object, **__: object) -> None:
        nonlocal opened
        opened += 1
        raise UnavailableError("away")

    monkeypatch.setattr("assay.web.store.open_store", away)
    store = ReadStore(StoreSection(directory=str(tmp_path)))
    for _ in range(3):
        with pytest.raises(UnavailableError, match="away"):
            store.database  # noqa: B018  # opening it raises
    assert opened == 1
    monkeypatch.setattr("assay.web.store._AGAIN_SECONDS", 0.0)
    with pytest.raises(UnavailableError, match="away"):
        store.database  # noqa: B018  # opening it raises
    assert opened == 2


def test_the_page_of_the_dns_says_what_is_wrong() -> None:
    nothing = Period(3600, 0, {}, {}, {}, 0.0, 0.0, {}, {})
    hour = replace(nothing, queries={"noerror": 90, "timeout": 10})
    told = [remark.text for remark in dns._worries({"192.0.2.53": 0, "192.0.2.54": 1}, hour)]
    assert told[0] == "No worker gets an answer from: 192.0.2.53."
    assert told[1].startswith("10 of 100 queries of the last hour had no usable answer.")
    quiet = replace(nothing, queries={"noerror": 99, "timeout": 1})
    assert list(dns._worries({"192.0.2.54": 1}, quiet)) == []


@pytest.mark.parametrize(
    ("seconds", "headings", "silence"),
    [
        (5.0, ["last minute", ""], "minute"),
        (61.0, ["last minute", ""], "minute"),
        (125.0, ["last minute", "last 2 min"], "2 min"),
        (3600.0, ["last minute", "last hour"], "hour"),
    ],
)
def test_the_page_of_the_dns_says_how_long_it_has_looked(seconds: float, headings: list[str], silence: str) -> None:
    """In its first minute, the last hour is the last minute."""
    minute = Period(min(seconds, 60.0), 0, {}, {}, {}, 0.0, 0.0, {"noerror": 1}, {"asked": 1})
    for table in dns._periods(minute, replace(minute, seconds=seconds)):
        assert isinstance(table, DataTable)
        assert [column.title for column in table.columns[1:]] == headings
        assert [column.name for column in table.columns[1:]] == ["minute", "hour"]
    told = [remark.text for remark in dns._worries({}, replace(minute, seconds=seconds, queries={}))]
    assert told == [f"No query in the last {silence}."]


def test_the_senders_of_others_are_not_shown(browser: Browser, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = browser.get("/senders.json?table=clients").body
    assert len(json.loads(whole)) > 1
    assert browser.get("/senders.json?table=clients&domain=nobody.example").body == whole
    assert "Only the first" not in browser.get("/senders").text
    monkeypatch.setattr(overview, "MAX_SUBJECTS", 1)
    assert "Only the first 1 of " in browser.get("/senders").text


def test_what_is_rare_is_shown_in_one_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MAX_NAMES", "MAX_CLIENTS"):
        monkeypatch.setattr(folding, name, 1)
    store = filled(tmp_path, 2000)
    with serving(tmp_path, store) as app:
        browser = Browser(app)
        browser.log_in()
        plot = browser.get("/overview.csv?table=dmarc").text
        with contextlib.closing(open_database(store.location)) as database:
            Folding(database, OURS).fold(time.time())
        tables = {name: _table(browser, path) for name, path in RARE_TABLES.items()}
        assert browser.get("/overview.csv?table=dmarc").text == plot
    for name, rows in tables.items():
        assert rows[-1][0] == RARE, name
        assert sum(int(cell) for cell in rows[-1][1:]) > 0, name


RARE_TABLES = {
    "domains": "/overview.csv?table=domains",
    "clients": "/senders.csv?table=clients&domain=example.org",
    "sources": "/senders.csv?table=sources",
}


def _table(browser: Browser, path: str) -> list[list[str]]:
    return list(csv.reader(io.StringIO(browser.get(path).text)))
