# SPDX-License-Identifier: GPL-3.0-or-later
"""Places and turns, without a nameserver."""

from __future__ import annotations

import random
from ipaddress import ip_address

from assay.inquiry import Asker, Urgency
from assay.resolver.share import Place, Pool


def fill(pool: Pool[str], *askers: Asker) -> dict[Asker, int]:
    """Have each of them take in turn what it can; how many places each has then."""
    held = dict.fromkeys(askers, 0)
    while True:
        before = sum(held.values())
        for asker in askers:
            held[asker] += pool.take(asker) is not None
        if sum(held.values()) == before:
            return held


def clients(count: int) -> list[Asker]:
    return [Asker(ip_address(0x0A000000 + number)) for number in range(count)]


def test_no_asker_holds_more_than_it_leaves_to_others() -> None:
    one, another = Asker(ip_address("192.0.2.1")), Asker(ip_address("192.0.2.2"))
    same_client = Asker(ip_address("192.0.2.1"))
    pool: Pool[str] = Pool(600, 600)
    assert fill(pool, one) == {one: 200}
    assert fill(pool, same_client) == {same_client: 67}
    assert fill(pool, another) == {another: 111}


def test_a_newcomer_finds_a_place_beside_a_hundred_clients() -> None:
    pool: Pool[str] = Pool(700, 700)
    held = fill(pool, *clients(100))
    assert set(held.values()) <= {6, 7}
    assert fill(pool, newcomer := Asker(ip_address("192.0.2.1")))[newcomer] >= 3


def test_the_networks_of_one_site_share() -> None:
    pool: Pool[str] = Pool(700, 700)
    site = [Asker(ip_address(f"2001:db8:1:{number:x}::{number:x}")) for number in range(100)]
    assert sum(fill(pool, *site).values()) <= 350
    assert fill(pool, newcomer := Asker(ip_address("2001:db8:2::1")))[newcomer] >= 80


def test_one_network_of_a_site_leaves_places_to_another() -> None:
    pool: Pool[str] = Pool(700, 700)
    fill(pool, *(Asker(ip_address(f"2001:db8:1:1::{number:x}")) for number in range(1, 100)))
    assert fill(pool, newcomer := Asker(ip_address("2001:db8:1:2::1")))[newcomer] >= 40


def drain(pool: Pool[str]) -> list[str]:
    """Serve whose turn it is until nobody is served any more."""
    served = []
    while (item := pool.next()) is not None:
        served.append(item)
        asker = ASKERS[item[0]]
        pool.leave(asker, item)
        assert pool.take(asker) is not None
    return served


ASKERS = dict(zip("abc", clients(3), strict=True))


def test_who_holds_least_is_served_first_and_then_in_turn() -> None:
    pool: Pool[str] = Pool(20, 20)
    held = [pool.take(ASKERS["a"]) for _ in range(2)]
    assert None not in held
    for item in ("a1", "a2", "b1", "b2", "b3", "c1"):
        assert pool.enter(ASKERS[item[0]], item, Urgency.EVIDENCE)
    assert drain(pool) == ["b1", "c1", "b2", "a1", "b3", "a2"]


def test_the_urgent_goes_first_and_may_become_so() -> None:
    pool: Pool[str] = Pool(30, 30)
    for item, urgency in (("a1", Urgency.AHEAD), ("a2", Urgency.EVIDENCE), ("a3", Urgency.AHEAD)):
        assert pool.enter(ASKERS["a"], item, urgency)
    assert pool.enter(ASKERS["a"], "a3", Urgency.VERDICT)
    assert pool.enter(ASKERS["a"], "a2", Urgency.AHEAD)
    assert pool.waiting == 3
    assert drain(pool) == ["a3", "a2", "a1"]
    assert pool.waiting == 0


def test_the_room_is_shared_like_the_places() -> None:
    pool: Pool[str] = Pool(0, 300)
    entered = sum(pool.enter(ASKERS["a"], f"a{number}", Urgency.EVIDENCE) for number in range(300))
    assert entered == 100
    assert pool.enter(ASKERS["b"], "b", Urgency.EVIDENCE)


def test_the_books_are_right_whatever_happens() -> None:
    """Against a plain list; and nothing is kept of who neither holds nor waits."""
    chance = random.Random(1)  # noqa: S311  # no secret
    pool: Pool[int] = Pool(50, 60)
    askers = [Asker(address.client) for address in clients(6) for _ in range(3)]
    askers += [Asker(ip_address(f"2001:db8:{n}:{m}::1")) for n in range(2) for m in range(3)]
    askers += [Asker(), Asker()]
    places: list[Place[int]] = []
    waiting: set[tuple[Asker, int]] = set()
    for number in range(20_000):
        asker = chance.choice(askers)
        match chance.randrange(4):
            case 0:
                if (place := pool.take(asker)) is not None:
                    assert place.asker is asker
                    places.append(place)
            case 1 if places:
                pool.release(places.pop(chance.randrange(len(places))))
            case 2:
                item = chance.randrange(20)
                if pool.enter(asker, item, chance.choice(list(Urgency))):
                    waiting.add((asker, item))
            case 3:
                turn = pool.next()
                if turn is not None:  # a turn without a place would come again at once, for ever
                    taken = next(filter(None, (pool.take(other) for other, item in waiting if item == turn)), None)
                    assert taken is not None
                    places.append(taken)
                item = number % 20 if turn is None else turn
                for other in askers:
                    pool.leave(other, item)
                    waiting.discard((other, item))
        assert pool.busy == len(places) <= 50
        assert pool.waiting == len(waiting) <= 60
    for place in places:
        pool.release(place)
    for asker, item in waiting:
        pool.leave(asker, item)
    assert (pool.busy, pool.waiting, pool._all.below, pool._all.turns) == (0, 0, {}, {})
