# SPDX-License-Identifier: GPL-3.0-or-later
"""Queries that share sockets: what a forger, a late answer or a closed port does to the others."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable, Iterator

import pytest

from assay.inquiry import Question, RecordType
from assay.resolver import Nameserver, Statistics, datagrams, wire
from assay.resolver.datagrams import MAX_AGE, MAX_MOVES, MAX_QUERIES, MAX_SOCKETS, MAX_STRAYS, SOCKETS, Datagrams
from assay.resolver.transport import Cause, ExchangeFault

Outcomes = dict[str, bytes | ExchangeFault]


class Peer:
    """A nameserver whose answers the test sends, and what asks it."""

    def __init__(self, loop: asyncio.AbstractEventLoop, patience: float = 5.0) -> None:
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        self.socket.setblocking(False)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        self.loop = loop
        self.patience = patience
        self.datagrams = Datagrams(loop, Statistics(), authentic=False)
        self.server = Nameserver(*self.socket.getsockname())
        self.outcomes: Outcomes = {}

    def ask(self, *names: str) -> None:
        for name in names:
            asked = wire.section(Question(name, RecordType.A))
            assert asked is not None

            def done(outcome: bytes | ExchangeFault, name: str = name) -> None:
                self.outcomes[name] = outcome

            self.datagrams.ask(self.server, asked, self.patience, done)

    def received(self) -> list[tuple[bytes, tuple[str, int]]]:
        """The queries that have come."""
        got = []
        while True:
            try:
                got.append(self.socket.recvfrom(4096))
            except BlockingIOError:
                return got

    def answer(self, query: bytes, port: tuple[str, int]) -> None:
        self.socket.sendto(answer(query), port)

    def run(self, until: Callable[[], bool] = lambda: False, seconds: float = 0.2) -> None:
        """Run the loop for a while, or until something has happened."""

        async def wait() -> None:
            for _ in range(round(seconds / 0.01)):
                if until():
                    return
                await asyncio.sleep(0.01)

        self.loop.run_until_complete(wait())


def answer(query: bytes) -> bytes:
    """The answer NXDOMAIN to a query."""
    return query[:2] + struct.pack("!HHHHH", 0x8183, 1, 0, 0, 0) + query[12:-11]


@pytest.fixture
def peer() -> Iterator[Peer]:
    loop = asyncio.new_event_loop()
    one = Peer(loop)
    yield one
    one.datagrams.close()
    one.socket.close()
    loop.close()


def names(count: int, prefix: str = "n") -> list[str]:
    return [f"{prefix}{number}.example" for number in range(count)]


def test_many_queries_need_few_sockets(peer: Peer) -> None:
    peer.ask(*names(800))
    queries = peer.received()
    ports = {port for _, port in queries}
    assert len(ports) == SOCKETS
    assert len({(port, query[:2]) for query, port in queries}) == 800, "a number is used once on a socket"
    assert len({query[:2] for query, _ in queries}) > 700, "and drawn at random"
    for query, port in reversed(queries):
        peer.answer(query, port)
    peer.run(lambda: len(peer.outcomes) == 800, 5.0)
    for name, outcome in peer.outcomes.items():
        assert isinstance(outcome, bytes)
        assert name.partition(".")[0].encode() in outcome, "each got its own"


def test_sockets_are_replaced_after_some_queries(peer: Peer) -> None:
    ports = set()
    for turn in range(40):
        peer.ask(*names(100, f"t{turn}-"))
        for query, port in peer.received():
            ports.add(port)
            peer.answer(query, port)
        peer.run(lambda: len(peer.outcomes) == 100)
        peer.outcomes.clear()
    assert len(ports) >= 40 * 100 / MAX_QUERIES - 1
    (sockets,) = peer.datagrams._sockets.values()
    assert len(sockets.open) <= SOCKETS


def test_sockets_are_replaced_after_some_time(peer: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datagrams, "SOCKETS", 1)
    first, now = None, peer.loop.time()
    for age, same in ((0, True), (MAX_AGE - 1, True), (MAX_AGE + 1, False)):
        monkeypatch.setattr(peer.loop, "time", lambda age=age: now + age)
        peer.ask("a.example")
        ((_, port),) = peer.received()
        first = first or port
        assert (port == first) is same
    (sockets,) = peer.datagrams._sockets.values()
    assert len(sockets.open) == 2, "the old one still waits for its answers"


def test_descriptors_are_bounded(peer: Peer) -> None:
    for turn in range(150):
        peer.ask(*names(100, f"t{turn}-"))
        for query, port in peer.received()[1:]:  # one of them stays without an answer
            peer.answer(query, port)
        peer.run(lambda turn=turn: len(peer.outcomes) == 99 * (turn + 1))  # type: ignore[misc]  # called at once
    (sockets,) = peer.datagrams._sockets.values()
    assert SOCKETS < len(sockets.open) <= MAX_SOCKETS


def test_a_guess_fails_no_query(peer: Peer) -> None:
    peer.ask("a.example", "b.example")
    ((query, port), (other, elsewhere)) = peer.received()
    numbers = (number for number in range(1 << 16) if number != int.from_bytes(query[:2], "big"))
    for _ in range(MAX_STRAYS - 2):
        peer.socket.sendto(struct.pack("!H", next(numbers)) + answer(query)[2:], port)
    peer.socket.sendto(answer(other)[:12].replace(other[:2], query[:2]) + answer(other)[12:], port)
    peer.run(seconds=0.1)
    assert (peer.outcomes, peer.received()) == ({}, [])
    peer.socket.sendto(struct.pack("!H", next(numbers)) + answer(query)[2:], port)
    peer.run(seconds=0.1)
    again = peer.received()
    assert query[12:] in [asked[12:] for asked, _ in again], "asked again from another socket"
    assert port not in [at for _, at in again]
    for query, port in (*again, (other, elsewhere)):
        peer.answer(query, port)
    peer.run(lambda: len(peer.outcomes) == 2)
    assert {type(outcome) for outcome in peer.outcomes.values()} == {bytes}


def test_whoever_finds_each_new_port_gets_no_further_guesses(peer: Peer) -> None:
    peer.ask("a.example")
    for _ in range(MAX_MOVES + 1):
        ((query, port),) = peer.received()
        for number in range(MAX_STRAYS):
            peer.socket.sendto(struct.pack("!H", number + 1 ^ int.from_bytes(query[:2], "big")) + b"x" * 20, port)
        peer.run(seconds=0.1)
    assert peer.outcomes == {"a.example": ExchangeFault(Cause.OTHER, "sent too many messages that are not an answer")}


def test_a_late_answer_is_not_a_guess(peer: Peer) -> None:
    peer.patience = 0.1
    peer.ask(*names(SOCKETS * (MAX_QUERIES // 2)))
    late = peer.received()
    peer.run(lambda: len(peer.outcomes) == len(late), 2.0)
    peer.patience = 5.0
    peer.ask("a.example")
    for _ in range(3):
        for query, port in late:
            peer.answer(query, port)
        peer.run(seconds=0.1)
    assert len(peer.received()) == 1, "asked once"


def test_a_closed_port_is_known_at_once(peer: Peer) -> None:
    peer.socket.close()
    peer.ask(*names(50))
    peer.run(lambda: len(peer.outcomes) == 50)
    assert set(peer.outcomes.values()) == {ExchangeFault(Cause.UNREACHABLE, "could not be asked (Connection refused)")}
    (sockets,) = peer.datagrams._sockets.values()
    assert not sockets.open


def test_without_a_descriptor_an_open_socket_serves(peer: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    peer.ask("a.example")

    def refuse(*_: object) -> socket.socket:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(socket, "socket", refuse)
    peer.ask(*names(50))
    assert len({port for _, port in peer.received()}) == 1
    other = Nameserver("127.0.0.2", 9)
    peer.datagrams.ask(other, b"", 5.0, lambda outcome: peer.outcomes.update(other=outcome))
    peer.run(lambda: bool(peer.outcomes))
    assert peer.outcomes["other"] == ExchangeFault(Cause.OTHER, "could not be asked (Too many open files)")
