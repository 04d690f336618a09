# SPDX-License-Identifier: GPL-3.0-or-later
"""The resolver of a worker: local zone, cache, and one thread with an event loop that asks the DNS.

Make it after the fork: its thread would not survive one. `start` starts the thread, or else the first question that
needs a query.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from threading import Lock, Thread
from types import MappingProxyType
from typing import Any, cast

from msgspec.structs import replace

from assay.inquiry import Answer, Outcome, Question
from assay.resolver import tls, wire
from assay.resolver.budget import Allowance
from assay.resolver.cache import AnswerCache
from assay.resolver.client import PATIENCE, Asking
from assay.resolver.driver import BudgetDriver, Observer
from assay.resolver.flight import Flight
from assay.resolver.nameservers import Nameserver
from assay.resolver.resolv_conf import ResolvConf
from assay.resolver.running import Running
from assay.resolver.statistics import State, Statistics, Watch, unwatched
from assay.resolver.transport import MakeRoom, no_room
from assay.resolver.zone import LocalZone

#: Seconds to wait at most for the loop's thread when closing.
CLOSING = 5.0
IMPOSSIBLE = Answer(Outcome.NXDOMAIN, reason="the DNS cannot carry this name")


class Resolver:
    """Answers the questions of many messages. Any thread may use it."""

    def __init__(
        self,
        nameservers: Sequence[Nameserver],
        *,
        zone: LocalZone | None = None,
        cache: AnswerCache | None = None,
        patience: float = PATIENCE,
        trust_ad: bool = False,
        resolv_conf: ResolvConf | None = None,
        tell: Callable[[str], None] = lambda _: None,
        watch: Watch = unwatched,
        clock: Callable[[], float] = time.monotonic,
        contexts: tls.Contexts = MappingProxyType({}),
        random_case: bool = False,
        make_room: MakeRoom = no_room,
    ) -> None:
        """
        :param nameservers: in order of preference; with none, only the zone answers and all else is NXDOMAIN.
        :param zone: answers before the DNS.
        :param cache: where answers are kept; by default a new one of the default size.
        :param patience: seconds to wait for a nameserver before the next one is asked.
        :param trust_ad: the nameservers validate and the path to them is safe: trust their AD bit (RFC 4035, 4.9.3).
        :param resolv_conf: the source of the nameservers, to follow its changes; None if they never change.
        :param tell: called in the loop's thread with a line for the log: a nameserver does not answer, or answers
            again; the nameservers have changed; or the questions of some clients wait too long for their turn.
        :param watch: called in the loop's thread with each query that has ended.
        :param clock: seconds that never go back; the same one as the cache's.
        :param random_case: ask for names in random case over UDP, and check that answers repeat it.
        :param make_room: called in the loop's thread when no descriptor is left for a socket; returns whether there is
            one now.
        :param contexts: for the encrypted nameservers, from `tls.contexts`.
        """
        self.statistics = Statistics(watch)
        self.closed = False
        self._nameservers = tuple(nameservers)
        self._zone = zone
        self._cache = AnswerCache(clock=clock) if cache is None else cache
        self._cached = self._cache.get
        self._patience = patience
        self._trust_ad = trust_ad
        self._resolv_conf = resolv_conf
        self._tell = tell
        self._clock = clock
        self.contexts = contexts
        self._random_case = random_case
        self._make_room = make_room
        self._lock = Lock()  # guards the start and end of the thread
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: Thread | None = None
        self._client: Asking | None = None

    @property
    def state(self) -> State:
        """What is known about the nameservers and the names asked about."""
        return State() if self._client is None else self._client.state

    @property
    def flights(self) -> int:
        """The number of lookups in flight or waiting."""
        return 0 if self._client is None else self._client.flights

    def start(self) -> None:
        """Start the loop's thread now, so that the first message need not wait for it."""
        with self._lock:
            if not self.closed and self._loop is None and self._nameservers:
                self._start()

    def driver(
        self, budget_seconds: float, observer: Observer | None = None, allowance: Allowance | None = None
    ) -> BudgetDriver:
        """A driver for one inquiry or several.

        :param budget_seconds: how long they may wait for the DNS in total. The time runs while an inquiry is waiting.
        :param allowance: how long the MTA may wait for them and for those of other drivers; by default, as long as the
            budget for these alone.
        :param observer: called with every question and its answer, also from zone and cache. It must not raise.
        """
        return BudgetDriver(self, budget_seconds, self._clock, observer, allowance)

    def lookup(self, question: Question) -> Answer | None:
        """The answer, if the zone or the cache has it or there can be none; None if the DNS must be asked."""
        asked = question
        if self._zone is not None or not self._nameservers:
            local = self._local(question)
            if isinstance(local, Answer):
                self.statistics.local += 1
                return local
            question = local
        name = question.name
        if name.isascii():  # else lower() could make it equal to another name: the Kelvin sign is not a k
            answer = self._cached(f"{name.lower()}/{question.type}")
            if answer is not None:
                self.statistics.hits += 1
                return self.as_asked(asked, answer)
        if wire.section(_without_dot(question)) is None:
            self.statistics.local += 1
            return IMPOSSIBLE
        self.statistics.misses += 1
        return None

    def stale(self, question: Question) -> Answer | None:
        """An expired answer, if one is kept and may stand in for one that `ask` has no time for."""
        if self._zone is not None:
            local = self._zone.answer(question)
            if isinstance(local, Answer):  # cannot be: `lookup` comes first
                return local
            question = local
        return self._cache.stale(f"{question.name.lower()}/{question.type}")

    def as_asked(self, question: Question, answer: Answer) -> Answer:
        """The DNS's answer as that to a question: it is not secure if the zone led there by a CNAME."""
        if answer.secure and self._zone is not None and self._zone.answer(question) is not question:
            return replace(answer, secure=False)
        return answer

    def hand_over(self, call: Callable[[], None]) -> bool:
        """Call a function in the loop's thread, which is started if necessary; False if that has ended."""
        with self._lock:
            if self.closed:
                return False
            loop = self._loop if self._loop is not None else self._start()
            if loop.is_closed():
                return False
            loop.call_soon_threadsafe(call)
            return True

    def ask(self, question: Question, waiter: Running[Any], index: int) -> Answer | Flight:
        """Ask a question that `lookup` could not answer; the answer, if it has arrived since. In the loop only."""
        wanted = question
        if self._zone is not None:
            local = self._zone.answer(question)
            if isinstance(local, Answer):
                return local
            question = local
        key = f"{question.name.lower()}/{question.type}"
        answer = self._cached(key)
        if answer is not None:
            return self.as_asked(wanted, answer)
        asked = wire.section(_without_dot(question))
        if asked is None:
            return IMPOSSIBLE
        client = cast(Asking, self._client)  # this runs in its loop's thread
        return client.ask(key, question, asked, waiter, index)

    def withdraw(self, flight: Flight, waiter: Running[Any], index: int) -> None:
        """Stop waiting for an answer. In the loop only."""
        cast(Asking, self._client).withdraw(flight, waiter, index)

    def close(self) -> None:
        """End the loop's thread. Waiting questions are answered TEMPFAIL."""
        with self._lock:
            self.closed = True
            loop, thread = self._loop, self._thread
            self._loop = self._thread = None
        if loop is not None and thread is not None and not loop.is_closed():
            loop.call_soon_threadsafe(loop.stop)
            thread.join(CLOSING)

    def __enter__(self) -> Resolver:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _local(self, question: Question) -> Answer | Question:
        if self._zone is not None:
            local = self._zone.answer(question)
            if isinstance(local, Answer) or self._nameservers:
                return local
            return self._zone.last_word(local)
        return Answer(Outcome.NXDOMAIN)

    def _start(self) -> asyncio.AbstractEventLoop:
        loop = self._loop = asyncio.new_event_loop()
        self._client = Asking(
            loop,
            self._nameservers,
            self._cache,
            self.statistics,
            self._clock,
            self._patience,
            self._trust_ad,
            self._resolv_conf,
            self._tell,
            self.contexts,
            self._random_case,
            self._make_room,
        )
        # A daemon thread, so that a program that forgot to close can end.
        self._thread = Thread(target=_work, args=(loop, self._client, self._tell), name="dns", daemon=True)
        self._thread.start()
        return loop


def _work(loop: asyncio.AbstractEventLoop, client: Asking, tell: Callable[[str], None]) -> None:
    """The loop's thread.

    :raises MemoryError: something in the loop got no memory. What it would have done is missing, such as to free a
        place for another query, so the thread ends.
    """
    missing: list[MemoryError] = []

    def fail(_: object, context: dict[str, Any]) -> None:
        """An exception that the loop has caught."""
        error = context.get("exception")
        if isinstance(error, MemoryError):
            missing.append(error)
            loop.stop()
        tell(f"bug in the resolver: {error!r} ({context['message']})")

    loop.set_exception_handler(fail)
    try:
        loop.run_forever()
        client.close()
    finally:
        loop.close()
    if missing:
        raise missing[0]


def _without_dot(question: Question) -> Question:
    """The question without the final dot that a name in a zone file or from a user may have."""
    if question.name.endswith("."):
        return Question(question.name[:-1], question.type)
    return question
