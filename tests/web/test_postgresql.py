# SPDX-License-Identifier: GPL-3.0-or-later
"""Every page from a real PostgreSQL: what it says, and what it says while the server is away."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from asking import Browser
from assay.config.store import StoreSection
from assay.web import store as reading
from postgresql import PASSWORD, Postgresql
from web.pages import ATTACKS, filled, serving
from web.test_pages import PATHS

COUNT = 2000


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, postgresql: Postgresql) -> StoreSection:
    return filled(tmp_path_factory.mktemp("store"), COUNT, postgresql)


@pytest.fixture(scope="module")
def browser(store: StoreSection, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with serving(tmp_path_factory.mktemp("site"), store) as app:
        browser = Browser(app)
        browser.log_in()
        yield browser


@pytest.fixture(scope="module")
def of_sqlite(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with serving(tmp_path_factory.mktemp("site"), filled(tmp_path_factory.mktemp("store"), COUNT)) as app:
        browser = Browser(app)
        browser.log_in()
        yield browser


@pytest.mark.parametrize("path", [path for path in PATHS if not path.startswith(("/domains", "/configuration"))])
def test_a_page_says_the_same_as_from_sqlite(browser: Browser, of_sqlite: Browser, path: str) -> None:
    asked = browser.get(path)
    assert asked.status == 200
    tables = re.findall(r'href="([^"]*\.json\?[^"]*)"', asked.text)
    assert tables or path in ("/dns", "/messages?action=discard", "/messages?since=2026-01-01&until=today")
    for table in tables:
        here, there = (each.get(table.replace("&amp;", "&")).text for each in (browser, of_sqlite))
        assert json.loads(here)
        assert here == there.replace(r"\u0000", r"\ufffd"), "PostgreSQL takes no NUL"


def test_what_a_stranger_wrote_is_shown(browser: Browser) -> None:
    listed = re.findall(r'href="(/messages/[0-9a-f]{32})"', browser.get("/messages").text)[: len(ATTACKS)]
    for path in listed:
        assert browser.get(path).status == 200
        assert browser.get(f"{path}.json?table=findings").status == 200


@pytest.mark.parametrize("asked", ["q=%00%ff", "q=%ED%A0%80", "after=999999999999999999-00", "since=0001-01-01"])
def test_what_no_database_has_is_no_error(browser: Browser, asked: str) -> None:
    assert browser.get(f"/messages?{asked}").status == 200


@pytest.mark.parametrize("was_open", [True, False])
def test_while_the_server_is_away_a_page_says_so(
    store: StoreSection, postgresql: Postgresql, tmp_path: Path, was_open: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "_AGAIN_SECONDS", 0.0)
    with serving(tmp_path, store) as app:
        browser = Browser(app)
        browser.log_in()
        if was_open:
            assert browser.get("/overview").status == 200
        postgresql.kill()
        try:
            for path in ("/overview", "/messages", "/messages.csv", f"/messages/{'0' * 32}"):
                asked = browser.get(path)
                assert asked.status == 503
                assert "the store cannot be read now: " in asked.text
                assert "SELECT" not in asked.text
                assert PASSWORD not in asked.text
            assert browser.get("/dns").status == 200
        finally:
            postgresql.start()
        assert browser.get("/overview").status == 200
