# SPDX-License-Identifier: GPL-3.0-or-later
"""The button that suppresses reports to a destination: who may press it, from where, and what it does."""

from __future__ import annotations

import contextlib
import html
import re
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from asking import TOKEN, Browser
from assay.config import Configuration
from assay.config.reports import ReportsSection
from assay.config.store import StoreSection
from assay.config.web import WebSection
from assay.daemon.status import History
from assay.log import Level, Log
from assay.metrics import Pages
from assay.store import outbox, report_deliveries
from assay.store import suppressions as stored
from assay.store.database import open_database
from assay.store.outbox import OutgoingReport, ReportState
from assay.store.report_deliveries import ReportDelivery
from assay.store.suppressions import Suppression
from assay.web.access import Access, Proxies
from assay.web.app import make_app
from assay.web.site import open_site
from assay.web.suppressing import PATH, ROWS

Made = Callable[..., Browser]
PROXY = {"user_header": "X-Remote-User", "trusted_proxies": ("127.0.0.1",)}


@pytest.fixture
def logged() -> list[tuple[Level, str]]:
    return []


@pytest.fixture
def section(tmp_path: Path) -> StoreSection:
    section = StoreSection(directory=str(tmp_path))
    open_database(section.location).close()
    return section


@pytest.fixture
def browser(section: StoreSection, logged: list[tuple[Level, str]]) -> Iterator[Made]:
    opened = []

    def make(
        peer: str = "127.0.0.1", token: str = TOKEN, reports: ReportsSection | None = None, **web: object
    ) -> Browser:
        configured = WebSection(**web)  # type: ignore[arg-type]  # mypy sees objects
        configuration = Configuration(web=configured, store=section, reports=reports or ReportsSection())
        figures = Pages(1)
        site = open_site(configuration, figures, History(figures, leaves=False), (), Log(lambda *_: None))
        opened.append(site)
        log = Log(lambda level, text: logged.append((level, text)))
        return Browser(make_app(site, Access(token, configured.user_header, Proxies.of(configured)), log), peer)

    yield make
    for site in opened:
        site.lookups.close()
        site.store.close()


def suppressions(section: StoreSection) -> list[Suppression]:
    database = open_database(section.location)
    try:
        with database.reading() as connection:
            return stored.all_suppressions(connection)
    finally:
        database.close()


def form_of(page: str, about: str = "") -> dict[str, str]:
    """The hidden fields of a form of a page: of the one whose button has this in its text."""
    (found, *_) = [form for form in re.findall(r"<form method=\"post\".*?</form>", page, re.S) if about in form]
    fields = re.findall(r'type="hidden" name="([^"]*)" value="([^"]*)"', found)
    return {name: html.unescape(value) for name, value in fields}


def test_a_destination_is_suppressed_and_lifted_again(
    browser: Made, section: StoreSection, logged: list[tuple[Level, str]]
) -> None:
    someone = browser()
    someone.log_in()
    form = form_of(someone.get("/reports?state=sent").text, "days")
    asked = someone.post(PATH, {**form, "subject": "D@Example.COM", "days": "7"}, {"sec-fetch-site": "same-origin"})
    assert (asked.status, asked.header("location")) == (303, "/reports?state=sent")
    (found,) = suppressions(section)
    assert (found.subject, found.why, found.until - found.added) == (
        "d@example.com",
        "by the operator (token)",
        7 * 86_400,
    )
    assert (Level.INFO, "page: no reports go to d@example.com for 7 days; asked for by token from 127.0.0.1") in logged
    form = form_of(someone.get("/reports").text, "Send again")
    assert form["subject"] == "d@example.com"
    assert someone.post(PATH, form).status == 303
    assert suppressions(section) == []
    assert (Level.INFO, "page: reports go to d@example.com again; asked for by token from 127.0.0.1") in logged


def test_whom_a_trusted_proxy_names_may_press_it_and_nobody_else(
    browser: Made, section: StoreSection, logged: list[tuple[Level, str]]
) -> None:
    name = {"X-Remote-User": 'ann" dmarc=pass\x9b'}
    trusted = browser(token="", **PROXY)
    form = {**form_of(trusted.get("/reports", name).text, "days"), "subject": "example.com"}
    for someone, headers in ((trusted, {}), (browser("192.0.2.1", token="", **PROXY), name), (browser(), name)):
        assert someone.post(PATH, form, headers).status == 403
    assert trusted.post(PATH, form, {"X-Remote-User": "bob"}).status == 403, "the form is Ann's"
    assert suppressions(section) == []
    assert trusted.post(PATH, form, name).status == 303
    assert [each.subject for each in suppressions(section)] == ["example.com"]
    line = next(text for level, text in logged if level is Level.INFO)
    assert line.startswith('page: no reports go to example.com; asked for by "ann\\"')
    assert "dmarc=pass" not in line
    assert "\x9b" not in line


