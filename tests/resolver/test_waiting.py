# SPDX-License-Identifier: GPL-3.0-or-later
"""Nobody waits for an answer that cannot change the result, and what is asked ahead still saves rounds."""

from __future__ import annotations

import time
from ipaddress import ip_address
from typing import Any

import pytest
from msgspec.structs import replace

from assay.inquiry import PENDING, Answer, Eager, Inquiry, Outcome, Question, RecordType
from assay.model.name import Domain, ReversePath
from assay.protocol import dmarc, iprev, spf
from assay.resolver import Resolver, configured, running
from nameserver import NameServer

CLIENT = ip_address("192.0.2.1")
SENDER = spf.Request(CLIENT, "example.com").of_mail_from(ReversePath.parse("<a@example.com>"))
PTR = "1.2.0.192.in-addr.arpa"
ROWS: dict[str, list[Any]] = {
    "example.com": [["TXT", ["v=spf1 include:a.example.com a:dead.example.com -all"]]],
    "a.example.com": [["TXT", ["v=spf1 include:b.example.com ?all"]]],
    "b.example.com": [["TXT", ["v=spf1 ip4:192.0.2.1 ?all"]]],
    "_dmarc.example.com": [["TXT", ["v=DMARC1; p=reject"]]],
    "_dmarc.www.example.com": [["TXT", ["v=DMARC1; p=reject"]]],
    "of-host.example.com": [["TXT", ["v=spf1 redirect=host.example.com"]]],
    "p.example.com": [["TXT", ["%{p}"]]],
    PTR: [["PTR", "dead.example.com"], ["PTR", "host.example.com"]],
    "host.example.com": [["A", "192.0.2.1"], ["TXT", ["v=spf1 exists:%{p}.in.example.com -all"]]],
    "host.example.com.in.example.com": [["A", "127.0.0.1"]],
}
BUDGET = 8.0  # seconds; less than a dead server takes, which is twice this before it is given up


def verdict(*passing: str) -> Inquiry[dmarc.Evaluation]:
    discovery = yield from dmarc.discover(Domain("example.com"))
    identifiers = [dmarc.Identifier(Domain(name), "pass") for name in passing]
    return (yield from dmarc.evaluate(discovery, identifiers[0], identifiers[1:]))


def by_suffix() -> Inquiry[dmarc.Evaluation]:
    discovery = yield from dmarc.discover(Domain("www.example.com"), public_suffix=lambda _: "com")
    return (yield from dmarc.evaluate(discovery, dmarc.Identifier(Domain("example.com"), "pass"), ()))


def record(text: str) -> Any:
    """SPF of a domain with this record."""
    return lambda: spf.check(spf.Request(CLIENT, "a.example", domain="a.example", record=text.encode()))


CASES: dict[str, tuple[Any, str, str]] = {
    "above the author's own record, by the list": (by_suffix, "_dmarc.example.com", "pass"),
    "one of several names": (lambda: iprev.evaluate(CLIENT), "dead.example.com", "pass"),
    "the name that is not needed for ptr": (record("v=spf1 ptr:example.com -all"), "dead.example.com", "pass"),
    "for %{p}, if the domain itself is one": (
        record("v=spf1 include:of-host.example.com -all"),
        "dead.example.com",
        "pass",
    ),
    "the explanation": (record("v=spf1 -all exp=dead.example.com"), "dead.example.com", "fail"),
    "a macro of the explanation": (record("v=spf1 -all exp=p.example.com"), "dead.example.com", "fail"),
    "a term behind the one that matches": (lambda: spf.check(SENDER), "dead.example.com", "pass"),
    "above the author's own record": (lambda: verdict("example.com"), "_dmarc.com", "pass"),
    "above a record in common": (lambda: verdict("bounce.example.com"), "_dmarc.com", "pass"),
    "of one that matters no more": (lambda: verdict("esp.com", "example.com"), "_dmarc.com", "pass"),
    "of another top-level domain": (lambda: verdict("esp.example"), "_dmarc.com", "fail"),
}


