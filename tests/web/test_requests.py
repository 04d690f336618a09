# SPDX-License-Identifier: GPL-3.0-or-later
"""Requests to the page: login, logout, forms of other sites, header fields, errors, exports."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from starlette.requests import Request

from asking import TOKEN, Browser
from assay.config import Configuration
from assay.config.store import StoreSection
from assay.config.web import WebSection
from assay.daemon.status import History
from assay.log import Level, Log
from assay.metrics import Pages
from assay.web.access import Access, Proxies
from assay.web.app import MAX_ARGUMENTS, MAX_FORM, _single, make_app
from assay.web.headers import FIELDS
from assay.web.pages import PAGES
from assay.web.server import MAX_HEADER
from assay.web.site import open_site

Made = Callable[..., Browser]


@pytest.fixture
def logged() -> list[tuple[Level, str]]:
    return []


@pytest.fixture
def browser(tmp_path: Path, logged: list[tuple[Level, str]]) -> Made:
    def make(
        peer: str | None = "127.0.0.1", *, token: str = TOKEN, header: str = "", proxies: tuple[str, ...] = ()
    ) -> Browser:
        web = WebSection(user_header=header, trusted_proxies=proxies)
        configuration = Configuration(web=web, store=StoreSection(directory=str(tmp_path)))
        figures = Pages(1)
        site = open_site(configuration, figures, History(figures, leaves=False), (), Log(lambda *_: None))
        log = Log(lambda level, text: logged.append((level, text)))
        return Browser(make_app(site, Access(token, header, Proxies.of(web)), log), peer)

    return make


HERE = "/dns"  # needs no store
PATHS = [place.path for place in PAGES if not place.items]


@pytest.mark.parametrize("path", [*PATHS, *(f"{place.path}/x" for place in PAGES if place.items)])
def test_no_page_is_shown_before_the_login(browser: Made, path: str) -> None:
    someone = browser()
    asked = someone.get(path)
    assert (asked.status, asked.body) == (303, b"")
    assert asked.header("location").startswith("/login?next=%2F")
    for suffix in (".csv", ".json"):
        asked = someone.get(path + suffix)
        assert (asked.status, asked.body) == (401, b"log in first\n")


def test_the_login_leads_where_one_wanted_to_go_and_the_logout_ends_it(browser: Made) -> None:
    someone = browser()
    asked = someone.get(f"{HERE}?a=b%26c")
    asked = someone.post(asked.header("location"), {"token": TOKEN})
    assert asked.status == 303
    assert asked.header("location") == f"{HERE}?a=b%26c"
    cookie = asked.header("set-cookie").lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert "secure" not in cookie
    assert someone.get(HERE).status == 200
    kept = dict(someone.cookies)
    assert someone.post("/logout", {}).header("location") == "/login"
    assert someone.cookies == {}
    someone.cookies = kept
    assert someone.get(HERE).status == 303, "the cookie that the browser had no longer counts"


@pytest.mark.parametrize(
    "next_",
    [
        "//evil.example/", "https://evil.example/", "/\\evil.example", "\\\\evil.example", "javascript:x", "/a\n",
        "//[", "/\\[",
    ],
)  # fmt: skip
def test_the_login_never_leads_elsewhere(browser: Made, next_: str) -> None:
    from urllib.parse import quote

    asked = browser().post(f"/login?next={quote(next_, safe='')}", {"token": TOKEN})
    assert asked.header("location") == "/overview"


@pytest.mark.parametrize("path", [f"{path}/" for path in ("/login", "/static/style.css", *PATHS)])
def test_the_host_field_leads_nowhere(browser: Made, path: str) -> None:
    """A client chooses it; a proxy with TLS in front has another scheme than we."""
    asked = browser().get(path)
    assert asked.status == 404
    assert not [value for name, value in asked.headers if name == "location"]


def test_a_wrong_token_is_logged_and_soon_throttled(browser: Made, logged: list[tuple[Level, str]]) -> None:
    someone = browser()
    asked = [someone.log_in("guess") for _ in range(10)]
    assert [each.status for each in asked] == [403] * 5 + [429] * 5
    assert int(asked[-1].header("retry-after")) > 0
    assert someone.log_in().status == 429
    assert (Level.WARNING, "page: wrong token from 127.0.0.1") in logged
    assert not any(TOKEN in line or "guess" in line for _, line in logged)


@pytest.mark.parametrize("path", ["/login", "/logout"])
@pytest.mark.parametrize(
    "headers",
    [
        {"sec-fetch-site": "cross-site", "origin": "http://page.example"},
        {"sec-fetch-site": "same-site"},
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": "http://["},
        {"origin": "http://[x]"},
        {"origin": "page.example"},
    ],
)
def test_a_form_of_another_site_is_refused(browser: Made, path: str, headers: dict[str, str]) -> None:
    someone = browser()
    someone.log_in()
    assert someone.post(path, {"token": TOKEN}, headers).status == 403
    assert someone.get(HERE).status == 200, "still logged in"


@pytest.mark.parametrize("headers", [{"sec-fetch-site": "same-origin"}, {"origin": "http://page.example"}, {}])
def test_our_own_form_is_accepted(browser: Made, headers: dict[str, str]) -> None:
    assert browser().log_in(headers=headers).status == 303


def test_a_name_in_a_header_counts_only_from_a_trusted_proxy(browser: Made) -> None:
    proxies = {"header": "X-Remote-User", "proxies": ("127.0.0.1",)}
    spoofed = {"X-Remote-User": "ann"}
    asked = browser("127.0.0.1", **proxies).get(HERE, spoofed)
    assert asked.status == 200
    assert browser("192.0.2.1", **proxies).get(HERE, spoofed).status == 303
    assert browser(None, **proxies).get(HERE, spoofed).status == 303
    assert browser("127.0.0.1").get(HERE, spoofed).status == 303


def test_a_cookie_over_tls_is_for_tls_only(browser: Made) -> None:
    proxies = {"header": "X-Remote-User", "proxies": ("127.0.0.1",)}
    tls = {"X-Forwarded-Proto": "https"}
    assert "secure" in browser(**proxies).log_in(headers=tls).header("set-cookie").lower()
    assert "secure" not in browser("192.0.2.1", **proxies).log_in(headers=tls).header("set-cookie").lower()


@pytest.mark.parametrize("path", ["/login", "/", "/nothing", "/static/style.css", HERE, f"{HERE}.csv"])
def test_every_response_has_the_header_fields(browser: Made, path: str) -> None:
    someone = browser()
    for asked in (someone.get(path), someone.get(path, method="DELETE"), (someone.log_in(), someone.get(path))[1]):
        for name, value in FIELDS.items():
            assert asked.header(name) == value
        static = path.startswith("/static/")
        assert asked.header("cache-control") == ("max-age=3600" if static and asked.status == 200 else "no-store")


def test_errors_are_pages_that_tell_a_stranger_nothing(browser: Made) -> None:
    someone = browser()
    asked = someone.get("/nothing")
    assert (asked.status, asked.header("content-type")) == (404, "text/plain; charset=utf-8")
    assert someone.get(HERE, method="POST").status == 405
    assert someone.post("/login", {"token": "a" * MAX_FORM}).status == 413
    someone.log_in()
    asked = someone.get("/nothing")
    assert asked.status == 404
    assert "<h1>Not found</h1>" in asked.text


def test_a_bug_in_a_page_is_logged_and_not_shown(
    browser: Made, logged: list[tuple[Level, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("secret detail")

    monkeypatch.setattr("assay.web.dns.status", broken)
    someone = browser()
    someone.log_in()
    asked = someone.get("/dns")
    assert asked.status == 500
    assert "secret detail" not in asked.text
    assert (Level.ERROR, "page /dns: RuntimeError('secret detail')") in logged


def test_a_table_as_csv_and_json(browser: Made) -> None:
    someone = browser()
    someone.log_in()
    asked = someone.get("/configuration.json?table=defaults")
    rows = {row["key"]: row for row in json.loads(asked.body)}
    assert rows["milter.workers"] == {"key": "milter.workers", "value": "0", "source": "default"}
    assert asked.header("content-disposition") == 'attachment; filename="configuration-defaults.json"'
    assert someone.get("/configuration.csv?table=defaults").text.startswith("key,value,source\r\n")
    assert someone.get("/configuration.csv?table=none").status == 404


def test_an_export_that_fails_is_no_page(browser: Made) -> None:
    someone = browser()
    someone.log_in()
    for path in ("/domains/evil.example.json", "/overview.csv"):
        asked = someone.get(path)
        assert (asked.status, asked.header("content-type")) == (
            503 if "overview" in path else 404,
            "text/plain; charset=utf-8",
        )
    assert "<h1>Not found</h1>" in someone.get("/domains/evil.example").text


def test_of_many_arguments_a_page_repeats_a_few(browser: Made) -> None:
    someone = browser()
    someone.log_in()
    asked = someone.get("/configuration?" + "&".join(f"name{number}=x" for number in range(1000)))
    assert asked.status == 200
    assert len(set(re.findall(r"name\d+", asked.text))) == MAX_ARGUMENTS


def test_a_field_that_a_request_has_twice_counts_for_nothing() -> None:
    """A client sent one, and the proxy added its own."""
    names = [(b"x-remote-user", b"root"), (b"x-remote-user", b"ann"), (b"host", b"a")]
    assert _single(Request({"type": "http", "headers": names})) == {"host": "a"}


def test_many_fields_in_a_head_cost_little() -> None:
    names = [(b"%x" % number, b"") for number in range(MAX_HEADER // len(b"fff:\r\n"))]
    began = time.thread_time()
    assert len(_single(Request({"type": "http", "headers": names}))) == len(names)
    assert time.thread_time() - began < 0.05


def test_a_client_that_names_itself_to_the_proxy_is_throttled_all_the_same(browser: Made) -> None:
    """Some proxies append to the field of their client, and some add one of their own after it."""
    someone = browser(proxies=("127.0.0.1",))
    statuses = [
        someone.post("/login", {"token": "guess"}, [("X-Forwarded-For", f"192.0.2.{n}"), ("X-Forwarded-For", "::1")])
        for n in range(6)
    ]
    assert [each.status for each in statuses] == [403] * 5 + [429]
