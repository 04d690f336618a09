# SPDX-License-Identifier: GPL-3.0-or-later
"""The life of a signing key: pending, active, retiring, retired. What is due, what is not and why; no file, no clock.

::

    pending   published?  Does not sign until every authoritative server answers with it.
    active    signs
    retiring  no longer signs, but stays published for the overlap: mail signed with it is still on its way
    retired   the record may be removed

A `KeyRing` is one domain's keys. `due` compares it with the schedule, the time and what the DNS publishes, and returns
steps and, for everything that waits, why. `take` performs one step on the ring and returns the new one. A step that has
been taken is not due again, so a run that was stopped anywhere is continued by the next.

All keys of one type form a series. The domain signs with the active key of each.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated

from msgspec import Meta, Struct
from msgspec.structs import replace

from assay.keys.published import Sight
from assay.model.name import Domain, InvalidNameError
from assay.model.wording import counted

DAY = 86_400
#: Our choice: a clock that is put right by NTP may go back a little between two runs.
CLOCK_SLACK = 300  # seconds
_YEAR_9999 = 253_402_300_799  # the last second that a date can be written for


class KeyType(StrEnum):
    """The types of keys (RFC 6376, 3.3.3; RFC 8463)."""

    RSA = "rsa"
    ED25519 = "ed25519"


class KeyState(StrEnum):
    """The stages of a key's life."""

    PENDING = "pending"
    ACTIVE = "active"
    RETIRING = "retiring"
    RETIRED = "retired"


class RingKey(Struct, frozen=True, forbid_unknown_fields=True):
    """One key of a ring.

    `since` is when it entered its state, in seconds since 1970. `record` is its key record. `gone` is whether the
    record of a retired key has been removed from the DNS.
    """

    selector: str
    type: KeyType
    state: KeyState
    since: Annotated[int, Meta(ge=0, le=_YEAR_9999)]
    record: str
    gone: bool = False


class KeyRing(Struct, frozen=True, forbid_unknown_fields=True):
    """The keys of one domain, oldest first."""

    domain: str
    keys: tuple[RingKey, ...] = ()

    def find(self, selector: str) -> RingKey | None:
        """The key with a selector, if there is one."""
        return next((key for key in self.keys if key.selector == selector), None)

    def of(self, kind: KeyType, state: KeyState) -> tuple[RingKey, ...]:
        """The keys of a type in a state."""
        return tuple(key for key in self.keys if key.type is kind and key.state is state)


class Schedule(Struct, frozen=True):
    """When what is due. `rotate_after` and `overlap` are in seconds; with a `rotate_after` of 0 no key is replaced."""

    types: tuple[KeyType, ...] = (KeyType.RSA,)
    rotate_after: int = 180 * DAY
    overlap: int = 7 * DAY


class Act(StrEnum):
    """The kinds of steps."""

    CREATE = "create"  #: make a key; it becomes pending
    PUBLISH = "publish"  #: its record should be in the DNS, and is not
    ACTIVATE = "activate"  #: sign with it, and retire the one before it
    RETIRE = "retire"  #: a retiring key becomes retired
    WITHDRAW = "withdraw"  #: its record should no longer be in the DNS, and is
    CLOSE = "close"  #: the record of a retired key is gone
    RESET = "reset"  #: the clock has gone back: count from now


class KeyStep(Struct, frozen=True):
    """A step that is due. `selector` is empty for a key that is still to be made; `why` is a clause."""

    act: Act
    type: KeyType
    selector: str = ""
    why: str = ""


class Waiting(Struct, frozen=True):
    """A key for which nothing is due now, and why.

    `until`: seconds since 1970, 0 if it does not depend on the time. `routine`: all is as it should be.
    """

    selector: str
    why: str
    until: int = 0
    routine: bool = False


class RefusedStepError(ValueError):
    """A step that the operator asked for and that would harm. The message says why, and what to do instead."""


