# SPDX-License-Identifier: GPL-3.0-or-later
"""Floor 1, what is kept: caches that take no more memory than one table allows.

Strangers choose most of what a worker keeps: names, records, keys. So a cache is bounded by octets and not by entries,
and each entry is measured when it is kept. `BOUNDS` is all that a worker keeps from one message to the next, besides
two lists of names in the resolver that are bounded by their number (half a megabyte each). A test fills each cache with
the largest entries and checks its bound.

The least recently used entries go first. There is no lock: each step is one operation of a dict or an attribute,
between which CPython may switch threads. Who takes an entry out subtracts its weight, and who puts one in adds it, so
that the weight is right whatever the order; and no loop ends only by the weight.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from enum import Enum
from functools import wraps
from ipaddress import IPv4Address, IPv6Address
from sys import getsizeof
from types import MappingProxyType
from typing import Any, Generic, TypeVar, cast
from weakref import WeakSet

from msgspec import Struct

K = TypeVar("K")
V = TypeVar("V")

_MIB = 1 << 20

#: What each cache of a worker may take, in octets, by what it keeps.
BOUNDS = MappingProxyType(
    {
        #: Seven thousand answers of usual size: `dns.cache_entries`. The DNS is what makes a new sender slow.
        "DNS answers": 4_480_000,
        #: A thousand, with the questions and answers that led to them: those of two hundred and fifty hosts. A host of
        #: which nothing is remembered takes twice the CPU.
        "evaluations": 3 * _MIB,
        #: Five hundred of usual size: the senders of a busy half hour, with what they include.
        "SPF records": _MIB,
        #: Five hundred. Loading a key costs as much as verifying with it, and the same few sign most of a day's mail.
        "DKIM keys": 3 * _MIB // 2,
        #: Five hundred. One message reads its organizational domain's record several times.
        "DMARC records": _MIB // 2,
        #: Five hundred domains: a message walks from one domain several times.
        "tree walks": _MIB // 4,
        #: The networks that rules name.
        "networks": _MIB // 4,
        #: A thousand, mostly of the operator's own users, as rules and lists compare them.
        "addresses": _MIB // 2,
        #: The names in the configuration by which forged results are recognised.
        "own names": _MIB // 4,
        #: Two hundred: whether the keys that sign are published.
        "own keys": _MIB // 16,
    }
)
#: Octets of an entry besides key and value: its slot in an ordered dict that has just grown, and its `Entry`.
ENTRY = 264
#: Octets of a number: the value of an address, or the weight of an entry.
_NUMBER = 48

_ALIVE = (Enum, bool, type)
_ADDRESSES = (IPv4Address, IPv6Address)

#: All caches of this process.
living: WeakSet[Cache[Any, Any]] = WeakSet()


class Entry(Generic[V]):
    """The value under a key. `weight` is in octets."""

    __slots__ = ("expires", "value", "weight")

    def __init__(self, value: V, weight: int, expires: float = 0.0) -> None:
        """:param expires: when the value ends, in a cache whose values do."""
        self.value = value
        self.weight = weight
        self.expires = expires


class Cache(Generic[K, V]):
    """A map from keys to values with a bound on its memory. Any thread may read and write."""

    def __init__(self, name: str, octets: int | None = None) -> None:
        """
        :param name: what is kept, a key of `BOUNDS`.
        :param octets: its bound, if not the one in the table.
        """
        self.name = name
        self._bound = BOUNDS[name] if octets is None else octets
        self._entries: OrderedDict[K, Entry[V]] = OrderedDict()  # the least recently used first
        self._weight = 0
        living.add(self)

    def __len__(self) -> int:
        """The number of values."""
        return len(self._entries)

    def find(self, key: K) -> Entry[V] | None:
        """The entry of a key, which then counts as recently used."""
        entry = self._entries.get(key)
        if entry is not None:
            try:  # noqa: SIM105  # a context manager costs more than all the rest
                self._entries.move_to_end(key)
            except KeyError:  # another thread has just dropped it
                pass
        return entry

    def keep(self, key: K, entry: Entry[V]) -> None:
        """Keep an entry, unless it alone exceeds half of the bound. An older one is gone in any case."""
        self.drop(key)
        if entry.weight > self._bound // 2:
            return
        if self._entries.setdefault(key, entry) is entry:  # else another thread has just kept it
            self._weight += entry.weight
        while self._weight > self._bound and self._entries:
            self._drop_oldest()

    def drop(self, key: K) -> None:
        """Forget a key."""
        entry = self._entries.pop(key, None)
        if entry is not None:
            self._weight -= entry.weight

    def _drop_oldest(self) -> None:
        with suppress(KeyError):  # another thread has emptied it
            _, entry = self._entries.popitem(last=False)
            self._weight -= entry.weight

    def clear(self) -> None:
        """Forget everything."""
        while self._entries:
            self._drop_oldest()


def clear() -> None:
    """Empty all caches of this process."""
    for cache in tuple(living):
        cache.clear()


def remember(name: str, weigh: Callable[[Any], int] = lambda _: 0) -> Callable[[Callable[[K], V]], Callable[[K], V]]:
    """Make a function of one argument remember its results.

    :param name: what they are, a key of `BOUNDS`.
    :param weigh: octets of a result that `measure` cannot see.
    """

    def decorate(function: Callable[[K], V]) -> Callable[[K], V]:
        cache: Cache[K, V] = Cache(name)
        find = cache.find

        @wraps(function)
        def remembered(argument: K) -> V:
            entry = find(argument)
            if entry is None:
                value = function(argument)
                entry = Entry(value, ENTRY + measure(argument, value) + weigh(value))
                cache.keep(argument, entry)
            return entry.value

        return remembered

    return decorate


def measure(*values: object) -> int:
    """The octets of values, with all that they contain. A struct that occurs twice is counted once.

    Members of enumerations, classes and small numbers exist anyway and are not counted.
    """
    octets = 0
    seen: set[int] = set()
    left = list(values)
    while left:
        value = left.pop()
        kind = type(value)
        if kind is bytes or kind is str:
            octets += getsizeof(value) + 15 & ~15  # as malloc rounds
        elif kind is int:
            if not 0 <= cast(int, value) < 256:
                octets += _NUMBER
        elif issubclass(kind, Struct):
            if id(value) in seen:
                continue
            seen.add(id(value))
            octets += getsizeof(value) + 15 & ~15
            left += [getattr(value, name) for name in kind.__struct_fields__]
        elif issubclass(kind, (tuple, list, frozenset)):
            if value:
                octets += getsizeof(value) + 15 & ~15
                left += cast(tuple[object, ...], value)
        elif value is not None and not issubclass(kind, _ALIVE):
            octets += getsizeof(value) + 15 & ~15
            if issubclass(kind, _ADDRESSES):
                octets += _NUMBER
            elif hasattr(value, "__dict__"):
                octets += getsizeof(value.__dict__)
                left += value.__dict__.values()
    return octets
