# SPDX-License-Identifier: GPL-3.0-or-later
"""The resolver against a real (nano) nameserver: lookups, misbehaving servers, sharing."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from ipaddress import ip_address
from threading import Barrier, Thread
from typing import Any, cast

import pytest

from assay.inquiry import MX, Answer, Inquiry, Outcome, Question, Record, RecordType
from assay.resolver import LocalZone, Resolver, Statistics, client, configured, wire
from assay.resolver.streams import MAX_ANSWER
from nameserver import NameServer, closed_port

BUDGET = 10.0
PATIENCE = 0.3
ROWS: Mapping[str, Any] = {
    "example.org": [
        ["A", "192.0.2.1"],
        ["AAAA", "2001:db8::1"],
        ["MX", [10, "mx.example.org"]],
        ["TXT", ["v=spf1 ", "-all"]],
    ],
    "www.example.org": [["CNAME", "w.example.org"]],
    "w.example.org": [["CNAME", "example.org"]],
    "dangling.example.org": [["CNAME", "absent.example.org"]],
    "loop.example.org": [["CNAME", "pool.example.org"]],
    "pool.example.org": [["CNAME", "loop.example.org"]],
    "long.example.org": [["TXT", ["x" * 5000]]],
    "failing.example.org": [["SERVFAIL", "TXT"], ["A", "192.0.2.2"]],
    "1.2.0.192.in-addr.arpa": [["PTR", "mail.example.org"], ["PTR", "ex ample\\\udcff.org"]],
    'a b\\"\x00.example.org': [["A", "192.0.2.3"]],
}


def ask(*questions: tuple[str, str]) -> Inquiry[list[Answer]]:
    """An evaluator that asks one batch and returns the answers."""
    answers = yield [Question(name, RecordType(kind)) for name, kind in questions]
    return list(answers)


def one(resolver: Resolver, name: str, kind: str = "A") -> Answer:
    (answer,) = resolver.driver(BUDGET).start(ask((name, kind))).result()
    return answer


def found(*records: Record) -> Answer:
    return Answer(Outcome.FOUND, records, ttl=300)


LOOKUPS = {
    "A": ("example.org", "A", found(ip_address("192.0.2.1"))),
    "AAAA": ("example.org", "AAAA", found(ip_address("2001:db8::1"))),
    "MX": ("example.org", "MX", found(MX(10, "mx.example.org"))),
    "TXT": ("example.org", "TXT", found(b"v=spf1 -all")),
    "any case": ("EXAMPLE.org", "A", found(ip_address("192.0.2.1"))),
    "final dot": ("example.org.", "A", found(ip_address("192.0.2.1"))),
    "CNAMEs": ("www.example.org", "TXT", found(b"v=spf1 -all")),
    "CNAME to nothing": ("dangling.example.org", "A", Answer(Outcome.NXDOMAIN, ttl=60)),
    "long TXT over TCP": ("long.example.org", "TXT", found(b"x" * 5000)),
    "NODATA": ("w.example.org", "PTR", Answer(Outcome.NODATA, ttl=60)),
    "NXDOMAIN": ("absent.example.org", "A", Answer(Outcome.NXDOMAIN, ttl=60)),
    "odd octets in a question": ('a b\\"\x00.example.org', "A", found(ip_address("192.0.2.3"))),
}


@pytest.mark.parametrize("half_chains", [False, True], ids=["whole chains", "half chains"])
@pytest.mark.parametrize(("name", "kind", "expected"), LOOKUPS.values(), ids=LOOKUPS)
def test_a_question_is_answered_from_the_dns_and_then_from_the_cache(
    name: str, kind: str, expected: Answer, half_chains: bool
) -> None:
    with (
        NameServer(ROWS, soa_minimum=60, half_chains=half_chains) as server,
        Resolver(configured([server.text])) as resolver,
    ):
        assert one(resolver, name, kind) == expected
        queries = server.count()
        assert one(resolver, name.upper(), kind) == expected
        assert server.count() == queries


def test_ptr_names_of_any_octets_come_back() -> None:
    with NameServer(ROWS) as server, Resolver(configured([server.text])) as resolver:
        assert set(one(resolver, "1.2.0.192.in-addr.arpa", "PTR").names) == {"mail.example.org", "ex ample\\\udcff.org"}


IMPOSSIBLE = [
    "",
    ".",
    "a..org",
    ".org",
    "a" * 64 + ".org",
    "a." * 127 + "org",
    "exämple.org",
    "ex\udce4mple.org",
    "\u212a.org",
]


@pytest.mark.parametrize("name", IMPOSSIBLE, ids=ascii)
def test_a_name_the_dns_cannot_carry_is_nxdomain_without_asking(name: str) -> None:
    with NameServer({**ROWS, "k.org": [["A", "192.0.2.1"]]}) as server, Resolver(configured([server.text])) as resolver:
        one(resolver, "k.org")  # the Kelvin sign in lower case is a k
        assert one(resolver, name).outcome is Outcome.NXDOMAIN
        assert server.count() == 1


FAILURES: dict[str, tuple[str, dict[str, Any], str]] = {
    "SERVFAIL": ("failing.example.org", {}, "{server} answered SERVFAIL"),
    "REFUSED": ("example.org", {"rcodes": {"example.org": "REFUSED"}}, "{server} answered REFUSED"),
    "garbage": ("example.org", {"garbage": True}, "{server} did not answer within 0.3 s"),
    "nothing": ("example.org", {"drop": True}, "{server} did not answer within 0.3 s"),
    "a CNAME without end": ("loop.example.org", {"half_chains": True}, "more than 8 CNAMEs"),
}


@pytest.mark.parametrize(("name", "options", "reason"), FAILURES.values(), ids=FAILURES)
def test_no_usable_answer_is_tempfail_with_a_reason(name: str, options: dict[str, Any], reason: str) -> None:
    with NameServer(ROWS, **options) as server, Resolver(configured([server.text]), patience=PATIENCE) as resolver:
        expected = Answer(Outcome.TEMPFAIL, ttl=1, reason=reason.format(server=server.text))
        assert one(resolver, name, "TXT") == expected
        queries = server.count()
        assert one(resolver, name, "TXT") == expected  # for a second nobody is asked again
        assert server.count() == queries
        assert resolver.statistics.failures == 1


STRAYS: dict[str, dict[str, Any]] = {
    "another number": {"wrong_id_first": True},
    "another question": {"wrong_question_first": True},
}


@pytest.mark.parametrize("options", STRAYS.values(), ids=STRAYS)
def test_an_answer_to_something_else_is_ignored(options: dict[str, Any]) -> None:
    with NameServer(ROWS, **options) as server, Resolver(configured([server.text])) as resolver:
        assert one(resolver, "example.org") == found(ip_address("192.0.2.1"))
        assert server.count() == 1


def test_a_truncated_answer_is_asked_for_over_tcp() -> None:
    with NameServer(ROWS, truncate=True) as server, Resolver(configured([server.text])) as resolver:
        assert one(resolver, "example.org") == found(ip_address("192.0.2.1"))
        assert (server.count(), server.streams, resolver.statistics.streams) == (2, 1, 1)


def test_an_answer_that_is_too_long_ends_the_lookup() -> None:
    rows = ROWS | {"large.example": [["TXT", ["x" * 9000]], ["TXT", ["y" * 9000]]]}
    with (
        NameServer(rows, truncate=True) as server,
        NameServer(rows, truncate=True) as other,
        Resolver(configured([server.text, other.text])) as resolver,
    ):
        answer = one(resolver, "large.example", RecordType.TXT)
        assert answer.outcome is Outcome.TEMPFAIL
        assert answer.reason == f"{server.text} has an answer of more than {MAX_ANSWER} octets"
        assert (server.streams, other.count()) == (1, 0), "no other server has a shorter one"


def test_a_nameserver_without_tcp_fails_long_answers_only() -> None:
    """Else a stranger with a long record could silence a nameserver behind a firewall that blocks TCP."""
    with NameServer(ROWS, no_tcp=True) as server, Resolver(configured([server.text])) as resolver:
        answer = one(resolver, "long.example.org", "TXT")
        assert answer.reason == f"{server.text} could not be asked over TCP (Connection refused)"
        assert one(resolver, "example.org") == found(ip_address("192.0.2.1"))
        assert resolver.statistics.probes == 0


def test_the_ad_bit_is_asked_for_and_believed_only_if_trusted() -> None:
    with NameServer(ROWS, secure=True) as server:
        for trusted in (False, True):
            with Resolver(configured([server.text]), trust_ad=trusted) as resolver:
                assert one(resolver, "www.example.org").secure is trusted


CHAIN = ("www.example.org", "w.example.org", "example.org")


@pytest.mark.parametrize("insecure", CHAIN)
def test_a_chain_is_secure_if_all_of_it_is(insecure: str) -> None:
    with NameServer(ROWS, half_chains=True, secure=CHAIN) as server:
        with Resolver(configured([server.text]), trust_ad=True) as resolver:
            assert one(resolver, CHAIN[0]).secure is True
        server.secure = [name for name in CHAIN if name != insecure]
        with Resolver(configured([server.text]), trust_ad=True) as resolver:
            assert one(resolver, CHAIN[0]).secure is False


def test_where_the_local_zone_leads_nothing_is_secure() -> None:
    """Neither what has just been asked nor what is kept; the name itself remains so."""
    zone = LocalZone("alias.example. CNAME www.example.org.\n")
    with NameServer(ROWS, secure=True) as server, Resolver(configured([server.text]), trust_ad=True, zone=zone) as dns:
        for _ in range(2):
            assert one(dns, "alias.example").secure is False
            assert one(dns, "alias.example").records == one(dns, "www.example.org").records
            assert one(dns, "www.example.org").secure is True
        arrived_meanwhile: Any = dns.ask(Question("alias.example", RecordType.A), cast(Any, None), 0)
        assert arrived_meanwhile.secure is False


def test_many_threads_ask_once() -> None:
    """Single flight, also across messages: 100 drivers in 100 threads, one query."""
    answers: list[Answer] = []
    barrier = Barrier(100)
    with NameServer(ROWS, delay=0.2) as server, Resolver(configured([server.text])) as resolver:

        def work() -> None:
            barrier.wait()
            answers.append(one(resolver, "example.org"))

        threads = [Thread(target=work) for _ in range(100)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert answers == [found(ip_address("192.0.2.1"))] * 100
        assert server.count() == 1
        assert resolver.statistics.shared + resolver.statistics.hits >= 99


def test_one_name_twice_in_a_batch_is_asked_once() -> None:
    with NameServer(ROWS) as server, Resolver(configured([server.text])) as resolver:
        answers = resolver.driver(BUDGET).start(ask(("example.org", "A"), ("Example.ORG", "A"))).result()
        assert answers == [found(ip_address("192.0.2.1"))] * 2
        assert server.count() == 1


def test_a_batch_is_asked_at_once() -> None:
    with NameServer(ROWS, delay=0.2) as server, Resolver(configured([server.text])) as resolver:
        begun = time.monotonic()
        resolver.driver(BUDGET).start(ask(*[(f"n{number}.org", "A") for number in range(20)])).result()
        assert time.monotonic() - begun < 0.2 * 10
        assert server.count() == 20


def test_more_questions_than_places_are_asked_one_after_the_other() -> None:
    with NameServer(ROWS, delay=0.05) as server, Resolver(configured([server.text])) as resolver:
        answers = resolver.driver(BUDGET).start(ask(*[(f"n{number}.org", "A") for number in range(1000)])).result()
        assert {answer.outcome for answer in answers} == {Outcome.NXDOMAIN}
        assert server.count() == 1000


SECOND: dict[str, dict[str, Any]] = {
    "silent": {"drop": True},
    "failing": {"rcodes": {"example.org": "SERVFAIL"}},
    "refusing": {"rcodes": {"example.org": "REFUSED"}},
    "garbled": {"garbage": True},
}


@pytest.mark.parametrize("options", SECOND.values(), ids=SECOND)
def test_the_next_nameserver_is_asked_if_the_first_is(options: dict[str, Any]) -> None:
    with (
        NameServer(ROWS, **options) as first,
        NameServer(ROWS) as second,
        Resolver(configured([first.text, second.text]), patience=PATIENCE) as resolver,
    ):
        assert one(resolver, "example.org") == found(ip_address("192.0.2.1"))
        assert first.count("example.org") == second.count("example.org") == 1


def test_a_port_without_a_nameserver_costs_no_time() -> None:
    dead = closed_port()
    with NameServer(ROWS) as server, Resolver(configured([dead, server.text])) as resolver:
        begun = time.monotonic()
        assert one(resolver, "example.org") == found(ip_address("192.0.2.1"))
        assert time.monotonic() - begun < 1
    with Resolver(configured([dead])) as resolver:
        answer = one(resolver, "example.org")
        assert answer.reason == f"{dead} could not be asked (Connection refused)"


def test_all_dead_nameservers_cost_one_probe_and_not_a_timeout_for_each_lookup() -> None:
    with (
        NameServer(ROWS, drop=True) as first,
        NameServer(ROWS, drop=True) as second,
        Resolver(configured([first.text, second.text]), patience=PATIENCE) as resolver,
    ):
        begun = time.monotonic()
        for number in range(10):
            answer = one(resolver, f"n{number}.org")
            assert answer.outcome is Outcome.TEMPFAIL
            assert first.text in answer.reason
            assert second.text in answer.reason
        assert time.monotonic() - begun < 8 * PATIENCE
        assert first.count(kind="A") == second.count(kind="A") == 1
        assert first.count(kind="NS") <= 4  # probes


@pytest.mark.parametrize("rcode", ["FORMERR", "NOTIMP"])
def test_a_server_that_does_not_know_edns_is_asked_without_it_from_then_on(rcode: str) -> None:
    with NameServer(ROWS, no_edns=rcode) as server, Resolver(configured([server.text])) as resolver:
        assert one(resolver, "example.org").outcome is Outcome.FOUND
        assert server.count() == 2
        assert one(resolver, "nothing.example.org").outcome is Outcome.NXDOMAIN
        assert server.count() == 3
        server.truncate = True
        assert one(resolver, "n1.example.org").outcome is Outcome.NXDOMAIN
        assert (server.count(), server.streams) == (5, 1)


def test_a_question_that_a_server_never_understands_does_not_cost_it_edns() -> None:
    options: dict[str, Any] = {"rcodes": {"example.org": "FORMERR"}, "no_edns": "FORMERR"}
    with NameServer(ROWS, **options) as server, Resolver(configured([server.text])) as resolver:
        assert one(resolver, "example.org").reason == f"{server.text} answered FORMERR"
        asked = server.count()
        assert asked == 2
        assert one(resolver, "nothing.example.org").outcome is Outcome.NXDOMAIN
        assert server.count() == asked + 2  # first with EDNS


def test_a_name_that_keeps_failing_is_asked_less_and_less_often() -> None:
    now = [1000.0]
    with (
        NameServer(ROWS, rcodes={"example.org": "SERVFAIL"}) as server,
        Resolver(configured([server.text]), clock=lambda: now[0]) as resolver,
    ):
        for ttl in (1, 2, 4, 8, 16, 32, 60, 60):
            assert one(resolver, "example.org").ttl == ttl
            assert one(resolver, f"{ttl}.example.org").outcome is not Outcome.TEMPFAIL  # it is not the server
            now[0] += ttl
        server.rcodes.clear()
        assert one(resolver, "example.org").outcome is Outcome.FOUND
        now[0] += 300
        server.rcodes["example.org"] = "SERVFAIL"
        assert one(resolver, "example.org").ttl == 1


@pytest.mark.parametrize("rcode", ["SERVFAIL", "REFUSED"])
def test_a_failure_of_half_a_second_fails_no_lookup(rcode: str) -> None:
    names = [f"host{number}.example.org" for number in range(6)]
    with NameServer(ROWS, rcodes=dict.fromkeys(names, rcode)) as server:
        repair = threading.Timer(0.5, server.rcodes.clear)
        with Resolver(configured([server.text])) as resolver:
            repair.start()
            answers = resolver.driver(5.0).start(ask(*((name, "A") for name in names))).result()
            repair.join()
    assert {answer.outcome for answer in answers} == {Outcome.NXDOMAIN}


@contextmanager
def restarted(server: NameServer, seconds: float) -> Iterator[None]:
    """A nameserver that has ended begins again after some time, at the same address."""
    again = NameServer(ROWS)
    again.address = server.address
    timer = threading.Timer(seconds, again.__enter__)
    timer.start()
    try:
        yield
    finally:
        timer.join()
        again.__exit__(None, None, None)


def test_the_restart_of_a_nameserver_fails_no_lookup() -> None:
    told: list[str] = []
    with NameServer(ROWS) as server:
        resolver = Resolver(configured([server.text]), tell=told.append)
        one(resolver, "example.org")
    with resolver, restarted(server, 0.7):
        for number in range(5):
            begun = time.monotonic()
            assert one(resolver, f"n{number}.org").outcome is Outcome.NXDOMAIN
            assert time.monotonic() - begun < 0.7 + 1.0
    assert [line.rpartition(server.text)[2] for line in told] == [
        " could not be asked (Connection refused)",
        " answers again",
    ]


def test_a_nameserver_that_starts_after_us_fails_no_lookup() -> None:
    told: list[str] = []
    with NameServer(ROWS) as server:
        pass
    with Resolver(configured([server.text]), tell=told.append) as resolver, restarted(server, 0.5):
        assert one(resolver, "example.org", "TXT") == found(b"v=spf1 -all")
    assert [line.rpartition(server.text)[2] for line in told] == [
        " could not be asked (Connection refused)",
        " answers again",
    ]


def test_a_bounded_number_of_lookups_waits_for_a_nameserver(monkeypatch: pytest.MonkeyPatch) -> None:
    with NameServer(ROWS) as server:
        resolver = Resolver(configured([server.text]), patience=5.0)
        one(resolver, "example.org")
    with resolver:
        monkeypatch.setattr(client, "ROOM", 5)
        pending = resolver.driver(BUDGET).start(ask(*((f"n{number}.org", "TXT") for number in range(20))))
        deadline = time.monotonic() + 5.0
        while resolver.flights != 5:
            assert time.monotonic() < deadline, resolver.flights
            time.sleep(0.01)
        pending.cancel()  # what nobody waits for any more takes no room from others
        while resolver.flights:
            assert time.monotonic() < deadline, resolver.flights
            time.sleep(0.01)
        pending = resolver.driver(BUDGET).start(ask(("another.org", "TXT")))
        time.sleep(0.3)
        assert resolver.flights == 1
        pending.cancel()


def test_in_a_long_outage_nobody_waits_and_its_end_is_seen_within_a_second() -> None:
    with NameServer(ROWS) as server:
        resolver = Resolver(configured([server.text]), patience=PATIENCE)
        one(resolver, "example.org")
    with resolver:
        begun = time.monotonic()
        assert one(resolver, "n1.org").outcome is Outcome.TEMPFAIL
        assert PATIENCE < time.monotonic() - begun < 2 * PATIENCE + 1.0, "in case it is only a restart"
        time.sleep(2 * PATIENCE)
        begun = time.monotonic()
        assert one(resolver, "n2.org").outcome is Outcome.TEMPFAIL
        assert one(resolver, "n1.org").outcome is Outcome.TEMPFAIL
        assert time.monotonic() - begun < PATIENCE
        with restarted(server, 0.0):
            deadline = time.monotonic() + 5
            while one(resolver, f"n{time.monotonic()}.org").outcome is Outcome.TEMPFAIL:
                assert time.monotonic() < deadline
                time.sleep(0.05)
            assert time.monotonic() - deadline + 5 < 2.0
            assert one(resolver, "n1.org").outcome is Outcome.NXDOMAIN, "failures of the outage are forgotten with it"


def test_lookups_that_wait_for_a_probe_are_sent_when_it_is_answered() -> None:
    with NameServer(ROWS, drop=True) as server, Resolver(configured([server.text]), patience=PATIENCE) as resolver:
        first = resolver.driver(BUDGET).start(ask(("n1.org", "A")))
        time.sleep(PATIENCE / 2)
        server.drop = {"n1.org"}  # alive, but slow for a stranger's name
        (answer,) = first.result()
        assert answer.outcome is Outcome.TEMPFAIL
        assert server.count("n1.org") == 2  # once more, with more patience
        assert one(resolver, "example.org").outcome is Outcome.FOUND


def test_ipv6_nameservers_are_asked() -> None:
    with NameServer(ROWS, host="::1") as server, Resolver(configured([server.text])) as resolver:
        assert one(resolver, "example.org", "TXT") == found(b"v=spf1 -all")
        assert one(resolver, "long.example.org", "TXT") == found(b"x" * 5000)


def test_the_thread_can_be_started_before_the_first_question() -> None:
    with NameServer(ROWS) as server, Resolver(configured([server.text])) as resolver:
        for _ in range(2):
            resolver.start()
        assert [thread.name for thread in threading.enumerate()].count("dns") == 1
        assert one(resolver, "example.org") == found(ip_address("192.0.2.1"))
    resolver.start()
    with Resolver(()) as nobody:
        nobody.start()
        assert "dns" not in [thread.name for thread in threading.enumerate()]


def test_the_statistics_tell_what_happened() -> None:
    ended: list[tuple[str, str, str]] = []
    watch = lambda server, over, outcome, _seconds: ended.append((server, over, outcome))  # noqa: E731  # one line
    with NameServer(ROWS) as server, Resolver(configured([server.text]), watch=watch) as resolver:
        assert resolver.state.nameservers == {}
        for _ in range(3):
            one(resolver, "example.org")
        one(resolver, "long.example.org", "TXT")
        one(resolver, "a..b")
        expected = Statistics(watch, local=1, hits=2, misses=2, queries=2, streams=1)
        assert replace(resolver.statistics, troubles=expected.troubles) == expected
        assert resolver.state.nameservers == {server.text: True}
    assert ended == [(server.text, "udp", "found"), (server.text, "udp", "truncated"), (server.text, "tcp", "found")]


class TestRandomCase:
    NAME = "a-name-of-many-letters.example.org"

    def test_an_answer_that_repeats_the_case_is_taken(self) -> None:
        with (
            NameServer({self.NAME: [["A", "192.0.2.1"]]}) as server,
            Resolver(configured([server.text]), random_case=True) as resolver,
        ):
            assert one(resolver, self.NAME) == found(ip_address("192.0.2.1"))
            assert resolver.statistics.streams == 0

    def test_one_that_does_not_is_asked_for_over_tcp(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(wire, "repeats", lambda *_: False)
        with (
            NameServer({self.NAME: [["A", "192.0.2.1"]]}) as server,
            Resolver(configured([server.text]), random_case=True) as resolver,
        ):
            assert one(resolver, self.NAME) == found(ip_address("192.0.2.1"))
            assert resolver.statistics.streams == 1