def due(
    ring: KeyRing, schedule: Schedule, seen: Mapping[str, Sight], now: int
) -> tuple[tuple[KeyStep, ...], tuple[Waiting, ...]]:
    """What is due for a ring, and why all else is not.

    :param seen: where the record of each key is published, by selector; a key that is missing counts as unknown. For a
        retired key, where any record is left.
    :param now: seconds since 1970.
    """
    steps: list[KeyStep] = []
    waiting: list[Waiting] = []
    for key in ring.keys:
        found = tuple(_due_for(key, ring, schedule, seen.get(key.selector, Sight.UNKNOWN), now))
        steps += [each for each in found if isinstance(each, KeyStep)]
        waiting += [each for each in found if isinstance(each, Waiting)]
    for kind in schedule.types:
        why = _why_create(ring, kind, schedule, now)
        if why:
            steps.append(KeyStep(Act.CREATE, kind, why=why))
    return tuple(steps), tuple(waiting)


def take(ring: KeyRing, step: KeyStep, now: int, record: str = "") -> KeyRing:
    """A ring after a step. A step that was taken already changes nothing.

    :param record: that of the key that was made, for `Act.CREATE`; `step` then has its selector.
    """
    key = ring.find(step.selector)
    match step.act:
        case Act.CREATE:
            if key is not None:
                return ring
            return replace(ring, keys=(*ring.keys, RingKey(step.selector, step.type, KeyState.PENDING, now, record)))
        case Act.ACTIVATE if key is not None and key.state is not KeyState.ACTIVE:
            before = {other.selector for other in ring.of(key.type, KeyState.ACTIVE)}
            ring = _change(ring, before, KeyState.RETIRING, now)
            return _change(ring, {key.selector}, KeyState.ACTIVE, now)
        case Act.RETIRE if key is not None and key.state is not KeyState.RETIRED:
            return _change(ring, {key.selector}, KeyState.RETIRED, now)
        case Act.CLOSE:
            keys = (replace(each, gone=True) if each is key else each for each in ring.keys)
            return replace(ring, keys=tuple(keys))
        case Act.RESET:
            keys = (replace(each, since=now) if each is key else each for each in ring.keys)
            return replace(ring, keys=tuple(keys))
    return ring


def begin(ring: KeyRing, kind: KeyType) -> KeyStep:
    """The step that begins a rotation which the operator asks for.

    :raises RefusedStepError: one is under way.
    """
    if pending := ring.of(kind, KeyState.PENDING):
        raise RefusedStepError(
            f"{pending[0].selector} is already pending; publish its record, then run: assay keys rotate {ring.domain}"
        )
    return KeyStep(Act.CREATE, kind, why="the operator asks for a new key")


def retire(ring: KeyRing, selector: str, now: int, *, at_once: bool = False) -> KeyRing:
    """A ring in which a key no longer signs, because the operator says so.

    :param at_once: skip the overlap, for a stolen key: mail that was signed with it will fail.
    :raises RefusedStepError: there is no such key, or nothing would sign without it.
    """
    key = ring.find(selector)
    if key is None:
        known = ", ".join(other.selector for other in ring.keys) or "none"
        raise RefusedStepError(f"{ring.domain} has no key with the selector {selector}; known are {known}")
    if key.state is KeyState.RETIRED:
        return ring
    if key.state is KeyState.RETIRING and not at_once:
        raise RefusedStepError(
            f"{selector} is already retiring, until the overlap is over; for a stolen key, use --at-once"
        )
    if key.state is KeyState.ACTIVE and not at_once and not _signs_without(ring, key):
        raise RefusedStepError(
            f"without {selector}, no key that all verifiers know would sign mail of {ring.domain}; replace it with: "
            f"assay keys rotate {ring.domain}; for a stolen key, use --at-once"
        )
    # A pending key never signed, so nothing that is on its way needs it.
    over = at_once or key.state is KeyState.PENDING
    return _change(ring, {selector}, KeyState.RETIRED if over else KeyState.RETIRING, now)


def new_selector(ring: KeyRing, kind: KeyType, now: int) -> str:
    """A selector that the ring has never had: the type's letter and the date, ``r20261126``, then ``r20261126b``."""
    base = f"{kind.value[0]}{datetime.fromtimestamp(now, UTC):%Y%m%d}"
    used = {key.selector for key in ring.keys}
    return next(name for name in (base, *(f"{base}{_letters(n)}" for n in range(1, len(used) + 2))) if name not in used)


def check_selector(text: str) -> str:
    """A selector as it is used: dot-separated labels in lower case (RFC 6376, 3.1).

    :raises ValueError: it is not one; the message quotes it and says what to write.
    """
    try:
        return Domain.parse_host(text).name
    except InvalidNameError as error:
        raise ValueError(f"{text!r} is not a selector ({error}); write one such as r2026") from error


