# SPDX-License-Identifier: GPL-3.0-or-later
"""How long answers are kept, and how many."""

from __future__ import annotations

from ipaddress import IPv4Address
from threading import Thread

import pytest

from assay.inquiry import Answer, Outcome, Record
from assay.resolver import AnswerCache
from assay.resolver.cache import MAX_NEGATIVE_TTL, MAX_TEMPFAIL_TTL, MAX_TTL, MIN_TTL

HERE: tuple[Record, ...] = (IPv4Address("192.0.2.1"),)


class Clock:
    """Seconds that pass when told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


LIVES = {
    "a TTL is honoured": (Outcome.FOUND, 300, 300),
    "a TTL of 0 holds for the message at hand": (Outcome.FOUND, 0, MIN_TTL),
    "a TTL of years is cut": (Outcome.FOUND, 2**31 - 1, MAX_TTL),
    "NODATA lives for the SOA's minimum": (Outcome.NODATA, 60, 60),
    "NXDOMAIN lives for the SOA's minimum": (Outcome.NXDOMAIN, 60, 60),
    "a negative answer is cut": (Outcome.NXDOMAIN, 86400, MAX_NEGATIVE_TTL),
    "a negative answer has a floor": (Outcome.NODATA, 1, MIN_TTL),
    "a failure lives for as long as it says": (Outcome.TEMPFAIL, 7, 7),
    "a failure lives for minutes at most": (Outcome.TEMPFAIL, 7_000, MAX_TEMPFAIL_TTL),
}


@pytest.mark.parametrize(("outcome", "ttl", "life"), LIVES.values(), ids=LIVES)
def test_an_answer_lives_between_floor_and_ceiling(outcome: Outcome, ttl: int, life: int) -> None:
    clock = Clock()
    cache = AnswerCache(clock=clock)
    put = cache.put("example.org/A", Answer(outcome, HERE, ttl=ttl, reason="why"))
    assert put == Answer(outcome, HERE, ttl=life, reason="why")
    clock.now += life - 0.5
    assert cache.get("example.org/A") == put
    clock.now += 0.5
    assert cache.get("example.org/A") is None


def test_an_answer_is_one_object_until_it_expires() -> None:
    """So that comparing it with an earlier one takes no time (`assay.memory`)."""
    clock = Clock()
    cache = AnswerCache(clock=clock)
    answer = cache.put("a", Answer(Outcome.FOUND, HERE, secure=True, ttl=100))
    for passed in (0, 1, 50, 99.5):
        clock.now = 1000.0 + passed
        assert cache.get("a") is answer


def test_the_least_recently_used_answers_go_first() -> None:
    cache = AnswerCache(size=100, clock=Clock())
    for number in range(1000):
        cache.put(f"{number}", Answer(Outcome.FOUND, (), ttl=100))
        assert cache.get("0") is not None, number
        assert len(cache) <= 2 * 100  # they are smaller than usual
    assert all(cache.get(f"{number}") is not None for number in reversed(range(951, 1000)))


def test_a_cache_holds_as_many_usual_answers_as_it_is_made_for() -> None:
    cache = AnswerCache(size=1000, clock=Clock())
    most = 0
    for number in range(5000):
        text = f"v=spf1 include:_spf{number}.example.org ip4:192.0.2.0/24 -all".encode()
        cache.put(f"mail{number}.some-domain.example/TXT", Answer(Outcome.FOUND, (text,), ttl=100))
        most = max(most, len(cache))
    assert 1000 <= most <= 1300


def test_long_texts_weigh_more() -> None:
    cache = AnswerCache(size=1000, clock=Clock())
    for number in range(500):
        cache.put(f"{number}", Answer(Outcome.FOUND, (b"x" * 60_000,), ttl=100))
    assert len(cache) <= 10


@pytest.mark.parametrize("outcome", [Outcome.NODATA, Outcome.NXDOMAIN])
def test_a_negative_answer_without_an_soa_is_not_kept(outcome: Outcome) -> None:
    cache = AnswerCache(clock=Clock())
    answer = Answer(outcome)
    assert cache.put("a", answer) == answer
    assert cache.get("a") is None


def test_what_is_dropped_is_gone() -> None:
    cache = AnswerCache(size=4, clock=Clock())
    for number in range(3):
        cache.put(f"{number}", Answer(Outcome.FOUND, ttl=100))
    for number in range(3):
        cache.drop(f"{number}")
        assert cache.get(f"{number}") is None
    cache.drop("nothing")
    assert len(cache) == 0


def test_threads_may_read_and_write_at_once() -> None:
    cache = AnswerCache(size=64)
    wrong: list[object] = []

    def work(mine: int) -> None:
        for number in range(3000):
            key = str((number * mine) % 200)
            answer = cache.get(key)
            if answer is None:
                cache.put(key, Answer(Outcome.FOUND, (key.encode(),), ttl=100))
            elif answer.texts != (key.encode(),):
                wrong.append((key, answer))

    threads = [Thread(target=work, args=(mine,)) for mine in range(1, 9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert len(cache) <= 2 * 64