@pytest.mark.parametrize(
    "headers",
    [
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": "http://page.example:8080"},
        {"origin": "http://page.example.evil.example"},
        {"origin": "http://evil.example/?http://page.example"},
        {"sec-fetch-site": "cross-site", "origin": "http://page.example"},
    ],
)
def test_a_form_of_another_site_changes_nothing(browser: Made, section: StoreSection, headers: dict[str, str]) -> None:
    someone = browser()
    someone.log_in()
    form = {**form_of(someone.get("/reports").text, "days"), "subject": "example.com"}
    assert someone.post(PATH, form, headers).status == 403
    assert suppressions(section) == []


def test_a_form_without_the_token_of_its_session_changes_nothing(
    browser: Made, section: StoreSection, logged: list[tuple[Level, str]]
) -> None:
    someone = browser()
    someone.log_in()
    form = {**form_of(someone.get("/reports").text, "days"), "subject": "example.com"}
    someone.log_in()  # another session of the same user
    for token in (form["token"], "", "\udcff\u20ac", form["token"][:-1]):
        fields = {**form, "token": token.encode("utf-8", "replace").decode()}
        assert someone.post(PATH, fields).status == 403
    someone.cookies = {}
    assert someone.post(PATH, form).status == 403
    assert suppressions(section) == []
    assert (
        Level.WARNING,
        "page: a form without the token of its session was refused; it came from 127.0.0.1",
    ) in logged


def test_without_a_token_file_nobody_knows_the_key_of_forms() -> None:
    assert Access("", "X", Proxies()).form_token("ann", "") != Access("", "X", Proxies()).form_token("ann", "")
    assert Access(TOKEN, "", Proxies()).form_token("ann", "") == Access(TOKEN, "", Proxies()).form_token("ann", "")


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"subject": "no domain"}, "not an address or a domain"),
        ({"subject": "<script>@"}, "not an address or a domain"),
        ({"subject": ""}, "not an address or a domain"),
        ({"subject": "mailto:d@example.com"}, "not an address or a domain"),
        ({"subject": '"\0"@example.com'}, "not an address or a domain"),
        ({"subject": "d" * 321 + "@example.com"}, "at most 320 characters"),
        ({"days": "0"}, "write a number of days from 1 to 36,500"),
        ({"days": "36501"}, "write a number of days from 1 to 36,500"),
        ({"days": "0000000017"}, "write a number of days from 1 to 36,500"),
        ({"days": "1" * 20}, "write a number of days from 1 to 36,500"),
        ({"days": "soon"}, "write a number of days from 1 to 36,500"),
        ({"do": "drop"}, "does not say what to do"),
    ],
)
def test_what_cannot_be_done_is_said(browser: Made, section: StoreSection, fields: dict[str, str], says: str) -> None:
    someone = browser()
    someone.log_in()
    form = {**form_of(someone.get("/reports").text, "days"), "subject": "example.com", **fields}
    asked = someone.post(PATH, form)
    assert asked.status == 400
    assert says in asked.text
    assert "<script" not in asked.text
    assert suppressions(section) == []


@pytest.mark.parametrize(
    "back",
    [
        "//evil.example/",
        "/\\evil.example/",
        "/\t/evil.example/",
        "\\\\evil.example",
        "https://evil.example/",
        "evil",
        "",
    ],
)
def test_a_button_leads_back_to_a_page_of_ours_alone(browser: Made, back: str) -> None:
    someone = browser()
    someone.log_in()
    form = {**form_of(someone.get("/reports").text, "days"), "subject": "example.com", "back": back}
    assert someone.post(PATH, form).header("location") == "/overview"


@pytest.mark.parametrize("origin", ["http://page.example", "https://page.example"])
def test_a_browser_that_says_only_the_origin_is_believed(browser: Made, section: StoreSection, origin: str) -> None:
    """The second: a proxy ends the TLS."""
    someone = browser()
    someone.log_in()
    form = {**form_of(someone.get("/reports").text, "days"), "subject": "example.com"}
    assert someone.post(PATH, form, {"origin": origin}).status == 303
    assert [each.subject for each in suppressions(section)] == ["example.com"]


def test_two_who_press_a_button_are_both_told_what_it_did(
    browser: Made, section: StoreSection, logged: list[tuple[Level, str]]
) -> None:
    proxied = browser(token="", **PROXY)
    names = [{"X-Remote-User": name} for name in ("ann", "bob")]
    forms = [{**form_of(proxied.get("/reports", name).text, "days"), "subject": "example.com"} for name in names]
    for name, form in zip(names, forms, strict=True):
        assert proxied.post(PATH, form, name).status == 303
    (found,) = suppressions(section)
    assert found.why == "by the operator (bob)"
    for name, form in zip(names, forms, strict=True):
        assert proxied.post(PATH, {**form, "do": "lift"}, name).status == 303
    assert suppressions(section) == []
    assert [text for level, text in logged if level is Level.INFO] == [
        f"page: {done}; asked for by {name} from 127.0.0.1"
        for done, name in (
            ("no reports go to example.com", "ann"),
            ("no reports go to example.com", "bob"),
            ("reports go to example.com again", "ann"),
            ("example.com was not suppressed", "bob"),
        )
    ]


