# SPDX-License-Identifier: GPL-3.0-or-later
"""Places for queries, shared by who asks and not by what is asked.

A stranger chooses the names in a message, so a name must not decide which question comes first; the asker cannot be
chosen. The askers form a tree: clients, and below each client its messages. An IPv6 client is below its /48, because
the holder of one address of a network usually has all of them.

One rule bounds each level: *nobody may hold more than is left free for others*. What a message, its client and all
clients hold together, each counted once, stays below the number of places. So a single message may hold a third of
them, a single client half, a hundred clients a hundredth each, and a newcomer finds a place at once. The same rule
bounds the questions that wait. The asker that holds least is served first; at a tie, in turn.

No clock, no socket: this is bookkeeping, and everything runs in one thread.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from typing import Generic, TypeVar, cast

from assay.inquiry import Asker, Urgency

T = TypeVar("T", bound=Hashable)


class Place(Generic[T]):
    """One asker, or all below it: how many places it holds, and how many questions wait."""

    __slots__ = ("above", "below", "busy", "key", "queues", "turns", "waiting")

    def __init__(self, above: Place[T] | None, key: object) -> None:
        self.above = above
        self.key = key
        self.below: dict[object, Place[T]] = {}
        self.busy = 0
        self.waiting = 0
        #: The waiting ones below, by how many places they hold, each group in order of turn. The sum of these numbers
        #: is at most that of the places, so there are few different ones.
        self.turns: dict[int, dict[Place[T], None]] = {}
        #: A message's questions, by urgency.
        self.queues: dict[Urgency, dict[T, None]] = {}

    @property
    def asker(self) -> Asker:
        """The asker, for the place of a message."""
        return cast(Asker, self.key)

    def begins(self, lower: Place[T]) -> None:
        """A place below starts to wait for its turn."""
        self.turns.setdefault(lower.busy, {})[lower] = None

    def ends(self, lower: Place[T]) -> None:
        """A place below stops waiting."""
        group = self.turns[lower.busy]
        del group[lower]
        if not group:
            del self.turns[lower.busy]


class Pool(Generic[T]):
    """A number of places, and room for questions that wait for one."""

    def __init__(self, places: int, room: int) -> None:
        self._places = places
        self._room = room
        self._all: Place[T] = Place(None, None)

    @property
    def busy(self) -> int:
        """The number of places taken."""
        return self._all.busy

    @property
    def waiting(self) -> int:
        """The number of waiting questions; one that several askers wait for counts for each."""
        return self._all.waiting

    def take(self, asker: Asker) -> Place[T] | None:
        """A place for this asker; None if it has its share. Return it with `release`."""
        if sum(place.busy for place in self._along(asker)) >= self._places:
            return None
        place = self._place(asker)
        _count(place, 1)
        return place

    def release(self, place: Place[T]) -> None:
        """The place is free again."""
        _count(place, -1)
        _prune(place)

    def enter(self, asker: Asker, item: T, urgency: Urgency) -> bool:
        """Let a question wait for a place; once, and as urgently as it was ever entered for this asker.

        :returns: False if the asker has its share of the room.
        """
        if sum(place.waiting for place in self._along(asker)) >= self._room:
            return False
        place = self._place(asker)
        for level, queue in place.queues.items():
            if item in queue:
                if level > urgency:
                    self._put(place, item, urgency)
                    _take_out(place, item, level)
                return True
        self._put(place, item, urgency)
        _wait(place)
        return True

    def leave(self, asker: Asker, item: T) -> None:
        """This asker's question stops waiting."""
        *_, place = self._along(asker)
        for level, queue in place.queues.items():
            if item in queue:
                _take_out(place, item, level)
                _wait_no_more(place)
                _prune(place)
                return

    def next(self) -> T | None:
        """The question whose turn it is, if there is a place for it. It waits until `leave`."""
        place, held = self._all, self._all.busy
        while place.turns:
            place = next(iter(place.turns[min(place.turns)]))
            held += place.busy
        if held >= self._places or not place.queues:
            return None
        return next(iter(place.queues[min(place.queues)]))

    def _along(self, asker: Asker) -> Iterator[Place[T]]:
        """The places from the widest network to the message, as far as there are any."""
        place = self._all
        yield place
        for key in _path(asker):
            found = place.below.get(key)
            if found is None:
                return
            place = found
            yield place

    def _place(self, asker: Asker) -> Place[T]:
        place = self._all
        for key in _path(asker):
            found = place.below.get(key)
            if found is None:
                found = place.below[key] = Place(place, key)
            place = found
        return place

    def _put(self, place: Place[T], item: T, urgency: Urgency) -> None:
        place.queues.setdefault(urgency, {})[item] = None


def _path(asker: Asker) -> tuple[object, ...]:
    """The keys from the widest network to the message."""
    if asker.client is None:
        return b"", asker
    packed = asker.client.packed
    if len(packed) == 4:
        return packed, asker
    return packed[:6], packed[:8], asker


def _count(place: Place[T] | None, by: int) -> None:
    while place is not None:
        above = place.above
        if place.waiting and above is not None:
            above.ends(place)
            place.busy += by
            above.begins(place)
        else:
            place.busy += by
        place = above


def _wait(place: Place[T] | None) -> None:
    while place is not None:
        place.waiting += 1
        if place.waiting == 1 and place.above is not None:
            place.above.begins(place)
        place = place.above


def _wait_no_more(place: Place[T] | None) -> None:
    while place is not None:
        place.waiting -= 1
        if not place.waiting and place.above is not None:
            place.above.ends(place)
        place = place.above


def _take_out(place: Place[T], item: T, level: Urgency) -> None:
    queue = place.queues[level]
    del queue[item]
    if not queue:
        del place.queues[level]


def _prune(place: Place[T]) -> None:
    """Forget places that neither hold nor wait."""
    while place.above is not None and not place.busy and not place.waiting:
        del place.above.below[place.key]
        place = place.above
