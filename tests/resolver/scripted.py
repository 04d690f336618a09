# SPDX-License-Identifier: GPL-3.0-or-later
"""Scripts of questions, queries, replies and time: the resolver over a virtual clock, in the manner of unbound's
``testdata/*.rpl``. No script sleeps, so each may be about minutes.

A script is a list of steps, one a line; a line with ``;`` in front is a comment:

- ``servers N [SECONDS]``: N nameservers, 1 to N, in this order of preference; for how long after their end answers may
  stand in. The first step.
- ``ask NAME TYPE [CLIENT]``: a question is asked, on behalf of this client.
- ``drop NAME TYPE``: it is given up.
- ``sent SERVER NAME TYPE [tcp]``: the next query that was sent. ``sent SERVER probe`` is a probe.
- ``nothing``: no other query was sent.
- ``reply SERVER NAME TYPE WHAT [tcp]``: the server answers: ``A ADDRESS``, ``NXDOMAIN``, ``SERVFAIL`` or another RCODE,
  ``truncated`` or ``unreachable``. ``reply SERVER probe`` answers a probe.
- ``after SECONDS``: time passes.
- ``answer NAME TYPE OUTCOME [REASON]``: who asked has this answer. ``waits NAME TYPE``: who asked has none.
- ``stale NAME TYPE OUTCOME``: who asked has this answer, and it has expired.
- ``log TEXT``: the next line for the log.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import dns.flags
import dns.message
import dns.rcode
import dns.rrset
import pytest

from assay.inquiry import Answer, Asker, Question, RecordType, Urgency
from assay.resolver import client, transports, wire
from assay.resolver.cache import STALE_TTL, AnswerCache
from assay.resolver.nameservers import configured
from assay.resolver.statistics import Statistics
from assay.resolver.transport import Cause, Done, ExchangeFault

SCRIPTS = Path(__file__).parent / "scripts"
PATIENCE = 2.0
_TICK = 1e-6  # seconds of each step: what is due at its end is due, whatever floating-point numbers make of it
_PROBE = ("probe",)


class Loop:
    """An event loop whose time passes when a script says so."""

    def __init__(self) -> None:
        self.now = 1000.0
        self._due: list[tuple[float, int, Handle]] = []
        self._number = itertools.count()

    def call_later(self, delay: float, function: Callable[..., object], *arguments: object) -> Handle:
        handle = Handle(function, arguments)
        heapq.heappush(self._due, (self.now + delay, next(self._number), handle))
        return handle

    def call_soon(self, function: Callable[..., object], *arguments: object) -> Handle:
        return self.call_later(0.0, function, *arguments)

    def advance(self, seconds: float) -> None:
        """Let time pass, and do what is due meanwhile."""
        until = self.now + seconds + _TICK
        while self._due and self._due[0][0] <= until:
            self.now, _, handle = heapq.heappop(self._due)
            if not handle.cancelled:
                handle.function(*handle.arguments)
        self.now = until


class Handle:
    """A call that is due some time."""

    def __init__(self, function: Callable[..., object], arguments: tuple[object, ...]) -> None:
        self.function = function
        self.arguments = arguments
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class Query:
    """A query in flight, which the script answers or lets time out."""

    def __init__(self, network: Network, key: tuple[str, ...], asked: bytes, patience: float, done: Done) -> None:
        self.key = key
        self.asked = asked
        self.done = done
        over = " over TCP" if key[-1] == "tcp" else ""
        cause = Cause.OTHER if over else Cause.TIMEOUT
        late = ExchangeFault(cause, f"did not answer{over} within {patience:g} s")
        self._timer = network.loop.call_later(patience, self.end, late)
        network.sent.append(self)

    def end(self, outcome: bytes | ExchangeFault) -> None:
        self.cancel()
        self.done(outcome)

    def cancel(self) -> None:
        self._timer.cancel()


class Network:
    """The nameservers: both kinds of transports of `assay.resolver.client` at once."""

    def __init__(self, loop: Loop) -> None:
        self.loop = loop
        self.sent: list[Query] = []
        self.tcp = False

    def ask(self, server: Any, asked: bytes, patience: float, done: Done, *_: object) -> Query:
        what = _PROBE if asked == wire.PROBE else tuple(_question_of(asked))
        return Query(self, (str(server.port), *what), asked, patience, done)

    def extends(self, _server: object) -> bool:
        return True

    def close(self) -> None:
        """Nothing is open."""


class Streams(Network):
    """The same over TCP."""

    def __init__(self, network: Network) -> None:
        self.network = network

    def ask(self, server: Any, asked: bytes, patience: float, done: Done, *_: object) -> Query:
        return Query(self.network, (str(server.port), *_question_of(asked), "tcp"), asked, patience, done)


class Waiter:
    """Who asked a question."""

    urgency = Urgency.EVIDENCE

    def __init__(self, text: str) -> None:
        self.asker = Asker(ip_address(text))
        self.answer: Answer | None = None

    def deliver(self, _index: int, answer: Answer) -> None:
        self.answer = answer


class Play:
    """One script at work."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.loop = Loop()
        self.network = Network(self.loop)
        self.flying: list[Query] = []
        self.waiters: dict[tuple[str, str], tuple[Waiter, Any]] = {}
        self.logged: list[str] = []
        monkeypatch.setattr(transports, "Datagrams", lambda *_: self.network)
        monkeypatch.setattr(transports, "Streams", lambda *_: Streams(self.network))
        self.cache: Any = None
        self.client: Any = None

    def step(self, line: str) -> None:
        verb, *words = line.split()
        getattr(self, f"_{verb}")(*words)
        self.loop.advance(0.0)

    def end(self) -> None:
        self._nothing()
        assert self.logged == []

    def _servers(self, number: str, stale_seconds: str = "0") -> None:
        self.cache = AnswerCache(clock=lambda: self.loop.now, stale_seconds=float(stale_seconds))
        servers = configured([f"127.0.0.1:{port}" for port in range(1, int(number) + 1)])
        loop: Any = self.loop
        self.client = client.Asking(
            loop, servers, self.cache, Statistics(), lambda: self.loop.now, PATIENCE, tell=self.logged.append
        )

    def _ask(self, name: str, kind: str, asker: str = "192.0.2.1") -> None:
        waiter = Waiter(asker)
        key = f"{name}/{kind}"
        kept = self.cache.get(key)
        if kept is not None:
            waiter.answer = kept
            self.waiters[name, kind] = waiter, None
            return
        question = Question(name, RecordType(kind))
        asked = wire.section(question)
        assert asked is not None
        self.waiters[name, kind] = waiter, self.client.ask(key, question, asked, waiter, 0)

    def _drop(self, name: str, kind: str) -> None:
        waiter, flight = self.waiters.pop((name, kind))
        self.client.withdraw(flight, waiter, 0)

    def _sent(self, *key: str) -> None:
        assert self.network.sent, "no query was sent"
        query = self.network.sent.pop(0)
        assert query.key == key
        self.flying.append(query)

    def _nothing(self) -> None:
        assert [query.key for query in self.network.sent] == []

    def _reply(self, *words: str) -> None:
        size = 2 if words[1] == "probe" else 3
        key, what = words[:size], words[size:]
        if what[-1:] == ("tcp",):
            key, what = (*key, "tcp"), what[:-1]
        query = next(query for query in reversed(self.flying) if query.key == key)  # an older one has timed out
        self.flying.remove(query)
        if what == ("unreachable",):
            query.end(ExchangeFault(Cause.UNREACHABLE, "could not be asked (Connection refused)"))
        else:
            query.end(_message(query.asked, what))

    def _after(self, seconds: str) -> None:
        self.loop.advance(float(seconds))

    def _answer(self, name: str, kind: str, outcome: str, *reason: str) -> None:
        answer = self.waiters[name, kind][0].answer
        assert answer is not None, "there is no answer yet"
        assert (answer.outcome.value, answer.stale) == (outcome, False)
        assert " ".join(reason) in answer.reason

    def _stale(self, name: str, kind: str, outcome: str) -> None:
        answer = self.waiters[name, kind][0].answer
        assert answer is not None, "there is no answer yet"
        assert (answer.outcome.value, answer.stale, answer.ttl) == (outcome, True, STALE_TTL)

    def _waits(self, name: str, kind: str) -> None:
        assert self.waiters[name, kind][0].answer is None

    def _log(self, *words: str) -> None:
        assert self.logged, "nothing was logged"
        assert self.logged.pop(0) == " ".join(words)


def _question_of(asked: bytes) -> list[str]:
    question = _query(asked).question[0]
    return [question.name.to_text(omit_final_dot=True), dns.rdatatype.to_text(question.rdtype)]


def _query(asked: bytes) -> dns.message.Message:
    return dns.message.from_wire(b"\0\0\1\0\0\1\0\0\0\0\0\0" + asked)


def _message(asked: bytes, what: tuple[str, ...]) -> bytes:
    answer = dns.message.make_response(_query(asked), recursion_available=True)
    match what:
        case ("A", address):
            answer.answer.append(dns.rrset.from_text(answer.question[0].name, 300, "IN", "A", address))
        case ("truncated",):
            answer.flags |= dns.flags.TC
        case () | ("NXDOMAIN",):
            answer.set_rcode(dns.rcode.NXDOMAIN)
            answer.authority.append(dns.rrset.from_text(".", 300, "IN", "SOA", ". . 1 3600 600 86400 300"))
        case (code,):
            answer.set_rcode(dns.rcode.from_text(code))
    return answer.to_wire()
