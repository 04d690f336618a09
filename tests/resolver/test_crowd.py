# SPDX-License-Identifier: GPL-3.0-or-later
"""A stranger whose names take long must not keep us from the records of others: without them DMARC ends in a temporary
error, and what should be refused gets in."""

from __future__ import annotations

import time
from ipaddress import ip_address
from typing import Any

import pytest

from assay.inquiry import Answer, Asker, Eager, Inquiry, Outcome, Question, RecordType, Urgency
from assay.model.smtp import Address
from assay.resolver import Resolver, configured
from assay.resolver.streams import Stream, Streams
from assay.resolver.transport import ExchangeFault
from assay.resolver.turns import HOLD, LINGER, PLACES, ROOM, SLOW_PLACES, STREAMS
from nameserver import NameServer

PATIENCE = 1.0  # each slow name holds a place for three times as long, in two rounds
BUDGET = 30.0
CROWD = 2 * (PLACES + SLOW_PLACES)
VICTIM = "_dmarc.bank.co.example"
ROWS = {VICTIM: [["TXT", ["v=DMARC1; p=reject"]]]}
STRANGER, OTHER = ip_address("192.0.2.7"), ip_address("192.0.2.66")


def ask(*names: str) -> Inquiry[list[Answer]]:
    answers = yield [Question(name, RecordType.TXT) for name in names]
    return list(answers)


def settle(resolver: Resolver, number: int = 0) -> None:
    """Wait until no more than so many lookups are on their way."""
    deadline = time.monotonic() + 20
    while resolver.flights > number:
        assert time.monotonic() < deadline, resolver.flights
        time.sleep(0.01)


NAMES = {
    "of one domain": "s{number}.evil.co.example",
    "of fifty domains": "s{number}.evil{fifty}.co.example",
    "below the victim": "s{number}._domainkey.bank.co.example",
}
ASKERS = {
    "in one message": [Asker(STRANGER)],
    "in a hundred messages": [Asker(STRANGER) for _ in range(100)],
    "from a hundred clients": [Asker(ip_address(f"10.0.0.{number}")) for number in range(100)],
    "from a /48": [Asker(ip_address(f"2001:db8:0:{number:x}::1")) for number in range(100)],
}


@pytest.mark.parametrize("askers", ASKERS.values(), ids=ASKERS)
@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
@pytest.mark.parametrize("client", [STRANGER, OTHER], ids=["the same client", "another client"])
def test_a_crowd_of_slow_names_holds_up_no_other_message(name: str, askers: list[Asker], client: Address) -> None:
    slow = [name.format(number=number, fifty=number % 50) for number in range(CROWD)]
    with NameServer(ROWS, drop=set(slow)) as server, Resolver(configured([server.text]), patience=PATIENCE) as resolver:
        driver = resolver.driver(BUDGET)
        crowd = [driver.start(ask(one), askers[number % len(askers)]) for number, one in enumerate(slow)]
        begun = time.monotonic()
        (answer,) = resolver.driver(5 * PATIENCE).start(ask(VICTIM), Asker(client), Urgency.VERDICT).result()
        took = time.monotonic() - begun
        for pending in crowd:
            pending.cancel()
    assert answer.outcome is Outcome.FOUND, answer.reason
    assert took < 3 * PATIENCE