@pytest.mark.parametrize(("make", "dead", "result"), CASES.values(), ids=CASES)
def test_a_dead_server_that_cannot_change_the_result_costs_nothing(make: Any, dead: str, result: str) -> None:
    with NameServer(ROWS, drop={dead}) as server, Resolver(configured([server.text]), patience=BUDGET) as resolver:
        begun = time.monotonic()
        assert resolver.driver(BUDGET).start(make()).result().result == result
        assert time.monotonic() - begun < BUDGET / 2


def test_what_does_not_decide_is_waited_for_briefly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Evidence must not depend on what was cached."""
    monkeypatch.setattr(running, "BRIEFLY", 5.0)  # on a busy machine, too
    delays = {"_dmarc.com": 0.2, "p.example.com": 0.2, "dead.example.com": 0.2}
    rows = ROWS | {"dead.example.com": [["A", "192.0.2.1"]]}
    with NameServer(rows, delays=delays) as server, Resolver(configured([server.text])) as resolver:
        driver = resolver.driver(BUDGET)
        found = driver.start(verdict("example.com")).result()
        assert found.organizational_domain == Domain("example.com")
        names = {"dead.example.com", "host.example.com"}  # the server's order varies
        assert set(driver.start(iprev.evaluate(CLIENT)).result().confirmed) == names
        failed = driver.start(record("v=spf1 -all exp=p.example.com")()).result()
        assert failed.explanation in names


def test_what_was_late_is_left_out() -> None:
    with (
        NameServer(ROWS, drop={"_dmarc.com", "dead.example.com"}) as server,
        Resolver(configured([server.text]), patience=BUDGET) as resolver,
    ):
        driver = resolver.driver(BUDGET)
        assert driver.start(verdict("example.com")).result().organizational_domain is None
        assert driver.start(iprev.evaluate(CLIENT)).result().confirmed == ("host.example.com",)
        failed = driver.start(record("v=spf1 -all exp=dead.example.com")()).result()
        assert (failed.result, failed.explanation) == ("fail", "")


def test_an_explanation_that_nobody_uses_is_not_asked_for() -> None:
    with NameServer(ROWS) as server, Resolver(configured([server.text])) as resolver:
        request = spf.Request(CLIENT, "a.example", domain="a.example", record=b"v=spf1 -all exp=p.example.com")
        assert resolver.driver(BUDGET).start(spf.check(replace(request, explain=False))).result().result == "fail"
        assert server.count() == 0


def test_what_decides_is_waited_for() -> None:
    with (
        NameServer(ROWS, delays={"_dmarc.com": 0.4, "a.example.com": 0.4}) as server,
        Resolver(configured([server.text])) as resolver,
    ):
        assert resolver.driver(BUDGET).start(verdict("esp.com")).result().result == "fail"
        assert resolver.driver(BUDGET).start(spf.check(SENDER)).result().result == "pass"


def eager(seen: list[str], *names: str) -> Inquiry[None]:
    """Asks for all names at once and notes in which order they come."""
    while left := [name for name in names if name not in seen]:
        answers = yield Eager(Question(name, RecordType.A) for name in left)
        seen += [name for name, answer in zip(left, answers, strict=True) if answer is not PENDING]


def test_answers_come_as_they_are_there_and_each_question_is_asked_once() -> None:
    seen: list[str] = []
    told: list[tuple[str, bool]] = []

    def observer(question: Question, answer: Answer, seconds: float) -> None:
        told.append((question.name, seconds > 0.35))

    delays = {"a.org": 0.4, "b.org": 0.2}
    with NameServer({}, delays=delays) as server, Resolver(configured([server.text])) as resolver:
        resolver.driver(BUDGET, observer).start(eager(seen, "a.org", "b.org", "c.org")).result()
        assert server.count(kind="A") == 3
        assert resolver.statistics.misses == 3
    assert seen == ["c.org", "b.org", "a.org"]
    assert told == [("c.org", False), ("b.org", False), ("a.org", True)]


def test_the_budget_ends_an_eager_batch() -> None:
    def stubborn() -> Inquiry[Outcome]:
        answers: list[Answer] = [PENDING]
        while answers[-1] is PENDING:
            answers = list((yield Eager([Question("dead.org", RecordType.A)])))
        return answers[-1].outcome

    with NameServer({}, drop=True) as server, Resolver(configured([server.text])) as resolver:
        assert resolver.driver(0.2).start(stubborn()).result() is Outcome.TEMPFAIL
