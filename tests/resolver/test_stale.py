# SPDX-License-Identifier: GPL-3.0-or-later
"""An expired answer stands in for one that cannot be had, and for nothing else (RFC 8767). ``scripts/stale-*`` have the
times."""

from __future__ import annotations

import time
from collections.abc import Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from assay.inquiry import Answer, Eager, Inquiry, Outcome, Question, RecordType
from assay.memory import Memory
from assay.resolver import AnswerCache, LocalZone, Resolver, configured
from assay.resolver.cache import MIN_TTL, STALE_TTL
from assay.resolver.running import SPENT
from certificates import CertificateAuthority
from nameserver import NameServer
from unbound import MISSING, PROGRAM, Unbound

NAME, NONE, NEW = "known.example", "none.example", "new.example"
HERE, THERE = ip_address("192.0.2.1"), ip_address("192.0.2.2")
ROWS: Mapping[str, Any] = {NAME: [["A", str(HERE)]]}
CHANGED: Mapping[str, Any] = {NAME: [["A", str(THERE)]], NONE: [["A", str(THERE)]]}
TTL = 300
DAY = 86_400.0
OLD = Answer(Outcome.FOUND, (HERE,), ttl=STALE_TTL, stale=True)


class Clock:
    """The time, which may jump."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self.ahead


class World:
    """A resolver that has asked for both names once, and whose answers have expired."""

    def __init__(
        self, *servers: str, stale_seconds: float = DAY, expired: float = TTL, size: int = 100, **options: Any
    ) -> None:
        self.clock = Clock()
        self.cache = AnswerCache(size, self.clock, stale_seconds)
        self.resolver = Resolver(
            configured(servers), cache=self.cache, patience=0.3, clock=self.clock, trust_ad=True, **options
        )
        assert self.ask(NAME).outcome is Outcome.FOUND
        assert self.ask(NONE).outcome is Outcome.NXDOMAIN
        self.clock.ahead += expired

    def __enter__(self) -> World:
        return self

    def __exit__(self, *_: object) -> None:
        self.resolver.close()

    def ask(self, name: str, budget: float = 20.0) -> Answer:
        return self.resolver.driver(budget).start(ask(name)).result()


def ask(name: str) -> Inquiry[Answer]:
    (answer,) = yield [Question(name, RecordType.A)]
    return answer


FAULTS: Mapping[str, dict[str, Any]] = {
    "silent": {"drop": True},
    "no such message": {"garbage": True},
    "SERVFAIL": {"rcodes": dict.fromkeys((NAME, NONE, NEW), "SERVFAIL")},
    "REFUSED": {"rcodes": dict.fromkeys((NAME, NONE, NEW), "REFUSED")},
    "another RCODE": {"rcodes": dict.fromkeys((NAME, NONE, NEW), "NOTAUTH")},
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_while_a_server_fails_its_old_answers_stand_in(fault: dict[str, Any]) -> None:
    with NameServer(ROWS, secure=True) as server, World(server.text) as world:
        for option, value in fault.items():
            setattr(server, option, value)
        budget = 0.5  # of which the lookup of a server that fails whatever it is asked takes more
        assert world.ask(NAME, budget) == OLD, "what was secure is so no longer"
        assert world.ask(NONE, budget) == Answer(Outcome.NXDOMAIN, ttl=STALE_TTL, stale=True)
        assert world.ask(NEW, budget).outcome is Outcome.TEMPFAIL
        assert world.resolver.statistics.stale >= 2


def test_servers_that_are_gone_have_old_answers_too() -> None:
    with NameServer(ROWS) as server:
        world = World(server.text)
    with world:
        assert world.ask(NAME) == OLD
        assert world.ask(NAME) is world.ask(NAME), "so that comparing it with an earlier one takes no time"


@pytest.mark.parametrize("stale_seconds", [0.0, 60.0], ids=["not allowed", "too old"])
def test_without_leave_no_old_answer_is_used(stale_seconds: float) -> None:
    with NameServer(ROWS) as server, World(server.text, stale_seconds=stale_seconds, expired=TTL + 61) as world:
        server.rcodes = {NAME: "SERVFAIL"}
        assert world.ask(NAME).outcome is Outcome.TEMPFAIL
        server.drop = True
        world.clock.ahead += 100
        assert world.ask(NAME, 0.2) == SPENT
        assert world.resolver.statistics.stale == 0


def test_a_fresh_answer_is_asked_for_and_counts() -> None:
    with NameServer(ROWS) as server, World(server.text) as world:
        server.serve(CHANGED)
        assert world.ask(NAME).records == (THERE,)
        assert world.ask(NONE).records == (THERE,)
        assert world.resolver.statistics.stale == 0


FRESH: Mapping[str, tuple[Mapping[str, Any], dict[str, Any]]] = {
    "NXDOMAIN": ({}, {}),
    "NXDOMAIN that must not be kept": ({}, {"soa_minimum": None}),
    "no such record": ({NAME: [["TXT", ["x"]]]}, {}),
    "no such record, which must not be kept": ({NAME: [["TXT", ["x"]]]}, {"soa_minimum": None}),
    "an answer of no use": ({NAME: [["CNAME", NONE]], NONE: [["CNAME", NAME]]}, {"half_chains": True}),
    "more records than are read": (
        {NAME: [["A", f"198.51.{100 + number // 256}.{number % 256}"] for number in range(300)]},
        {},
    ),
    "an answer beyond what is kept": ({NAME: [["A", f"198.51.100.{number}"] for number in range(250)]}, {}),
}


@pytest.mark.parametrize(("rows", "options"), FRESH.values(), ids=FRESH)
def test_what_a_server_has_answered_ends_the_old_answer(rows: Any, options: dict[str, Any]) -> None:
    with NameServer(ROWS) as server, World(server.text, size=20) as world:
        server.serve(rows)
        for option, value in options.items():
            setattr(server, option, value)
        assert world.ask(NAME).stale is False
        server.drop = True
        world.clock.ahead += DAY / 2
        assert HERE not in world.ask(NAME, 0.2).records


def test_an_answer_for_the_moment_never_stands_in() -> None:
    """RFC 8767, 7."""
    with NameServer(ROWS, ttl=0) as server, World(server.text, expired=MIN_TTL) as world:
        server.rcodes = {NAME: "SERVFAIL"}
        assert world.ask(NAME).outcome is Outcome.TEMPFAIL


def test_where_no_time_is_left_old_answers_stand_in_for_those_that_did_not_come() -> None:
    """The lookup goes on, and its answer is kept."""

    def both() -> Inquiry[list[Answer]]:
        answers = yield [Question(name, RecordType.A) for name in (NAME, NEW)]
        (last,) = yield Eager([Question(NONE, RecordType.A)])
        return [*answers, last]

    with NameServer(ROWS) as server, World(server.text) as world:
        server.serve(CHANGED)
        server.delay = 0.25
        found = world.resolver.driver(0.1).start(both()).result()
        assert found == [OLD, SPENT, Answer(Outcome.NXDOMAIN, ttl=STALE_TTL, stale=True)]
        assert (world.resolver.statistics.stale, world.resolver.statistics.spent) == (2, 1)
        assert world.ask(NAME).records == (THERE,)
        assert server.count(NAME) == 2, "it joined the query in flight"


def test_a_local_zone_leads_to_the_old_answer() -> None:
    zone = LocalZone(f"alias.example. CNAME {NAME}.\n")
    with NameServer(ROWS) as server, World(server.text, zone=zone) as world:
        server.drop = True
        assert world.ask("ALIAS.example", 0.2) == OLD


def test_the_bound_of_the_cache_holds_for_old_answers() -> None:
    clock = Clock()
    cache = AnswerCache(20, clock, DAY)
    for number in range(1000):
        cache.put(f"{number}", Answer(Outcome.FOUND, (b"x" * 200,), ttl=TTL))
        clock.ahead += TTL
        for other in range(max(0, number - 30), number + 1):
            cache.stand_in(f"{other}")
    assert len(cache) <= 40
    cache.clear()
    assert cache._weight == 0


def test_an_evaluation_from_old_answers_is_made_again() -> None:
    made: list[bool] = []

    def evaluate() -> Inquiry[bool]:
        answer = yield from ask(NAME)
        made.append(answer.stale)
        return answer.stale

    memory = Memory()
    with NameServer(ROWS) as server, World(server.text) as world:

        def judge() -> bool:
            return world.resolver.driver(20.0).start(memory.again("key", evaluate)).result()

        server.rcodes = {NAME: "SERVFAIL"}
        assert [judge(), judge()] == [True, True]
        server.rcodes = {}
        world.clock.ahead += STALE_TTL
        assert [judge(), judge()] == [False, False]
        assert made == [True, False]


@pytest.mark.skipif(not PROGRAM.exists(), reason=MISSING)
def test_a_real_resolver_fails_and_comes_back_with_another_answer(tmp_path: Path) -> None:
    pair = CertificateAuthority(tmp_path).issue(["localhost"])
    with (
        NameServer(ROWS) as upstream,
        Unbound(tmp_path, upstream, pair) as unbound,
        World(f"127.0.0.1:{unbound.plain}") as world,
    ):
        unbound.stop()
        assert world.ask(NAME) == OLD
        upstream.rcodes = dict.fromkeys((NAME, NONE), "SERVFAIL")
        unbound.start()
        world.clock.ahead += STALE_TTL
        assert world.ask(NAME) == OLD
        unbound.stop()
        upstream.rcodes = {}
        upstream.serve(CHANGED)
        unbound.start()
        world.clock.ahead += STALE_TTL
        assert world.ask(NAME).records == (THERE,)
        assert world.ask(NONE).records == (THERE,)
