# SPDX-License-Identifier: GPL-3.0-or-later
"""Answers over TCP: what is read, in which pieces, and what is not waited for."""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from assay.inquiry import Question, RecordType
from assay.resolver import wire
from assay.resolver.nameservers import Nameserver, configured
from assay.resolver.statistics import Statistics
from assay.resolver.streams import MAX_ANSWER, Streams
from assay.resolver.transport import Cause, ExchangeFault

ASKED = wire.section(Question("a.example", RecordType.TXT))
Serve = Callable[[socket.socket, bytes], None]


@contextmanager
def listening(serve: Serve) -> Iterator[Nameserver]:
    """A server for one connection, which is handed to `serve` with the query."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def run() -> None:
            connection, _ = listener.accept()
            with connection:
                (length,) = struct.unpack("!H", connection.recv(2, socket.MSG_WAITALL))
                serve(connection, connection.recv(length, socket.MSG_WAITALL))

        thread = threading.Thread(target=run)
        thread.start()
        yield configured([f"127.0.0.1:{listener.getsockname()[1]}"])[0]
        thread.join()


def ask(server: Nameserver, patience: float = 5.0) -> bytes | ExchangeFault:
    loop = asyncio.new_event_loop()
    found: list[bytes | ExchangeFault] = []

    def done(outcome: bytes | ExchangeFault) -> None:
        found.append(outcome)
        loop.stop()

    assert ASKED is not None
    Streams(loop, Statistics(), authentic=False).ask(server, ASKED, patience, done)
    loop.run_forever()
    loop.close()
    (outcome,) = found
    return outcome


def answer(query: bytes, octets: int) -> bytes:
    """An answer of so many octets."""
    message = query[:2] + b"\x81\x80" + query[4:]
    message += b"\0" * (octets - len(message))
    return struct.pack("!H", len(message)) + message


@pytest.mark.parametrize("size", [1, 2, 3, 4000, 100_000], ids=lambda size: f"pieces of {size}")
def test_an_answer_comes_in_any_pieces(size: int) -> None:
    def serve(connection: socket.socket, query: bytes) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        octets = answer(query, 200 if size < 10 else MAX_ANSWER)
        for at in range(0, len(octets), size):
            connection.sendall(octets[at : at + size])
            time.sleep(0.001)

    with listening(serve) as server:
        outcome = ask(server)
    assert isinstance(outcome, bytes)
    assert len(outcome) == (200 if size < 10 else MAX_ANSWER)


def test_of_an_answer_that_is_too_long_only_the_length_is_read() -> None:
    def serve(connection: socket.socket, query: bytes) -> None:
        connection.sendall(answer(query, MAX_ANSWER + 1)[:2])
        assert connection.recv(1) == b"", "and the connection is closed"

    with listening(serve) as server:
        outcome = ask(server)
    assert outcome == ExchangeFault(Cause.TOO_LONG, "has an answer of more than 16384 octets")


FAULTS = [
    pytest.param(lambda connection, query: None, "closed the TCP connection without an answer", id="hangs up"),
    pytest.param(
        lambda connection, query: connection.sendall(answer(query, 200)[:100]),
        "closed the TCP connection without an answer",
        id="hangs up within the answer",
    ),
    pytest.param(
        lambda connection, query: connection.sendall(answer(b"\xff\xff" + query[2:], 200)),
        "sent a message over TCP that is not an answer",
        id="another identifier",
    ),
    pytest.param(
        lambda connection, query: connection.sendall(b"\0\0"),
        "sent a message over TCP that is not an answer",
        id="nothing",
    ),
    pytest.param(
        lambda connection, query: time.sleep(0.4), "did not answer over TCP within 0.2 s", id="says nothing in time"
    ),
]


@pytest.mark.parametrize(("serve", "reason"), FAULTS)
def test_what_is_not_an_answer(serve: Serve, reason: str) -> None:
    with listening(serve) as server:
        assert ask(server, patience=0.2) == ExchangeFault(Cause.OTHER, reason)


def test_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    (server,) = configured([f"127.0.0.1:{port}"])
    outcome = ask(server)
    assert outcome == ExchangeFault(Cause.OTHER, "could not be asked over TCP (Connection refused)")


def test_a_query_that_was_given_up_leaves_nothing() -> None:
    loop = asyncio.new_event_loop()
    found: list[object] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        (server,) = configured([f"127.0.0.1:{listener.getsockname()[1]}"])
        assert ASKED is not None
        stream = Streams(loop, Statistics(), authentic=False).ask(server, ASKED, 0.1, found.append)
        loop.call_later(0.05, stream.cancel)
        loop.call_later(0.3, loop.stop)
        loop.run_forever()
    loop.close()
    assert found == []
