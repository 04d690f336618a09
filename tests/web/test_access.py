# SPDX-License-Identifier: GPL-3.0-or-later
"""Who may see the page: the token, sessions, trusted proxies, and attempts of others."""

from __future__ import annotations

import pytest

from asking import TOKEN
from assay.config.web import LOCAL, WebSection
from assay.model.smtp import parse_address
from assay.web import access
from assay.web.access import Access, Login, Proxies, Throttle

HERE = parse_address("127.0.0.1")
ELSEWHERE = parse_address("192.0.2.1")


class Clock:
    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def made(clock: Clock, *, token: str = TOKEN, header: str = "X-Remote-User", proxies: tuple[str, ...] = ()) -> Access:
    section = WebSection(user_header=header, trusted_proxies=proxies or ("127.0.0.1",))
    return Access(token, header, Proxies.of(section), throttle=Throttle(clock), clock=clock)


def test_a_session_lasts_for_its_time_and_ends_by_a_logout(clock: Clock) -> None:
    door = made(clock)
    session = door.session()
    assert door.user(ELSEWHERE, {}, session) == "token"
    clock.now += access.SESSION_SECONDS - 1
    assert door.user(ELSEWHERE, {}, session) == "token"
    clock.now += 1
    assert door.user(ELSEWHERE, {}, session) == ""
    session = door.session()
    door.log_out(session)
    assert door.user(ELSEWHERE, {}, session) == ""
    assert door.user(ELSEWHERE, {}, door.session()) == "token"


def test_a_session_survives_a_restart_but_not_another_token(clock: Clock) -> None:
    session = made(clock).session()
    assert made(clock).user(ELSEWHERE, {}, session) == "token"
    assert made(clock, token=TOKEN[::-1]).user(ELSEWHERE, {}, session) == ""


def test_no_session_can_be_made_without_the_token(clock: Clock) -> None:
    door = made(clock)
    expiry, number, signature = door.session().split(".")
    for forged in (
        "",
        ".",
        "..",
        f"{int(expiry) + 1}.{number}.{signature}",
        f"{expiry}.{number}.",
        f"{expiry}.{number}",
        f"{expiry}.{number}.{signature[:-1]}",
        f"{expiry}.{number}.\udcff\u20ac",
        f"x.{number}.{signature}",
        made(clock, token="").session(),
    ):
        assert door.user(ELSEWHERE, {}, forged) == "", forged


def test_without_a_token_no_attempt_and_no_session_opens_the_page(clock: Clock) -> None:
    door = made(clock, token="")
    assert door.log_in("", "a") is Login.WRONG
    assert door.user(ELSEWHERE, {}, door.session()) == ""


def test_only_a_trusted_proxy_names_the_user(clock: Clock) -> None:
    door = made(clock)
    assert door.user(HERE, {"x-remote-user": " ann "}, "") == "ann"
    assert door.user(ELSEWHERE, {"x-remote-user": "ann"}, "") == ""
    assert door.user(None, {"x-remote-user": "ann"}, "") == ""
    assert made(clock, proxies=(LOCAL,)).user(None, {"x-remote-user": "ann"}, "") == "ann"
    assert made(clock, proxies=(LOCAL,)).user(HERE, {"x-remote-user": "ann"}, "") == ""
    assert door.user(HERE, {"x-remote-user": " "}, "") == ""
    assert made(clock, header="").user(HERE, {"x-remote-user": "ann", "": "ann"}, "") == ""
    assert len(door.user(HERE, {"x-remote-user": "a" * 1000}, "")) == access.MAX_USER


def test_after_some_failures_a_client_waits_even_with_the_right_token(clock: Clock) -> None:
    door = made(clock)
    for _ in range(access.MAX_FAILURES):
        assert door.log_in("wrong", "a") is Login.WRONG
    assert door.log_in(TOKEN, "a") is Login.TOO_MANY
    assert door.wait("a") > 0
    assert door.log_in(TOKEN, "b") is Login.DONE
    clock.now += access.WINDOW_SECONDS
    assert door.log_in(TOKEN, "a") is Login.DONE


def test_many_clients_together_wait_too(clock: Clock) -> None:
    door = made(clock)
    for number in range(access.MAX_ALL_FAILURES):
        assert door.log_in("wrong", str(number)) is Login.WRONG
    assert door.log_in(TOKEN, "another") is Login.TOO_MANY


def test_what_is_remembered_of_attempts_is_bounded(clock: Clock) -> None:
    throttle = Throttle(clock)
    for number in range(3 * access.MAX_FAILING_CLIENTS):
        throttle.failed(str(number))
    assert len(throttle._by_client) == access.MAX_FAILING_CLIENTS
    for number in range(2 * access.MAX_FAILING_CLIENTS):
        throttle.failed(str(number))
        throttle.failed("busy")
    assert len(throttle._by_client["busy"]) == access.MAX_FAILURES, "whoever goes on is not forgotten"
    door = made(clock)
    for _ in range(2 * access.MAX_ENDED):
        door.log_out(door.session())
    assert len(door._ended) == access.MAX_ENDED


def test_the_client_of_a_proxy_is_whom_the_proxy_appended() -> None:
    proxies = Proxies.of(WebSection(user_header="X", trusted_proxies=("127.0.0.1", LOCAL)))
    assert proxies.client(HERE, "203.0.113.9, 198.51.100.7") == "198.51.100.7"
    assert proxies.client(ELSEWHERE, "198.51.100.7") == "192.0.2.1"
    assert proxies.client(HERE, "unknown") == "127.0.0.1"
    assert proxies.client(None, "") == LOCAL
    assert proxies.client(parse_address("2001:db8::1"), "") == proxies.client(parse_address("2001:db8::2"), "")