def test_what_was_given_up_leaves_the_queue_at_once() -> None:
    with NameServer({}, drop=True) as server, Resolver(configured([server.text]), patience=5.0) as resolver:
        for message in range(100):
            driver, asker = resolver.driver(BUDGET), Asker(STRANGER)
            pending = driver.start(ask(*[f"s{number}.evil{message}.example" for number in range(50)]), asker)
            pending.cancel()
        settle(resolver, PLACES // 2)
        # What is in flight keeps its place, so that giving up buys no more than waiting does.
        assert server.count(kind="TXT") <= PLACES // 2 + 1


def test_nothing_is_left_of_what_was_given_up() -> None:
    with NameServer({}, drop=True) as server, Resolver(configured([server.text]), patience=0.3) as resolver:
        pendings = [
            resolver.driver(BUDGET).start(ask(*[f"s{n}.evil{message}.example" for n in range(50)]), Asker(STRANGER))
            for message in range(50)
        ]
        spent = [resolver.driver(0.01).start(ask(f"n{n}.example"), Asker(STRANGER)) for n in range(50)]
        for pending in spent:
            pending.result()
        for pending in pendings:
            pending.cancel()
        settle(resolver)


def test_a_lookup_lives_as_long_as_anyone_waits_for_it() -> None:
    with (
        NameServer(ROWS, delays={VICTIM: 0.5}) as server,
        Resolver(configured([server.text]), patience=2.0) as resolver,
    ):
        first = resolver.driver(BUDGET).start(ask(VICTIM), Asker(STRANGER))
        second = resolver.driver(BUDGET).start(ask(VICTIM), Asker(OTHER))
        first.cancel()
        (answer,) = second.result()
        assert answer.outcome is Outcome.FOUND
        assert server.count(VICTIM) == 1


def test_a_question_shared_with_a_crowd_has_its_own_askers_turn() -> None:
    """The stranger asks for the victim's record first, in the middle of what he may not ask yet."""
    slow = [f"s{number}.evil.example" for number in range(CROWD)]
    with NameServer(ROWS, drop=set(slow)) as server, Resolver(configured([server.text]), patience=20.0) as resolver:
        crowd = resolver.driver(BUDGET).start(ask(*slow, VICTIM), Asker(STRANGER), Urgency.AHEAD)
        time.sleep(1.5)  # nothing moves any more
        assert server.count(VICTIM) == 0
        begun = time.monotonic()
        (answer,) = resolver.driver(5.0).start(ask(VICTIM), Asker(OTHER)).result()
        assert answer.outcome is Outcome.FOUND
        assert time.monotonic() - begun < 1.0
        crowd.cancel()


def test_what_the_verdict_hangs_on_is_asked_first() -> None:
    slow = [f"s{number}.evil.example" for number in range(PLACES)]
    names = {level: f"{level.name.lower()}.example" for level in reversed(Urgency)}
    with NameServer({}, drop=set(slow)) as server, Resolver(configured([server.text]), patience=PATIENCE) as resolver:
        driver, asker = resolver.driver(BUDGET), Asker(STRANGER)
        crowd = driver.start(ask(*slow), asker, Urgency.EVIDENCE)
        pendings = [driver.start(ask(name), asker, level) for level, name in names.items()]
        for pending in pendings:
            pending.result()
        asked = [name for name, _ in server.asked]
        crowd.cancel()
    order = [asked.index(name) for name in ("verdict.example", slow[-1], "evidence.example", "ahead.example")]
    assert order == sorted(order)


def test_who_asks_for_more_than_there_is_room_is_refused() -> None:
    names = [f"s{number}.evil.example" for number in range(ROOM)]
    with NameServer(ROWS, drop=set(names)) as server, Resolver(configured([server.text]), patience=10.0) as resolver:
        pending = resolver.driver(4.0).start(ask(*names), Asker(STRANGER))
        reasons = [answer.reason for answer in pending.result()]
        assert reasons.count("too many questions at a time") > ROOM / 2
        assert reasons.count("time budget spent") > ROOM / 4
        assert resolver.statistics.refused == reasons.count("too many questions at a time")
        (answer,) = resolver.driver(5.0).start(ask(VICTIM), Asker(OTHER)).result()
        assert answer.outcome is Outcome.FOUND


def test_what_an_evaluator_no_longer_asks_leaves_the_queue_at_once() -> None:
    slow = [f"s{number}.evil.example" for number in range(CROWD)]

    def evaluate() -> Inquiry[None]:
        yield Eager([Question(name, RecordType.TXT) for name in (VICTIM, *slow[1:])])
        yield [Question(slow[0], RecordType.TXT)]

    with NameServer(ROWS, drop=set(slow)) as server, Resolver(configured([server.text]), patience=20.0) as resolver:
        pending = resolver.driver(BUDGET).start(evaluate(), Asker(STRANGER))
        deadline = time.monotonic() + 10
        while server.count(kind="TXT") < PLACES // 3:
            assert time.monotonic() < deadline, server.count(kind="TXT")
            time.sleep(0.01)
        settle(resolver, PLACES // 3 + SLOW_PLACES // 3 + 2)  # in flight, which keep their places
        pending.cancel()


def test_slow_domains_are_asked_apart() -> None:
    """A hundred clients, all of whose questions are slow and none of which is given up, leave places free."""
    slow = [f"s{number}._domainkey.evil.example" for number in range(CROWD)]
    askers = [Asker(ip_address(f"10.0.0.{number}")) for number in range(100)]
    with NameServer(ROWS, drop=set(slow)) as server, Resolver(configured([server.text]), patience=2.0) as resolver:
        driver = resolver.driver(BUDGET)
        first = driver.start(ask(slow[0]), askers[0])
        time.sleep(0.2)
        resolver.driver(5.0).start(ask(VICTIM), Asker(OTHER)).result()  # so the nameserver is alive, and it is the name
        time.sleep(0.8)
        crowd = [driver.start(ask(name), askers[number % 100]) for number, name in enumerate(slow[1:])]
        time.sleep(0.4)
        assert server.count(kind="TXT") <= SLOW_PLACES + 2
        for pending in (first, *crowd):
            pending.cancel()


def test_what_turns_out_slow_gives_its_place_to_the_next() -> None:
    slow = [f"s{number}.evil.example" for number in range(CROWD)]
    with NameServer({}, drop=set(slow)) as server, Resolver(configured([server.text]), patience=20.0) as resolver:
        pending = resolver.driver(BUDGET).start(ask(*slow), Asker(STRANGER))
        deadline = time.monotonic() + 5
        while server.count(kind="TXT") < PLACES // 3 + SLOW_PLACES // 3:
            assert time.monotonic() < deadline, server.count(kind="TXT")
            time.sleep(0.05)
        pending.cancel()


def test_a_silent_nameserver_makes_no_domain_slow() -> None:
    names = [f"s{number}._domainkey.honest.example" for number in range(PLACES)]
    with NameServer({}, drop=True) as server, Resolver(configured([server.text]), patience=20.0) as resolver:
        driver = resolver.driver(BUDGET)
        pendings = [driver.start(ask(names[0]), Asker(OTHER))]
        time.sleep(LINGER + 0.3)
        pendings.append(driver.start(ask(*names[1:]), Asker(OTHER)))
        deadline = time.monotonic() + 10
        while len(server.asked) <= SLOW_PLACES // 3 + 1:  # what one message can have among the slow ones
            assert time.monotonic() < deadline, len(server.asked)
            time.sleep(0.01)
        for pending in pendings:
            pending.cancel()


def test_a_domain_that_answers_in_time_again_is_slow_no_more() -> None:
    slow = [f"s{number}._domainkey.evil.example" for number in range(CROWD)]
    askers = [Asker(ip_address(f"10.0.0.{number}")) for number in range(100)]
    with NameServer(ROWS, drop=set(slow)) as server, Resolver(configured([server.text]), patience=20.0) as resolver:
        driver = resolver.driver(BUDGET)
        pendings = [driver.start(ask(slow[0]), askers[0])]
        time.sleep(0.2)
        driver.start(ask(VICTIM), Asker(OTHER)).result()
        time.sleep(0.8)
        driver.start(ask("evil.example"), Asker(OTHER)).result()
        pendings += [driver.start(ask(name), askers[number % 100]) for number, name in enumerate(slow[1:])]
        deadline = time.monotonic() + 5
        while server.count(kind="TXT") <= SLOW_PLACES + 10:
            assert time.monotonic() < deadline, server.count(kind="TXT")
            time.sleep(0.02)
        for pending in pendings:
            pending.cancel()


def test_connections_over_tcp_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    open_now, most = 0, 0
    ask_over_tcp = Streams.ask

    def counted(self: Streams, server: Any, asked: bytes, patience: float, done: Any, *more: Any) -> Stream:
        nonlocal open_now, most

        def ended(outcome: bytes | ExchangeFault) -> None:
            nonlocal open_now
            open_now -= 1
            done(outcome)

        open_now += 1
        most = max(most, open_now)
        return ask_over_tcp(self, server, asked, patience, ended, *more)

    monkeypatch.setattr(Streams, "ask", counted)
    names = [f"n{number}.example" for number in range(1000)]
    askers = [Asker(ip_address(f"10.0.0.{number}")) for number in range(100)]
    with (
        NameServer({}, truncate=True, delay=0.3) as server,
        Resolver(configured([server.text]), patience=20.0) as resolver,
    ):
        driver = resolver.driver(BUDGET)
        pendings = [driver.start(ask(name), askers[number % 100]) for number, name in enumerate(names)]
        assert {answer.outcome for pending in pendings for answer in pending.result()} == {Outcome.NXDOMAIN}
    assert STREAMS / 2 < most <= STREAMS


def test_one_client_can_have_only_so_many_long_answers_a_second() -> None:
    names = [f"n{number}.example" for number in range(1000)]
    with NameServer({}, truncate=True) as server, Resolver(configured([server.text]), patience=20.0) as resolver:
        crowd = resolver.driver(BUDGET).start(ask(*names), Asker(STRANGER))
        time.sleep(1.0)
        assert server.streams <= STREAMS / 2 * (1 / HOLD + 2)
        begun = time.monotonic()
        other = resolver.driver(BUDGET).start(ask("long.example"), Asker(OTHER))
        other.result()
        assert time.monotonic() - begun < 2 * HOLD, "a newcomer has its turn at once"
        crowd.cancel()


def test_the_operator_hears_who_asks_for_too_much() -> None:
    told: list[str] = []
    slow = [f"s{number}._domainkey.evil{number % 9}\n.dmarc=pass.example" for number in range(CROWD)]
    with (
        NameServer({}, drop=set(slow)) as server,
        Resolver(configured([server.text]), patience=PATIENCE, tell=told.append) as resolver,
    ):
        crowd = resolver.driver(BUDGET).start(ask(*slow), Asker(STRANGER))
        deadline = time.monotonic() + 15
        while not told:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        crowd.cancel()  # all that waited until now did so for long
        settle(resolver, PLACES)
        time.sleep(1.5)
    (line,) = told
    assert f"for mail from {STRANGER} (about evil" in line
    assert line.count("evil") == 5
    assert line.isprintable()
    assert "dmarc=pass" not in line
