# SPDX-License-Identifier: GPL-3.0-or-later
"""The life of a key: what is due in each state, at each time, for whatever the DNS shows, and why not."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from assay.keys.published import Sight
from assay.keys.rotation import (
    CLOCK_SLACK,
    DAY,
    Act,
    KeyRing,
    KeyState,
    KeyStep,
    KeyType,
    RefusedStepError,
    RingKey,
    Schedule,
    begin,
    check_selector,
    due,
    new_selector,
    retire,
    take,
)

NOW = 1_790_000_000
SCHEDULE = Schedule(rotate_after=180 * DAY, overlap=7 * DAY)
RSA, ED25519 = KeyType.RSA, KeyType.ED25519


def key(selector: str, state: str, age: int = 0, kind: KeyType = RSA, *, gone: bool = False) -> RingKey:
    return RingKey(selector, kind, KeyState(state), NOW - age, f"v=DKIM1; p={selector}", gone)


def ring(*keys: RingKey) -> KeyRing:
    return KeyRing("example.org", keys)


def acts(of: KeyRing, seen: dict[str, Sight], schedule: Schedule = SCHEDULE, now: int = NOW) -> list[str]:
    steps, _ = due(of, schedule, seen, now)
    return [f"{step.act} {step.selector}".strip() for step in steps]


def waits(of: KeyRing, seen: dict[str, Sight], schedule: Schedule = SCHEDULE) -> dict[str, tuple[str, int]]:
    _, waiting = due(of, schedule, seen, NOW)
    return {one.selector: (one.why, one.until) for one in waiting}


def test_a_domain_without_a_key_gets_one_of_each_type() -> None:
    assert acts(ring(), {}) == ["create"]
    steps, _ = due(ring(), Schedule((RSA, ED25519)), {}, NOW)
    assert [(step.act, step.type) for step in steps] == [(Act.CREATE, RSA), (Act.CREATE, ED25519)]


@pytest.mark.parametrize("seen", [Sight.NOWHERE, Sight.PARTLY, Sight.UNKNOWN])
def test_a_pending_key_does_not_sign_before_every_server_has_it(seen: Sight) -> None:
    of = ring(key("a", "active", 10 * DAY), key("b", "pending", 300 * DAY))
    assert acts(of, {"a": Sight.EVERYWHERE, "b": seen}) == ["publish b"]
    assert "does not sign" in waits(of, {"a": Sight.EVERYWHERE, "b": seen})["b"][0]


def test_a_key_of_which_nothing_is_known_does_not_sign() -> None:
    assert acts(ring(key("b", "pending")), {}) == ["publish b"]


def test_a_key_that_every_server_has_replaces_the_old_one_in_one_step() -> None:
    of = ring(key("a", "active", 10 * DAY), key("b", "pending"))
    steps, _ = due(of, SCHEDULE, {"a": Sight.EVERYWHERE, "b": Sight.EVERYWHERE}, NOW)
    assert [step.act for step in steps] == [Act.ACTIVATE]
    after = take(of, steps[0], NOW)
    assert [(one.selector, one.state, one.since) for one in after.keys] == [
        ("a", KeyState.RETIRING, NOW),
        ("b", KeyState.ACTIVE, NOW),
    ]


def test_the_series_of_types_do_not_disturb_each_other() -> None:
    of = ring(key("r", "active", DAY), key("e", "active", DAY, ED25519), key("e2", "pending", 0, ED25519))
    after = take(of, KeyStep(Act.ACTIVATE, ED25519, "e2"), NOW)
    assert [one.state for one in after.keys] == [KeyState.ACTIVE, KeyState.RETIRING, KeyState.ACTIVE]


@pytest.mark.parametrize(("age", "expected"), [(180 * DAY - 1, []), (180 * DAY, ["create"]), (900 * DAY, ["create"])])
def test_an_old_key_gets_a_successor(age: int, expected: list[str]) -> None:
    assert acts(ring(key("a", "active", age)), {"a": Sight.EVERYWHERE}) == expected


def test_an_old_key_with_a_successor_under_way_gets_no_further_one() -> None:
    of = ring(key("a", "active", 900 * DAY), key("b", "pending"))
    assert acts(of, {"a": Sight.EVERYWHERE, "b": Sight.NOWHERE}) == ["publish b"]
    assert waits(of, {"a": Sight.EVERYWHERE})["a"] == ("signs, until b is published", 0)


def test_no_key_is_replaced_if_the_operator_does_not_want_it() -> None:
    never = Schedule(rotate_after=0)
    assert acts(ring(key("a", "active", 9000 * DAY)), {"a": Sight.EVERYWHERE}, never) == []
    assert "only by hand" in waits(ring(key("a", "active")), {"a": Sight.EVERYWHERE}, never)["a"][0]


@pytest.mark.parametrize(("age", "expected"), [(7 * DAY - 1, []), (7 * DAY, ["retire a"]), (70 * DAY, ["retire a"])])
def test_a_retiring_key_stays_published_for_the_overlap(age: int, expected: list[str]) -> None:
    of = ring(key("a", "retiring", age), key("b", "active", age))
    assert acts(of, {"a": Sight.EVERYWHERE, "b": Sight.EVERYWHERE}) == expected
    if not expected:
        assert waits(of, {})["a"] == ("stays published: mail that it signed is still on its way", NOW + 1)


@pytest.mark.parametrize("state", ["active", "retiring"])
@pytest.mark.parametrize(("seen", "republish"), [("nowhere", True), ("partly", True), ("unknown", False)])
def test_a_record_that_mail_needs_and_that_is_missing_is_published_again(
    state: str, seen: str, republish: bool
) -> None:
    of = ring(key("a", state, DAY), key("b", "active", DAY))
    assert acts(of, {"a": Sight(seen), "b": Sight.EVERYWHERE}) == (["publish a"] if republish else [])


@pytest.mark.parametrize(
    ("seen", "expected"),
    [("everywhere", ["withdraw a"]), ("partly", ["withdraw a"]), ("nowhere", ["close a"]), ("unknown", [])],
)
def test_a_retired_key_says_that_its_record_is_still_there(seen: str, expected: list[str]) -> None:
    of = ring(key("a", "retired", DAY), key("b", "active", DAY))
    assert acts(of, {"a": Sight(seen), "b": Sight.EVERYWHERE}) == expected
    assert ("a" in waits(of, {"a": Sight(seen)})) is (seen == "unknown")


def test_nothing_is_due_for_a_key_whose_record_is_gone() -> None:
    of = ring(key("a", "retired", DAY, gone=True), key("b", "active", DAY))
    assert acts(of, {"b": Sight.EVERYWHERE}) == []


@pytest.mark.parametrize("state", ["pending", "active", "retiring", "retired"])
def test_a_state_in_the_future_counts_from_now(state: str) -> None:
    """The clock was wrong once: nothing may wait for years, and no overlap may be cut short."""
    of = ring(key("a", state, -400 * DAY), key("b", "active"))
    steps, _ = due(of, SCHEDULE, {"a": Sight.EVERYWHERE, "b": Sight.EVERYWHERE}, NOW)
    assert [step.act for step in steps] == [Act.RESET]
    assert "in the future" in steps[0].why
    after = take(of, steps[0], NOW)
    assert after.keys[0].since == NOW
    assert after.keys[0].state is KeyState(state)


def test_a_clock_that_is_put_right_by_seconds_is_not_reported() -> None:
    of = ring(key("a", "active", -CLOCK_SLACK))
    assert acts(of, {"a": Sight.EVERYWHERE}) == []


def test_a_step_is_taken_once() -> None:
    of = ring(key("a", "active", 10 * DAY), key("b", "pending"))
    for step, record in (
        (KeyStep(Act.CREATE, RSA, "c"), "v=DKIM1; p=c"),
        (KeyStep(Act.ACTIVATE, RSA, "b"), ""),
        (KeyStep(Act.RETIRE, RSA, "a"), ""),
        (KeyStep(Act.CLOSE, RSA, "a"), ""),
    ):
        of = take(of, step, NOW, record)
        assert take(of, step, NOW + DAY, record) == of


def test_the_operator_begins_a_rotation_once() -> None:
    of = ring(key("a", "active", DAY))
    assert begin(of, RSA).act is Act.CREATE
    with pytest.raises(RefusedStepError, match="b is already pending; publish its record, then run: assay keys rotate"):
        begin(ring(key("a", "active", DAY), key("b", "pending")), RSA)


class TestRetire:
    def test_the_last_key_is_kept(self) -> None:
        with pytest.raises(RefusedStepError, match="without a, no key that all verifiers know would sign"):
            retire(ring(key("a", "active"), key("e", "active", 0, ED25519)), "a", NOW)

    def test_one_of_two_may_go(self) -> None:
        after = retire(ring(key("a", "active"), key("e", "active", 9, ED25519)), "e", NOW)
        assert (after.keys[1].state, after.keys[1].since) == (KeyState.RETIRING, NOW)

    def test_a_stolen_key_goes_at_once(self) -> None:
        for state in ("pending", "active", "retiring"):
            assert retire(ring(key("a", state)), "a", NOW, at_once=True).keys[0].state is KeyState.RETIRED

    def test_a_key_that_never_signed_needs_no_overlap(self) -> None:
        assert retire(ring(key("a", "pending")), "a", NOW).keys[0].state is KeyState.RETIRED

    def test_a_retiring_key_waits(self) -> None:
        with pytest.raises(RefusedStepError, match=r"already retiring, until the overlap is over.*--at-once"):
            retire(ring(key("a", "retiring")), "a", NOW)

    def test_retiring_a_key_twice_changes_nothing(self) -> None:
        of = ring(key("a", "retired", DAY))
        assert retire(of, "a", NOW) == of

    def test_an_unknown_selector_names_the_known(self) -> None:
        with pytest.raises(RefusedStepError, match="no key with the selector c; known are a, b"):
            retire(ring(key("a", "active"), key("b", "active")), "c", NOW)


def test_selectors_are_never_used_twice() -> None:
    of = ring()
    seen = []
    for _ in range(60):
        selector = new_selector(of, RSA, NOW)
        assert check_selector(selector) == selector
        seen.append(selector)
        of = take(of, KeyStep(Act.CREATE, RSA, selector), NOW, "")
    assert len(set(seen)) == 60
    assert seen[:3] == ["r20260921", "r20260921b", "r20260921c"]
    assert new_selector(of, ED25519, NOW) == "e20260921"


@pytest.mark.parametrize("text", ["", "a b", "a..b", "-a", "a" * 64, "*", "a/b", "../a", "a\n", "a;b", "a\x00"])
def test_what_is_not_a_selector_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not a selector .* write one such as r2026"):
        check_selector(text)


@pytest.mark.parametrize(
    ("text", "read"), [("R2026", "r2026"), ("a.b", "a.b"), ("s_1", "s_1"), ("bücher", "xn--bcher-kva")]
)
def test_a_selector_is_labels_in_one_spelling(text: str, read: str) -> None:
    assert check_selector(text) == read


_KEYS = st.lists(
    st.tuples(
        st.sampled_from(KeyType),
        st.sampled_from(KeyState),
        st.integers(-400 * DAY, 400 * DAY),
        st.booleans(),
    ),
    max_size=5,
)


@settings(database=None, deadline=None)
@given(_KEYS, st.lists(st.sampled_from(Sight), min_size=5, max_size=5), st.integers(0, 10))
def test_any_ring_comes_to_rest_and_never_loses_its_signing_key(
    found: list[tuple[KeyType, KeyState, int, bool]], sights: list[Sight], later: int
) -> None:
    """A run ends, a key signs only if it was seen everywhere, and what signed is replaced, not lost."""
    of = ring(*(key(f"s{n}", state, age, kind, gone=gone) for n, (kind, state, age, gone) in enumerate(found)))
    seen = {f"s{n}": sight for n, sight in enumerate(sights)}
    schedule = Schedule((RSA, ED25519), 180 * DAY, 7 * DAY)
    now = NOW + later * DAY
    signed = {kind for kind in KeyType if of.of(kind, KeyState.ACTIVE)}
    done: set[tuple[Act, str]] = set()
    for _ in range(20):
        steps, waiting = due(of, schedule, seen, now)
        # Publishing and withdrawing change the DNS, not the ring, so they stay due until the servers show it.
        steps = tuple(step for step in steps if step.act not in (Act.PUBLISH, Act.WITHDRAW))
        if not steps:
            break
        for step in steps:
            if step.act is Act.CREATE:
                step = KeyStep(step.act, step.type, new_selector(of, step.type, now))
            assert (step.act, step.selector) not in done
            done.add((step.act, step.selector))
            if step.act is Act.ACTIVATE:
                assert seen[step.selector] is Sight.EVERYWHERE
            before = {kind for kind in KeyType if of.of(kind, KeyState.ACTIVE)}
            of = take(of, step, now, "v=DKIM1; p=new")
            assert before <= {kind for kind in KeyType if of.of(kind, KeyState.ACTIVE)}
    else:
        raise AssertionError("no rest")
    assert signed <= {kind for kind in KeyType if of.of(kind, KeyState.ACTIVE)}
    assert all(one.since <= now + CLOCK_SLACK for one in of.keys if not one.gone)
    for one in of.keys:
        assert one.gone or one.state is KeyState.RETIRED or any(wait.selector == one.selector for wait in waiting)
