# SPDX-License-Identifier: GPL-3.0-or-later
"""Inquiries in flight: budget, cancelling, evaluators with bugs, observers, closing."""

from __future__ import annotations

import threading
import time
from concurrent.futures import CancelledError
from typing import Any

import pytest

from assay.inquiry import Answer, Inquiry, Outcome, Question, RecordType
from assay.resolver import Allowance, LocalZone, Resolver, configured
from nameserver import NameServer

ROWS = {"example.org": [["A", "192.0.2.1"]], "example.net": [["A", "192.0.2.2"]]}
SPENT = Answer(Outcome.TEMPFAIL, reason="time budget spent")


def walk(*names: str) -> Inquiry[list[Answer]]:
    """An evaluator that asks for one name after the other."""
    answers = []
    for name in names:
        answers += yield [Question(name, RecordType.A)]
    return answers


def batch(*names: str) -> Inquiry[list[Answer]]:
    """An evaluator that asks for all names at once."""
    answers = yield [Question(name, RecordType.A) for name in names]
    return list(answers)


def outcomes(answers: list[Answer]) -> str:
    """The outcomes of answers in short."""
    return " ".join(answer.outcome.value for answer in answers)


def test_an_inquiry_without_questions_is_answered() -> None:
    with Resolver(configured(["none"])) as resolver:
        assert resolver.driver(1).start(walk()).result() == []
        assert resolver.driver(1).start(batch()).result() == []


def test_what_the_cache_knows_starts_no_thread_and_needs_no_time() -> None:
    with Resolver(configured(["127.0.0.1:9"]), zone=LocalZone("a A 192.0.2.1\nb A 192.0.2.2")) as resolver:
        before = threading.active_count()
        assert outcomes(resolver.driver(0).start(walk("a", "b", "a")).result()) == "found found found"
        assert threading.active_count() == before


def test_an_inquiry_goes_on_from_answer_to_answer() -> None:
    with NameServer(ROWS) as server, Resolver(configured([server.text])) as resolver:
        pending = resolver.driver(10).start(walk("example.org", "x.org", "example.org", "example.net", "y.org"))
        assert outcomes(pending.result()) == "found nxdomain found found nxdomain"
        assert outcomes(pending.result()) == "found nxdomain found found nxdomain"  # may be asked again
        assert server.count() == 4


def test_result_comes_within_the_budget() -> None:
    with NameServer(ROWS, drop=True) as server, Resolver(configured([server.text])) as resolver:
        begun = time.monotonic()
        driver = resolver.driver(0.3)
        assert driver.start(walk("example.org", "example.net", "a..b")).result() == [
            SPENT,
            SPENT,
            Answer(Outcome.NXDOMAIN, reason="the DNS cannot carry this name"),
        ]
        assert 0.25 < time.monotonic() - begun < 0.9
        begun = time.monotonic()
        assert driver.start(walk("further.org", "example.org")).result() == [SPENT, SPENT]
        assert time.monotonic() - begun < 0.25
        assert server.count() == 1
        assert resolver.statistics.spent == 4


def test_an_allowance_bounds_what_several_drivers_make_their_caller_wait() -> None:
    with NameServer(ROWS, drop=True) as server, Resolver(configured([server.text])) as resolver:
        allowance = Allowance(0.6)
        allowance.allow(0.5)
        pending = [resolver.driver(60, allowance=allowance).start(walk(f"{number}.org")) for number in range(3)]
        time.sleep(0.4)  # nobody waits
        begun = time.monotonic()
        assert [each.result() for each in pending] == [[SPENT]] * 3
        assert 0.25 < time.monotonic() - begun < 0.55
        allowance.allow(1.0)
        begun = time.monotonic()
        assert resolver.driver(60, allowance=allowance).start(walk("3.org")).result() == [SPENT]
        assert 0.2 < time.monotonic() - begun < 0.55
        allowance.renew()
        begun = time.monotonic()
        assert resolver.driver(60, allowance=allowance).start(walk("4.org", "5.org")).result() == [SPENT] * 2
        assert 0.5 < time.monotonic() - begun < 0.9


