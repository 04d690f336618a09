# SPDX-License-Identifier: GPL-3.0-or-later
"""The records of domains of ours: each way in which one is right, doubtful, wrong or unknown."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from assay.inquiry import Inquiry, solve
from assay.keys.rotation import KeyState
from assay.log import Level, Log
from assay.model.name import Domain
from assay.protocol import dkim
from assay.web import records
from assay.web.lookups import FRESH_SECONDS, DomainLookups
from assay.web.records import (
    Checked,
    OurKey,
    RecordState,
    author_policy,
    exchanges,
    reverse_names,
    sender_policy,
    signing_keys,
)
from signing import pem, rsa_key
from zone import Rows, Zone

US = Domain("example.org")
HOST = "mx.example.org"
SILENT = Log(lambda *_: None)
RECORD = dkim.record_of(dkim.load_private_key(pem(rsa_key())))
KEY = OurKey("example.org", "s1", RECORD, KeyState.ACTIVE)
KEY_NAME = "s1._domainkey.example.org"
ADDRESS: Rows = {HOST: [["A", "192.0.2.25"]]}


def mx() -> Any:
    return exchanges(US)


def spf() -> Any:
    return sender_policy(US, HOST, 0)


def keys(*ours: OurKey) -> Callable[[], Any]:
    return lambda: signing_keys(US, ours or (KEY,))


def policy() -> Any:
    return author_policy(US)


def names() -> Any:
    return reverse_names(HOST)


def text(owner: str, *texts: str) -> Rows:
    parts = [[each[start : start + 255] for start in range(0, len(each), 255)] for each in texts]
    return {owner: [["TXT", part] for part in parts]}


GOOD, DOUBT, BAD, UNKNOWN = RecordState.GOOD, RecordState.DOUBT, RecordState.BAD, RecordState.UNKNOWN
DMARC = "_dmarc.example.org"
#: What is checked, the DNS, the state of the first record that is not good (or of the first), and part of why.
ROWS: dict[str, tuple[Callable[[], Any], Rows, RecordState, str]] = {
    "MX": (mx, {"example.org": [["MX", [10, HOST]]], **ADDRESS}, GOOD, ""),
    "null MX": (mx, {"example.org": [["MX", [0, ""]]]}, GOOD, "takes no mail"),
    "no MX": (mx, {"example.org": [["TXT", ["x"]]]}, DOUBT, "no MX record"),
    "MX without address": (mx, {"example.org": [["MX", [10, HOST]]]}, BAD, f"no address: {HOST}"),
    "MX unknown": (mx, {"example.org": [["SERVFAIL", "MX"]]}, UNKNOWN, "no answer"),
    "SPF": (spf, {**text("example.org", "v=spf1 ip4:192.0.2.25 -all"), **ADDRESS}, GOOD, "0 of 10 lookups"),
    "no SPF": (spf, ADDRESS, BAD, "anyone can send"),
    "SPF for all": (spf, {**text("example.org", "v=spf1 +all"), **ADDRESS}, BAD, "permits a stranger: +all"),
    "SPF neutral": (spf, {**text("example.org", "v=spf1 a:mx.example.org ?all"), **ADDRESS}, DOUBT, "neutral"),
    "SPF without this host": (spf, {**text("example.org", "v=spf1 -all"), **ADDRESS}, DOUBT, "add it"),
    "SPF broken": (spf, text("example.org", "v=spf1 foo -all"), BAD, "of 10 lookups"),
    "SPF near the limit": (
        spf,
        {**text("example.org", "v=spf1 " + "a:mx.example.org " * 9 + "-all"), **ADDRESS},
        DOUBT,
        "9 of 10 lookups",
    ),
    "SPF unknown": (spf, {"example.org": [["SERVFAIL", "TXT"]]}, UNKNOWN, ""),
    "key": (keys(), text(KEY_NAME, RECORD), GOOD, ""),
    "key missing": (keys(), {}, BAD, "the name does not exist"),
    "key pending": (keys(OurKey("example.org", "s1", RECORD, KeyState.PENDING)), {}, DOUBT, "publish the record"),
    "key in test": (keys(), text(KEY_NAME, RECORD + "; t=y"), DOUBT, "t=y"),
    "key unknown": (keys(), {KEY_NAME: [["SERVFAIL", "TXT"]]}, UNKNOWN, ""),
    "key retired": (keys(OurKey("example.org", "s1", RECORD, KeyState.RETIRED)), {}, GOOD, ""),
    "key not removed": (
        keys(OurKey("example.org", "s1", RECORD, KeyState.RETIRED)),
        text(KEY_NAME, RECORD),
        DOUBT,
        "remove it",
    ),
    "no key": (lambda: signing_keys(US, ()), {}, DOUBT, "no key of this host"),
    "DMARC": (policy, text(DMARC, "v=DMARC1; p=reject; rua=mailto:d@example.org"), GOOD, ""),
    "no DMARC": (policy, {}, BAD, ""),
    "DMARC none": (policy, text(DMARC, "v=DMARC1; p=none; rua=mailto:d@example.org"), DOUBT, "p=none"),
    "DMARC without reports": (policy, text(DMARC, "v=DMARC1; p=reject"), DOUBT, "no rua="),
    "DMARC in test": (policy, text(DMARC, "v=DMARC1; p=reject; t=y; rua=mailto:d@example.org"), DOUBT, "t=y"),
    "DMARC unknown": (policy, {DMARC: [["SERVFAIL", "TXT"]]}, UNKNOWN, ""),
    "reports elsewhere": (
        policy,
        {
            **text(DMARC, "v=DMARC1; p=reject; rua=mailto:d@reports.example"),
            **text("example.org._report._dmarc.reports.example", "v=DMARC1;"),
        },
        GOOD,
        "",
    ),
    "reports not wanted": (
        policy,
        text(DMARC, "v=DMARC1; p=reject; rua=mailto:d@reports.example"),
        BAD,
        "no DMARC rec",
    ),
    "PTR": (names, {**ADDRESS, "25.2.0.192.in-addr.arpa": [["PTR", HOST]]}, GOOD, ""),
    "no PTR": (names, ADDRESS, BAD, "no PTR record"),
    "no address": (names, {}, DOUBT, "identity.authserv_id"),
}


@pytest.mark.parametrize(("ask", "rows", "state", "why"), ROWS.values(), ids=ROWS)
def test_a_record(ask: Callable[[], Any], rows: Rows, state: RecordState, why: str) -> None:
    checked = solve(ask(), Zone(rows).answer)
    telling = next((each for each in checked if each.state is not GOOD), checked[0])
    assert telling.state is state
    assert why in telling.why


def test_what_is_missing_can_be_published_as_it_is_written() -> None:
    for ask, rows in ((spf, ADDRESS), (keys(), {}), (policy, {})):
        (first, *_) = solve(ask(), Zone(rows).answer)
        owner, _, kind = first.publish.partition(" ")
        assert owner.rstrip(".") == first.name
        assert "IN TXT" in kind


def test_a_dead_dns_delays_a_page_for_its_patience_only() -> None:
    hangs = threading.Event()

    class Driver:
        def start(self, inquiry: Inquiry[Any], *_: object) -> Any:
            class Pending:
                def result(self) -> tuple[Checked, ...]:
                    hangs.wait(20)
                    return ()

            return Pending()

    lookups = DomainLookups(Driver, HOST, lambda _: (), SILENT)  # type: ignore[arg-type]  # it is never asked
    assert lookups.reports(["a.example", "b.example"], 0.05) == {}
    hangs.set()
    assert set(lookups.reports(["a.example", "b.example"], 10.0)) == {"a.example", "b.example"}
    lookups.close()


def test_what_is_fresh_is_not_looked_up_again() -> None:
    now = [1000.0]
    looks: list[str] = []

    class Driver:
        def start(self, inquiry: Inquiry[Any], *_: object) -> Any:
            class Pending:
                def result(self) -> tuple[Checked, ...]:
                    return ()

            return Pending()

    lookups = DomainLookups(Driver, HOST, lambda domain: looks.append(domain) or (), SILENT, lambda: now[0])  # type: ignore  # a stub
    put_back = 500.0  # the clock: what was looked up in the future may be of any age
    for at, count in ((1000.0, 1), (1000.0 + FRESH_SECONDS - 1, 1), (1000.0 + FRESH_SECONDS, 2), (put_back, 3)):
        now[0] = at
        report = lookups.reports(["a.example"], 10.0)["a.example"]
        assert (report.at, len(looks)) == (1000.0 if count == 1 else at, count)
    lookups.close()


def test_a_look_that_fails_is_logged_and_tried_again() -> None:
    logged: list[tuple[Level, str]] = []
    looks = 0

    def keys_of(_: str) -> tuple[OurKey, ...]:
        nonlocal looks
        looks += 1
        raise RuntimeError("odd")

    log = Log(lambda level, text: logged.append((level, text)))
    lookups = DomainLookups(lambda: None, HOST, keys_of, log)  # type: ignore[arg-type,return-value]  # never called
    for count in (1, 2):
        assert lookups.reports(["a.example"], 10.0) == {}
        assert looks == count
    lookups.close()
    text = "page: the records of a.example cannot be looked up: RuntimeError('odd')"
    assert logged == [(Level.ERROR, text)] * 2


def test_a_domain_with_many_exchanges_and_addresses_asks_a_bounded_number_of_questions() -> None:
    many: Rows = {"example.org": [["MX", [10, f"mx{number}.example.org"]] for number in range(30)]}
    asked: list[str] = []
    zone = Zone({**many, HOST: [["A", f"192.0.2.{number}"] for number in range(30)]})

    def answer(question: Any) -> Any:
        asked.append(question.name)
        return zone.answer(question)

    solve(mx(), answer)
    assert len(asked) == 1 + 2 * records.MAX_EXCHANGES
    assert len(solve(names(), zone.answer)) == records.MAX_ADDRESSES
    zone = Zone({**text("example.org", "v=spf1 -all"), HOST: [["A", f"192.0.2.{number}"] for number in range(30)]})
    assert len(solve(spf(), zone.answer)) == 1 + records.MAX_ADDRESSES


def test_the_oldest_records_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("assay.web.lookups.MAX_REPORTS", 2)

    class Driver:
        def start(self, inquiry: Inquiry[Any], *_: object) -> Any:
            class Pending:
                def result(self) -> tuple[Checked, ...]:
                    return ()

            return Pending()

    lookups = DomainLookups(Driver, HOST, lambda _: (), SILENT)  # type: ignore[arg-type]  # it is never asked
    for domain in ("a.example", "b.example", "c.example"):
        assert set(lookups.reports([domain], 10.0)) == {domain}
    assert list(lookups._reports) == ["b.example", "c.example"]
    lookups.close()
