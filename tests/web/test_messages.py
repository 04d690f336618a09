# SPDX-License-Identifier: GPL-3.0-or-later
"""Search for messages, and the page of each, on a store of a few rows."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from asking import Browser
from assay.config.store import StoreSection
from assay.store.database import open_database
from assay.store.writer import Writer
from store_rows import row
from web.pages import serving

ROWS = (
    row(1, queue="4QANN", login="joe"),
    row(2, queue="4QJOE", login="Ann"),
    row(3, queue="ann", login="ann.smith"),
    row(4, queue="4QNONE", login="4QANN", client=""),
)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    folder = tmp_path_factory.mktemp("site")
    with asking(folder, StoreSection(directory=str(folder), addresses=True)) as browser:
        yield browser


@contextlib.contextmanager
def asking(folder: Path, store: StoreSection) -> Iterator[Browser]:
    with contextlib.closing(open_database(store.location)) as database:
        Writer(database).write(ROWS)
    with serving(folder, store) as app:
        browser = Browser(app)
        browser.log_in()
        yield browser


def queues(browser: Browser, asked: str) -> list[str]:
    found = json.loads(browser.get(f"/messages.json?table=messages&{asked}").body)
    return [each["queue"] for each in found]


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ("q=JOE", ["4QANN"]),
        ("q=ann", ["ann"]),
        ("q=ann.smith", ["ann"]),
        ("q=4QANN", ["4QANN"]),
        ("q=nobody", []),
        ("q=joe&action=reject", []),
        ("q=example.com&rows=1", ["4QNONE"]),
    ],
)
def test_a_login_name_is_found_if_nothing_else_has_this_name(browser: Browser, asked: str, found: list[str]) -> None:
    assert queues(browser, asked)[:1] == found


def test_where_login_names_are_not_kept_they_are_not_searched_for(tmp_path: Path) -> None:
    with asking(tmp_path, StoreSection(directory=str(tmp_path))) as browser:
        assert queues(browser, "q=joe") == []


def test_how_to_ask_again(browser: Browser) -> None:
    first, *_, last = (browser.get(f"/messages/{each.id.hex()}").text for each in ROWS)
    assert "To ask again, with the message in a file MESSAGE:" in first
    assert "assay check --explain --ip 192.0.2.1 --helo host.example.org" in first
    assert "It cannot be asked again: the MTA named no client address." in last
    assert "assay check --explain" not in last