def test_the_answers_that_came_in_time_are_kept() -> None:
    with NameServer(ROWS, drop={"slow.org"}) as server, Resolver(configured([server.text])) as resolver:
        pending = resolver.driver(0.3).start(batch("example.org", "slow.org", "x.org"))
        assert outcomes(pending.result()) == "found tempfail nxdomain"


def test_one_budget_serves_all_inquiries_of_a_message() -> None:
    with NameServer(ROWS, drop=True) as server, Resolver(configured([server.text])) as resolver:
        begun = time.monotonic()
        driver = resolver.driver(0.4)
        pendings = [driver.start(walk(f"n{number}.org", "m.org")) for number in range(5)]
        assert [pending.result() for pending in pendings] == [[SPENT, SPENT]] * 5
        assert time.monotonic() - begun < 1.2
        assert driver.remaining <= 0


def test_a_slow_client_spends_nothing_of_the_budget() -> None:
    with NameServer(ROWS, delay=0.05) as server, Resolver(configured([server.text])) as resolver:
        driver = resolver.driver(0.5)
        assert outcomes(driver.start(walk("example.org")).result()) == "found"
        time.sleep(0.6)
        assert outcomes(driver.start(walk("example.net")).result()) == "found"
        assert 0 < driver.remaining < 0.41


def test_a_budget_spent_in_the_background_is_spent() -> None:
    with NameServer(ROWS, drop=True) as server, Resolver(configured([server.text])) as resolver:
        pending = resolver.driver(0.4).start(walk("example.org", "example.net"))
        time.sleep(0.5)
        begun = time.monotonic()
        assert pending.result() == [SPENT, SPENT]
        assert time.monotonic() - begun < 0.25


def test_other_messages_do_not_suffer_from_a_spent_budget() -> None:
    with NameServer(ROWS, delay=0.3) as server, Resolver(configured([server.text])) as resolver:
        patient = resolver.driver(5).start(walk("example.org"))
        hasty = resolver.driver(0.1).start(walk("example.org"))
        assert hasty.result() == [SPENT]
        assert outcomes(patient.result()) == "found"
        assert outcomes(resolver.driver(0).start(walk("example.org")).result()) == "found"  # cached by then
        assert server.count() == 1


class BugError(Exception):
    """An evaluator's bug."""


def buggy(*names: str) -> Inquiry[None]:
    """An evaluator that fails after its questions."""
    for name in names:
        yield [Question(name, RecordType.A)]
    raise BugError


def unstable() -> Inquiry[None]:
    """An evaluator that fails only when its time is spent."""
    (answer,) = yield [Question("silent.org", RecordType.A)]
    if answer.outcome is Outcome.TEMPFAIL:
        raise BugError


BUGS: dict[str, tuple[Any, float]] = {
    "before the first question": (lambda: buggy(), 5.0),
    "inline": (lambda: buggy("a..b"), 5.0),
    "in the loop's thread": (lambda: buggy("example.org", "x.org"), 5.0),
    "when the budget is spent": (unstable, 0.1),
}


@pytest.mark.parametrize(("make", "budget"), BUGS.values(), ids=BUGS)
def test_an_evaluators_exception_surfaces_in_result_and_harms_nobody_else(make: Any, budget: float) -> None:
    with NameServer(ROWS, drop={"silent.org"}) as server, Resolver(configured([server.text])) as resolver:
        other = resolver.driver(5).start(walk("example.org", "x.org"))
        pending = resolver.driver(budget).start(make())
        for _ in range(2):
            with pytest.raises(BugError):
                pending.result()
        assert outcomes(other.result()) == "found nxdomain"
        assert outcomes(resolver.driver(5).start(walk("example.net", "y.org")).result()) == "found nxdomain"


def test_cancel_closes_the_evaluator() -> None:
    closed = threading.Event()

    def evaluator() -> Inquiry[None]:
        try:
            yield [Question("example.org", RecordType.A)]
        finally:
            closed.set()

    with NameServer(ROWS, delay=0.2) as server, Resolver(configured([server.text])) as resolver:
        driver = resolver.driver(5)
        pending = driver.start(evaluator())
        pending.cancel()
        assert closed.is_set()
        pending.cancel()
        with pytest.raises(CancelledError):
            pending.result()
        # The lookup goes on, for the cache and for all that join it.
        assert outcomes(driver.start(walk("example.org")).result()) == "found"
        assert server.count() == 1


