# SPDX-License-Identifier: GPL-3.0-or-later
"""The page in a real browser: nothing of a stranger runs, nothing is loaded from elsewhere, and it is accessible.

With ASSAY_SCREENSHOTS, pictures of the pages are written into that directory. ``contrib/write-screenshots.py`` writes
those of the documentation.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import axe_core_python
import pytest

from asking import TOKEN
from assay.config.endpoint import Endpoint
from assay.config.store import StoreSection
from assay.log import Log
from assay.web.server import WebServer
from web.browser import Chromium, needs_chromium
from web.pages import ATTACKS, serving
from web.test_child import free_port

pytestmark = needs_chromium

PAGES = (
    "/overview", "/messages", "/messages?author=example.org&direction=inbound&dmarc=fail", "/senders", "/domains",
    "/domains/example.org", "/domains/shop.example.com", "/dry-run", "/dns", "/configuration", "/nothing",
    "/reports", "/reports/attack0", "/received", "/received?kind=failure",
)  # fmt: skip
#: Lists, and what the first of each is: a page of its own.
FIRST = {
    "/messages?q=orders.example": "/messages/",
    "/reports?kind=aggregate&state=sent": "/reports/",
    "/reports?kind=failure": "/reports/",
    "/received?kind=aggregate": "/received/",
    "/received?kind=failure": "/received/",
    "/received?kind=tls": "/received/",
}
#: What depends on colours and on the width of the window: all else is the same however one looks at a page.
BY_LOOKS = ("color-contrast", "link-in-text-block", "scrollable-region-focusable")
PHONE = 390
#: How wide a page is. On a phone the window grows with what is too wide, so it says nothing.
WIDTH = "return document.documentElement.scrollWidth"
AXE = files(axe_core_python).joinpath("axe.min.js").read_text("utf-8")
SCREENSHOTS = os.environ.get("ASSAY_SCREENSHOTS", "")


@pytest.fixture(scope="module")
def base(large_store: StoreSection, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a page on the store of 100,000 messages, with what strangers write."""
    port = free_port()
    with serving(tmp_path_factory.mktemp("site"), large_store) as app:
        server = WebServer(Endpoint.parse(f"inet:{port}@127.0.0.1"), 0o660, app, Log(lambda *_: None))
        yield f"http://127.0.0.1:{port}"
        server.close()


@pytest.fixture(scope="module")
def chromium(base: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    """A browser that has logged in by the form."""
    with Chromium(tmp_path_factory.mktemp("browser") / "chromium") as browser:
        browser.look()
        browser.open(f"{base}/messages?dmarc=fail")
        assert browser.url == f"{base}/login?next=%2Fmessages%3Fdmarc%3Dfail"
        browser.type("#token", TOKEN)
        browser.follow("form.login button", f"{base}/messages?dmarc=fail")
        browser.requests()
        browser.complaints()
        yield browser


@pytest.fixture(scope="module")
def attacked(base: str, chromium: Chromium) -> list[str]:
    """The pages of what strangers wrote."""
    chromium.open(f"{base}/messages")
    script = "return [...document.querySelectorAll('td a')].map(a => a.getAttribute('href'))"
    return list(chromium.run(script)[: len(ATTACKS)])


@pytest.fixture(scope="module")
def single(base: str, chromium: Chromium) -> list[str]:
    """Pages of single things: a message with its answers of the DNS, and reports of each kind."""
    found = []
    for listed, path in FIRST.items():
        chromium.open(base + listed)
        script = "return [...document.querySelectorAll('main a')].map(a => a.getAttribute('href'))"
        found.append(next(href for href in chromium.run(script) if href.startswith(path)))
    return found


def check(chromium: Chromium, base: str) -> None:
    """Nothing ran, nothing was refused by the policy, and nothing was asked of others."""
    assert chromium.run("return document.title") != "owned"
    assert chromium.run("return document.querySelectorAll('script, iframe, object, img, base, main meta').length") == 0
    complaints = [line for line in chromium.complaints() if "404 (Not Found)" not in line]
    assert complaints == []
    assert [url for url in chromium.requests() if not url.startswith((base, "data:"))] == []


@pytest.mark.parametrize("path", PAGES)
def test_a_page_runs_nothing_and_loads_nothing_from_elsewhere(chromium: Chromium, base: str, path: str) -> None:
    chromium.open(base + path)
    check(chromium, base)


@pytest.mark.parametrize("width", [1280, PHONE], ids=["desktop", "phone"])
def test_what_strangers_wrote_is_shown_and_does_nothing(
    chromium: Chromium, base: str, attacked: list[str], width: int
) -> None:
    chromium.look(width=width)
    for path in attacked:
        chromium.open(base + path)
        check(chromium, base)
        assert chromium.run(WIDTH) <= width, path
        assert chromium.run("return document.querySelectorAll('main').length") == 1


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [1280, PHONE], ids=["desktop", "phone"])
def test_every_page_is_accessible(
    chromium: Chromium, base: str, attacked: list[str], single: list[str], width: int, dark: bool
) -> None:
    chromium.look(width=width, height=900, dark=dark)
    only = BY_LOOKS if dark or width < 600 else ()
    found: list[Any] = []
    for path in (*PAGES, attacked[0], *single):
        chromium.open(base + path)
        found += [(path, *violation) for violation in violations(chromium, only)]
        assert chromium.run(WIDTH) <= width, path
        if SCREENSHOTS:
            name = path.strip("/").partition("?")[0].replace("/", "-")[:30]
            chromium.screenshot(Path(SCREENSHOTS) / f"{name}-{width}-{'dark' if dark else 'light'}.png")
    assert found == []