def day(moment: int) -> str:
    """A time for a message, in UTC."""
    return f"{datetime.fromtimestamp(moment, UTC):%Y-%m-%d %H:%M} UTC"


def _due_for(key: RingKey, ring: KeyRing, schedule: Schedule, seen: Sight, now: int) -> Iterator[KeyStep | Waiting]:
    if key.since > now + CLOCK_SLACK and not key.gone:
        why = f"it is {key.state} since {day(key.since)}, which is in the future: the clock was wrong; counted from now"
        yield KeyStep(Act.RESET, key.type, key.selector, why)
        return
    match key.state:
        case KeyState.PENDING:
            if seen is Sight.EVERYWHERE:
                yield KeyStep(Act.ACTIVATE, key.type, key.selector, "every authoritative server answers with it")
            else:
                yield KeyStep(Act.PUBLISH, key.type, key.selector, _NOT_YET[seen])
                yield Waiting(key.selector, f"does not sign: {_NOT_YET[seen]}")
        case KeyState.ACTIVE | KeyState.RETIRING:
            if seen in (Sight.PARTLY, Sight.NOWHERE):
                yield KeyStep(Act.PUBLISH, key.type, key.selector, f"{_NOT_YET[seen]}, and mail is signed with it")
            if key.state is KeyState.RETIRING:
                yield from _due_for_retiring(key, schedule, now)
            elif schedule.rotate_after:
                if successor := ring.of(key.type, KeyState.PENDING):
                    yield Waiting(key.selector, f"signs, until {successor[0].selector} is published", routine=True)
                else:
                    yield Waiting(
                        key.selector, "signs, until it is replaced", key.since + schedule.rotate_after, routine=True
                    )
            else:
                yield Waiting(
                    key.selector, "signs; keys.rotate_days is 0, so it is replaced only by hand", routine=True
                )
        case KeyState.RETIRED if not key.gone:
            if seen is Sight.NOWHERE:
                yield KeyStep(Act.CLOSE, key.type, key.selector, "its record is gone")
            elif seen is Sight.UNKNOWN:
                yield Waiting(key.selector, "retired; not every authoritative server says whether its record is there")
            else:
                yield KeyStep(Act.WITHDRAW, key.type, key.selector, "its record is still there, and may be removed")


_NOT_YET = {
    Sight.PARTLY: "not every authoritative server answers with it",
    Sight.NOWHERE: "no authoritative server answers with it",
    Sight.UNKNOWN: "the authoritative servers do not say whether it is there",
}


def _due_for_retiring(key: RingKey, schedule: Schedule, now: int) -> Iterator[KeyStep | Waiting]:
    until = key.since + schedule.overlap
    if now >= until:
        yield KeyStep(Act.RETIRE, key.type, key.selector, "the overlap is over")
    else:
        yield Waiting(key.selector, "stays published: mail that it signed is still on its way", until, routine=True)


def _why_create(ring: KeyRing, kind: KeyType, schedule: Schedule, now: int) -> str:
    """Why a key of a type is to be made; empty if none is."""
    if ring.of(kind, KeyState.PENDING):
        return ""
    active = ring.of(kind, KeyState.ACTIVE)
    if not active:
        return f"no active {kind} key"
    newest = max(key.since for key in active)
    if schedule.rotate_after and now >= newest + schedule.rotate_after:
        return f"the {kind} key has signed for {counted((now - newest) // DAY, 'day')}"
    return ""


def _change(ring: KeyRing, selectors: set[str], state: KeyState, now: int) -> KeyRing:
    keys = (replace(key, state=state, since=now) if key.selector in selectors else key for key in ring.keys)
    return replace(ring, keys=tuple(keys))


def _signs_without(ring: KeyRing, key: RingKey) -> bool:
    """Whether another active key is as good: few verifiers know Ed25519 (RFC 8463, 6)."""
    others = (other for other in ring.keys if other.state is KeyState.ACTIVE and other is not key)
    return any(other.type in (KeyType.RSA, key.type) for other in others)


def _letters(number: int) -> str:
    """``b``, ``c``, ... ``z``, then ``b2``: the suffix of the selectors of one day after the first."""
    again, letter = divmod(number - 1, 25)
    return chr(ord("b") + letter) + (str(again + 1) if again else "")