@pytest.mark.parametrize(
    ("reports", "says"),
    [
        (ReportsSection(), "No reports are made: reports.organization is not set."),
        (ReportsSection(organization="A", contact="a@example.org", dry_run=True), "Reports are only written to files"),
        (ReportsSection(suppress="/etc/assay/none"), "Those in /etc/assay/none (reports.suppress) are not in"),
    ],
)
def test_what_the_configuration_says_about_reports(browser: Made, reports: ReportsSection, says: str) -> None:
    plain = ReportsSection(organization="A", contact="a@example.org")
    pages = []
    for configured in (reports, plain):
        someone = browser(reports=configured)
        someone.log_in()
        pages.append(someone.get("/reports").text)
    assert says in pages[0]
    assert says not in pages[1]


def test_what_a_form_would_not_bring_back_has_no_button(browser: Made, section: StoreSection) -> None:
    with contextlib.closing(open_database(section.location)) as database, database.writing() as connection:
        for subject in ("d@example.com", '"\u202e"@example.com'):
            stored.suppress(connection, Suppression(subject, 0, "a report came back", 1))
    someone = browser()
    someone.log_in()
    page = someone.get("/reports").text
    assert "202e" in page
    assert re.findall(r'type="hidden" name="subject" value="([^"]*)"', page) == ["d@example.com"]


def test_of_many_that_are_suppressed_some_are_shown(browser: Made, section: StoreSection) -> None:
    with contextlib.closing(open_database(section.location)) as database, database.writing() as connection:
        for number in range(ROWS + 1):
            stored.suppress(connection, Suppression(f"d{number:04}.example", number, "it refused a report", 1))
    someone = browser()
    someone.log_in()
    page = someone.get("/reports").text
    assert page.count("over: it refused a report") == ROWS - 1, "all but the one that never ends"
    assert f"Only the first {ROWS} are shown" in page


def test_only_an_address_has_a_button(browser: Made, section: StoreSection, monkeypatch: pytest.MonkeyPatch) -> None:
    """A record may have other URIs, and until the DNS has answered, those of addresses are listed as they are."""
    with contextlib.closing(open_database(section.location)) as database, database.writing() as connection:
        report = OutgoingReport("r1", 20_000, "example.com", (), ReportState.WAITING, "", 0, 0, 0, 1, 0)
        outbox.insert_report(connection, report)
        listed = ("d@example.com", "mailto:d@example.com", "mailto:e@example.com!10m", "https://example.com/")
        added = [ReportDelivery("r1", each, "", ReportState.WAITING, "", 1, 0, 0, each) for each in listed]
        report_deliveries.replace_deliveries(connection, "r1", (), added)
    someone = browser()
    someone.log_in()
    page = someone.get("/reports/r1").text
    assert all(each in page for each in listed)
    assert re.findall(r'name="subject" value="([^"]*)"', page) == ["d@example.com"]
    monkeypatch.setattr("assay.store.database.os.access", lambda *_: False)
    page = someone.get("/reports/r1").text
    assert all(each in page for each in listed)
    assert PATH not in page


def test_where_the_database_cannot_be_written_there_is_no_button(
    browser: Made, section: StoreSection, monkeypatch: pytest.MonkeyPatch
) -> None:
    someone = browser()
    someone.log_in()
    form = {**form_of(someone.get("/reports").text, "days"), "subject": "example.com"}
    # Root may write whatever the permissions are, so the question to the system is answered here.
    monkeypatch.setattr("assay.store.database.os.access", lambda *_: False)
    page = someone.get("/reports").text
    assert "cannot be written" in page
    assert PATH not in page
    assert someone.post(PATH, form).status == 400
    assert suppressions(section) == []


def test_a_database_that_another_program_writes_is_said_so(
    browser: Made, section: StoreSection, monkeypatch: pytest.MonkeyPatch
) -> None:
    someone = browser()
    someone.log_in()
    form = {**form_of(someone.get("/reports").text, "days"), "subject": "example.com"}
    monkeypatch.setattr("assay.store.database.BUSY_SECONDS", 0.01)
    with contextlib.closing(sqlite3.connect(section.location, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        asked = someone.post(PATH, form)
    assert asked.status == 503
    assert "the store cannot be written now" in asked.text
    assert someone.post(PATH, form).status == 303


def test_a_page_with_a_long_address_has_a_form_that_is_taken(browser: Made, section: StoreSection) -> None:
    someone = browser()
    someone.log_in()
    long = "/reports?" + "&".join(f"a{number}=%3C" for number in range(1000))
    form = {**form_of(someone.get(long).text, "days"), "subject": "example.com"}
    assert someone.post(PATH, form).header("location") == "/reports"
    assert len(suppressions(section)) == 1