def violations(chromium: Chromium, only: Sequence[str] = ()) -> list[tuple[str, str]]:
    """The serious findings of axe about the page: the rule and the element.

    :param only: these rules; all if empty.
    """
    chromium.run(AXE)
    options: dict[str, object] = {"resultTypes": ["violations"]}
    if only:
        options |= {"runOnly": {"type": "rule", "values": list(only)}}
    result = chromium.run("return axe.run(document, arguments[0])", options)
    return [
        (violation["id"], violation["nodes"][0]["html"][:200])
        for violation in result["violations"]
        if violation["impact"] in ("serious", "critical")
    ]


def test_a_single_thing_runs_nothing_and_loads_nothing_from_elsewhere(
    chromium: Chromium, base: str, single: list[str]
) -> None:
    chromium.look()
    for path in single:
        chromium.open(base + path)
        check(chromium, base)


def test_a_button_suppresses_a_destination_and_another_lifts_it(chromium: Chromium, base: str) -> None:
    """By the forms alone, with scripts switched off, as the policy has it."""
    chromium.look()
    chromium.open(f"{base}/reports?state=refused")
    chromium.type("#change-subject", "nobody@reports.example")
    chromium.follow("form.ask[method=post] button", f"{base}/reports?state=refused")
    row = "return [...document.querySelectorAll('tbody tr')].filter(r => r.innerText.includes('nobody@')).length"
    assert chromium.run(row) == 1
    chromium.follow("input[value='nobody@reports.example'] ~ button", f"{base}/reports?state=refused")
    assert chromium.run(row) == 0
    check(chromium, base)


def test_the_keyboard_reaches_the_content_first(chromium: Chromium, base: str) -> None:
    chromium.look()
    chromium.open(f"{base}/overview")
    chromium.press("\ue004")  # Tab
    assert chromium.run("return document.activeElement.className") == "skip"
    assert chromium.run("return document.activeElement.getBoundingClientRect().left >= 0")
    chromium.press("\ue007")  # Enter
    assert chromium.run("return document.activeElement.id") == "main"


def test_the_logout_ends_the_session(chromium: Chromium, base: str) -> None:
    chromium.open(f"{base}/overview")
    chromium.follow("header form button", f"{base}/login")
    chromium.open(f"{base}/overview")
    assert chromium.url.startswith(f"{base}/login")
