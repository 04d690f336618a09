# SPDX-License-Identifier: GPL-3.0-or-later
"""Every number that counts messages or reports leads to a list with exactly so many of them."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterator
from xml.etree.ElementTree import Element

import html5lib
import pytest

from asking import Browser
from assay.store import folding
from assay.web import messages, received, sent
from store_generator import OURS
from web.pages import filled, serving

COUNT = 4000
PATHS = (
    "/overview", "/senders", "/senders?domain=example.org", "/dry-run", "/reports", "/reports?state=sent",
    "/reports?kind=failure", "/received", "/dns",
)  # fmt: skip
#: Numbers that count something else: queries, tries, what others have seen and only they know, or several reports.
NO_LISTS = {
    ("reasons", "messages in them"), ("days", "all others"),
    ("reports", "passed"), ("reports", "failed"),
    ("nameservers", "queries"), ("nameservers", "without usable answer"),
    ("deliveries", "tries"),
    ("unreadable", "octets"),
}  # fmt: skip
_NAMESPACE = "{http://www.w3.org/1999/xhtml}"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """A page with long lists, and with names that are too rare to be counted by name."""
    patch = pytest.MonkeyPatch()
    for module in (messages, sent, received):
        patch.setattr(module, "ROWS", 500)
    patch.setattr(folding, "MAX_NAMES", 200)
    store = filled(tmp_path_factory.mktemp("store"), COUNT)
    with serving(tmp_path_factory.mktemp("site"), store) as app:
        browser = Browser(app)
        browser.log_in()
        yield browser
    patch.undo()


def of_reports(browser: Browser) -> list[str]:
    """Some reports that went out."""
    rows = re.findall(r'href="(/reports/[^"]+)"', browser.get("/reports?kind=aggregate&domain=example.org").text)
    return [rows[0], rows[-1]]


def listed(browser: Browser, path: str, pattern: str) -> int:
    """How many things a list has, all its pages together."""
    found: list[str] = []
    while path:
        text = browser.get(path).text
        found += re.findall(pattern, text)
        further = re.search(r'href="([^"]+)" rel="next"', text)
        path = html.unescape(further[1]) if further else ""
    assert len(found) == len(set(found))
    return len(found)


def numbers(text: str) -> Iterator[tuple[str, str, int, str]]:
    """The table, the heading, the number and the address of each number in the tables of a page, and in legends."""
    root = html5lib.parse(text)
    for section in root.iter(f"{_NAMESPACE}section"):
        name = section.get("aria-labelledby", "")
        for table in section.iter(f"{_NAMESPACE}table"):
            headings = ["".join(cell.itertext()) for cell in table.iterfind(f".//{_NAMESPACE}thead//{_NAMESPACE}th")]
            for row in table.iterfind(f".//{_NAMESPACE}tbody/{_NAMESPACE}tr"):
                for heading, cell in zip(headings, row, strict=True):
                    if "number" in cell.get("class", ""):
                        yield from _number(name, heading, cell)
        for legend in section.iter(f"{_NAMESPACE}li"):
            cell = next(each for each in legend if each.get("class") == "number")
            yield from _number(name, "".join(legend.itertext()).strip().rpartition(" ")[0], cell)


def _number(name: str, heading: str, cell: Element) -> Iterator[tuple[str, str, int, str]]:
    text = "".join(cell.itertext()).strip().replace(",", "")
    if text.isdigit() and text != "0":
        link = cell.find(f".//{_NAMESPACE}a")
        yield name, heading, int(text), "" if link is None else str(link.get("href"))


def test_each_number_leads_to_so_many(browser: Browser) -> None:
    wrong, checked = [], 0
    known: dict[str, int] = {}
    for path in (*PATHS, *of_reports(browser)):
        for name, heading, number, href in numbers(browser.get(path).text):
            if href.startswith("/messages?"):
                pattern = r'href="(/messages/[0-9a-f]{32})"'
            elif href.startswith("/reports?"):
                pattern = r'href="(/reports/[^"]+)"'
            else:
                continue
            if href not in known:
                known[href] = listed(browser, href, pattern)
            checked += 1
            if known[href] != number and not re.search("%00|HYPERLINK", href):  # no domain name has these
                wrong.append((path, name, heading, number, href, known[href]))
    assert "\n".join(map(str, wrong)) == ""
    assert checked > 500


def test_each_number_that_counts_messages_leads_somewhere(browser: Browser) -> None:
    without = set()
    for path in (*PATHS, *of_reports(browser)):
        for name, heading, _, href in numbers(_without_rare(browser.get(path).text)):
            if not href:
                without.add((name, heading))
    assert without == NO_LISTS & without
    assert ("unreadable", "octets") in without, "the numbers are looked at"


def _without_rare(text: str) -> str:
    """A page without the rows of what is not counted by name, so that no list has it, and of reports that the tests
    have made of nothing, as strangers and failures do."""
    rows = r"<tr>(?:(?!</tr>).)*(?:rare ones, together|<td[^>]*>(?:<div>)?failure<|/reports/attack).*?</tr>"
    return re.sub(rows, "", text, flags=re.DOTALL)


def test_messages_today_are_listed(browser: Browser) -> None:
    found = re.search(r'class="intro"><a href="([^"]+)">([0-9,]+)</a> messages today', browser.get("/overview").text)
    assert found is not None
    count = int(found[2].replace(",", ""))
    assert listed(browser, html.unescape(found[1]), r'href="(/messages/[0-9a-f]{32})"') == count


@pytest.mark.parametrize("table", ["names", "sources"])
def test_what_others_saw_leads_to_reports_that_add_up_to_it(browser: Browser, table: str) -> None:
    found = [each for each in numbers(browser.get("/received").text) if each[0] == table and "/received?" in each[3]]
    assert len(found) >= len(OURS)
    for _, heading, number, href in [*found[:3], found[-1]]:
        criteria = dict(re.findall(r"(author|client)=([^&]+)", href))
        total = 0
        for path in re.findall(r'href="(/received/[0-9a-f]+)"', browser.get(href).text):
            for row in json.loads(browser.get(f"{path}.json?table=records").body):
                if all(row[name] == value for name, value in criteria.items()):
                    total += row["messages"] if bool(row["aligned"]) == (heading == "passed there") else 0
        assert total == number


def test_what_a_link_asks_for_is_said(browser: Browser) -> None:
    text = browser.get("/messages?author=example.org&direction=inbound&reported=fail&ours=yes").text
    said = "direction inbound, an author domain of ours, in an aggregate report (fail)"
    assert f"Only with: {said}." in text
    assert "Only with" not in browser.get("/messages?q=example.org").text
    assert browser.get("/messages?report=unknown").status == 404
    assert browser.get("/messages?report=attack0").status == 404
    assert browser.get(f"/messages?group={'9' * 19}").status == 200