def test_cancel_after_the_end_keeps_the_result() -> None:
    with NameServer(ROWS) as server, Resolver(configured([server.text])) as resolver:
        for _ in range(2):  # from the DNS, then inline
            pending = resolver.driver(5).start(walk("example.org"))
            assert outcomes(pending.result()) == "found"
            pending.cancel()
            assert outcomes(pending.result()) == "found"


def test_the_observer_gets_every_question_and_answer() -> None:
    told: list[tuple[str, str, bool]] = []

    def observer(question: Question, answer: Answer, seconds: float) -> None:
        told.append((question.name, answer.outcome.value, seconds >= 0.1))

    zone = LocalZone("local.org A 192.0.2.9")
    with (
        NameServer(ROWS, delay=0.1, drop={"slow.org"}) as server,
        Resolver(configured([server.text]), zone=zone) as resolver,
    ):
        names = ("local.org", "example.org", "example.org", "a..b", "slow.org", "late.org")
        resolver.driver(0.5, observer).start(walk(*names)).result()
    assert told == [
        ("local.org", "found", False),
        ("example.org", "found", True),
        ("example.org", "found", False),
        ("a..b", "nxdomain", False),
        ("slow.org", "tempfail", True),
        ("late.org", "tempfail", False),
    ]


def test_an_observer_with_a_bug_harms_only_its_own_inquiry() -> None:
    def observer(*_: object) -> None:
        raise BugError

    with NameServer(ROWS, delay=0.1) as server, Resolver(configured([server.text])) as resolver:
        pending = resolver.driver(5, observer).start(walk("example.org"))
        other = resolver.driver(5).start(walk("example.org"))
        with pytest.raises(BugError):
            pending.result()
        assert outcomes(other.result()) == "found"


def test_close_answers_all_that_wait() -> None:
    with NameServer(ROWS, drop=True) as server:
        resolver = Resolver(configured([server.text]))
        pending = resolver.driver(20).start(walk("example.org", "x.org"))
        begun = time.monotonic()
        closing = threading.Timer(0.1, resolver.close)
        closing.start()
        assert [answer.reason for answer in pending.result()] == ["resolver closed"] * 2
        late = resolver.driver(20).start(walk("y.org")).result()
        assert [answer.reason for answer in late] == ["resolver closed"]
        assert time.monotonic() - begun < 2
        resolver.close()
        closing.join()  # it may still be waiting for the loop's thread
    assert "dns" not in [thread.name for thread in threading.enumerate()]


def test_close_during_an_exchange_over_tcp_leaves_nothing_open() -> None:
    with NameServer(ROWS, truncate=True, delay=0.5) as server:
        resolver = Resolver(configured([server.text]))
        pending = resolver.driver(20).start(walk("example.org"))
        time.sleep(0.75)  # the answer over UDP has come, the one over TCP has not
        resolver.close()
        assert [answer.reason for answer in pending.result()] == ["resolver closed"]
        assert server.streams == 1


def test_a_resolver_that_was_never_asked_closes() -> None:
    resolver = Resolver(configured(["127.0.0.1"]))
    resolver.close()
    resolver.close()


def test_many_messages_at_once_all_end() -> None:
    """Drivers in many threads, with shared and own names, some cancelled, some out of time."""
    results: list[str] = []

    def work(resolver: Resolver, number: int) -> None:
        for turn in range(20):
            driver = resolver.driver(0.02 if turn % 5 == 4 else 10)
            pendings = [driver.start(walk(f"n{number % 7}-{turn}.org", "example.org", f"own{number}-{turn}.org"))]
            pendings.append(driver.start(batch("example.org", f"n{turn}.org", "example.net")))
            if turn % 3 == 2:
                pendings.pop().cancel()
            results.extend(outcomes(pending.result()) for pending in pendings)

    with NameServer(ROWS, delay=0.005) as server, Resolver(configured([server.text])) as resolver:
        threads = [threading.Thread(target=work, args=(resolver, number)) for number in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
            assert not thread.is_alive()
    assert len(results) == 20 * (20 + 14)
    assert results.count("nxdomain found nxdomain") >= 20 * 16
