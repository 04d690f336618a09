# SPDX-License-Identifier: GPL-3.0-or-later
"""Connections over TLS to a server that misbehaves: what is asked again, what fails, and what is kept."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from assay.inquiry import Question, RecordType
from assay.resolver import configured, contexts, doh, dot, message, wire
from assay.resolver.encrypted import LINGER, Encrypted
from assay.resolver.nameservers import Nameserver
from assay.resolver.statistics import Statistics
from assay.resolver.streams import MAX_ANSWER
from assay.resolver.transport import Cause, ExchangeFault
from certificates import CertificateAuthority

NAME = "dns.example.net"
#: What a server does with the connections: the number of the one that begins, from 1, and the connection.
Serve = Callable[[int, ssl.SSLSocket], None]
Outcome = bytes | ExchangeFault


def asked(name: str) -> bytes:
    section = wire.section(Question(name, RecordType.A))
    assert section is not None
    return section


def read(connection: socket.socket) -> bytes:
    """The next query; empty at the end."""
    octets = b""
    while len(octets) < 2 or len(octets) < 2 + int.from_bytes(octets[:2], "big"):
        wanted = 2 - len(octets) if len(octets) < 2 else 2 + int.from_bytes(octets[:2], "big") - len(octets)
        chunk = connection.recv(wanted)
        if not chunk:
            return b""
        octets += chunk
    return octets[2:]


def answer(query: bytes, flags: bytes = b"\x81\x80", octets: int = 0) -> bytes:
    """An answer without records, with its length in front."""
    message = query[:2] + flags + query[4:6] + bytes(6) + query[12 : query.index(b"\0", 12) + 5]
    message += bytes(max(0, octets - len(message)))
    return len(message).to_bytes(2, "big") + message


class Server:
    """Serves each connection in a thread."""

    def __init__(self, pair: tuple[Path, Path], serve: Serve, alpn: str = "") -> None:
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(*pair)
        if alpn:
            self.context.set_alpn_protocols([alpn])
        self.serve = serve
        self.connections = 0
        self.resumed = 0
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.open: list[socket.socket] = []

    def __enter__(self) -> Server:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for connection in self.open:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()

    def nameserver(self, scheme: str = "tls") -> Nameserver:
        path = "/dns-query" if scheme == "https" else ""
        (server,) = configured([f"{scheme}://127.0.0.1:{self.listener.getsockname()[1]}{path}#{NAME}"])
        return server

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                plain, _ = self.listener.accept()
                self.connections += 1
                threading.Thread(target=self._run, args=(self.connections, plain), daemon=True).start()

    def _run(self, number: int, plain: socket.socket) -> None:
        with suppress(OSError), self.context.wrap_socket(plain, server_side=True) as connection:
            self.open.append(connection)
            self.resumed += bool(connection.session_reused)
            self.serve(number, connection)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> CertificateAuthority:
    return CertificateAuthority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def pair(authority: CertificateAuthority) -> tuple[Path, Path]:
    return authority.issue([NAME])


class Client:
    """Asks one server in a loop of its own."""

    def __init__(self, server: Nameserver, authority: CertificateAuthority) -> None:
        self.server = server
        self.loop = asyncio.new_event_loop()
        self.statistics = Statistics()
        made = contexts([server], str(authority.certificate))
        self.encrypted = Encrypted(self.loop, self.statistics, False, made)

    def ask(self, *names: str, patience: float = 5.0) -> list[Outcome]:
        """Ask for names at the same time, and wait for all outcomes."""
        outcomes: dict[int, Outcome] = {}

        def done(index: int, outcome: Outcome) -> None:
            assert index not in outcomes
            outcomes[index] = outcome
            if len(outcomes) == len(names):
                self.loop.stop()

        for index, name in enumerate(names):
            self.encrypted.ask(self.server, asked(name), patience, lambda outcome, at=index: done(at, outcome))
        self.loop.run_forever()
        return [outcomes[index] for index in range(len(names))]

    def rest(self, seconds: float) -> None:
        self.loop.call_later(seconds, self.loop.stop)
        self.loop.run_forever()


@contextmanager
def client(server: Server, authority: CertificateAuthority, scheme: str = "tls") -> Iterator[Client]:
    made = Client(server.nameserver(scheme), authority)
    try:
        yield made
    finally:
        made.encrypted.close()
        made.loop.close()


def honest(_: int, connection: ssl.SSLSocket) -> None:
    while query := read(connection):
        connection.sendall(answer(query))


def test_many_queries_share_a_connection_and_its_answers_may_come_in_any_order(
    authority: CertificateAuthority, pair: tuple[Path, Path]
) -> None:
    def serve(_: int, connection: ssl.SSLSocket) -> None:
        queries = [read(connection) for _ in range(20)]
        connection.sendall(b"".join(map(answer, reversed(queries))))
        read(connection)

    with Server(pair, serve) as server, client(server, authority) as asker:
        outcomes = asker.ask(*(f"n{number}.example.org" for number in range(20)))
    for number, outcome in enumerate(outcomes):
        assert isinstance(outcome, bytes)
        assert b"n%d" % number in outcome
    assert (server.connections, asker.statistics.encrypted) == (1, 20)


def test_queries_are_padded_to_a_length_that_says_little(
    authority: CertificateAuthority, pair: tuple[Path, Path]
) -> None:
    lengths: list[int] = []

    def serve(_: int, connection: ssl.SSLSocket) -> None:
        while query := read(connection):
            lengths.append(len(query))
            connection.sendall(answer(query))

    with Server(pair, serve) as server, client(server, authority) as asker:
        asker.ask("a.example", "a-somewhat-longer-name.example.org", ".".join(["x" * 60] * 3))
    assert sorted(lengths) == [128, 128, 256]


def test_a_later_connection_resumes_the_session(authority: CertificateAuthority, pair: tuple[Path, Path]) -> None:
    def serve(_: int, connection: ssl.SSLSocket) -> None:
        connection.sendall(answer(read(connection)))

    with Server(pair, serve) as server, client(server, authority) as asker:
        for number in range(3):
            (outcome,) = asker.ask(f"n{number}.example.org")
            assert isinstance(outcome, bytes)
            asker.rest(0.1)  # the server closes
        assert (server.connections, server.resumed) == (3, 2)


CUTS: dict[str, Serve] = {
    "before the answer": lambda number, connection: read(connection) and None,
    "within the answer": lambda number, connection: connection.sendall(answer(read(connection))[:20]),
    "after a malformed one": lambda number, connection: connection.sendall(b"\0\1x") or (read(connection) and None),
}


@pytest.mark.parametrize("cut", CUTS.values(), ids=CUTS)
def test_what_a_lost_connection_leaves_open_is_asked_once_more(
    cut: Serve, authority: CertificateAuthority, pair: tuple[Path, Path]
) -> None:
    def serve(number: int, connection: ssl.SSLSocket) -> None:
        (cut if number == 1 else honest)(number, connection)

    with Server(pair, serve) as server, client(server, authority) as asker:
        outcomes = asker.ask("a.example", "b.example")
        assert all(isinstance(outcome, bytes) for outcome in outcomes)
        assert server.connections == 2


FAULTS: dict[str, tuple[Serve, str, int]] = {
    "hangs up": (CUTS["before the answer"], "closed the connection without an answer", 2),
    "another question": (
        lambda number, connection: connection.sendall(answer(read(connection).replace(b"\1a", b"\1z"))),
        "sent a message that is not an answer",
        1,
    ),
    "truncated": (
        lambda number, connection: connection.sendall(answer(read(connection), b"\x83\x80")),
        "sent a truncated answer over TLS",
        1,
    ),
    "too short for a message": (
        lambda number, connection: connection.sendall(b"\0\2" + read(connection)[:2]) or (read(connection) and None),
        "sent a message that is not an answer",
        4,
    ),
}


@pytest.mark.parametrize(("serve", "reason", "connections"), FAULTS.values(), ids=FAULTS)
def test_what_is_not_an_answer(
    serve: Serve, reason: str, connections: int, authority: CertificateAuthority, pair: tuple[Path, Path]
) -> None:
    with Server(pair, serve) as server, client(server, authority) as asker:
        assert asker.ask("a.example") == [ExchangeFault(Cause.OTHER, reason)]
        assert server.connections == connections


def test_of_an_answer_that_is_too_long_nothing_is_kept_and_the_others_arrive(
    authority: CertificateAuthority, pair: tuple[Path, Path]
) -> None:
    def serve(_: int, connection: ssl.SSLSocket) -> None:
        first, second = read(connection), read(connection)
        connection.sendall(answer(first, octets=65_535) + answer(second))
        read(connection)

    with Server(pair, serve) as server, client(server, authority) as asker:
        long, usual = asker.ask("a.example", "b.example")
    assert long == ExchangeFault(Cause.TOO_LONG, f"has an answer of more than {MAX_ANSWER} octets")
    assert isinstance(usual, bytes)


def test_a_connection_over_which_nothing_comes_is_given_up(
    authority: CertificateAuthority, pair: tuple[Path, Path]
) -> None:
    def serve(number: int, connection: ssl.SSLSocket) -> None:
        if number > 1:
            honest(number, connection)
        while read(connection):
            pass

    with Server(pair, serve) as server, client(server, authority) as asker:
        asker.loop.call_later(
            0.4,
            lambda: later.extend(
                [asker.encrypted.ask(asker.server, asked("b.example"), 5.0, lambda outcome: found.append(outcome))]
            ),
        )
        later: list[object] = []
        found: list[Outcome] = []
        (outcome,) = asker.ask("a.example", patience=1.0)
        assert outcome == ExchangeFault(Cause.TIMEOUT, "did not answer within 1 s")
        asker.rest(0.5)
        assert [type(one) for one in found] == [bytes], "what was asked later is asked again at once"
        assert server.connections == 2


def test_answers_to_what_was_given_up_are_ignored(authority: CertificateAuthority, pair: tuple[Path, Path]) -> None:
    def serve(_: int, connection: ssl.SSLSocket) -> None:
        first, second = read(connection), read(connection)
        connection.sendall(answer(second))
        connection.sendall(answer(first))
        connection.sendall(answer(read(connection)))

    with Server(pair, serve) as server, client(server, authority) as asker:
        given_up = asker.encrypted.ask(asker.server, asked("a.example"), 5.0, lambda _: pytest.fail("it was given up"))
        asker.loop.call_soon(given_up.cancel)
        (second,) = asker.ask("b.example")
        (third,) = asker.ask("c.example")
        assert isinstance(second, bytes)
        assert isinstance(third, bytes)
        assert server.connections == 1


def test_a_server_that_never_answers_is_not_given_ever_more_queries_on_one_connection(
    authority: CertificateAuthority, pair: tuple[Path, Path]
) -> None:
    seen: dict[int, int] = {}

    def serve(number: int, connection: ssl.SSLSocket) -> None:
        while read(connection):
            seen[number] = seen.get(number, 0) + 1

    with Server(pair, serve) as server, client(server, authority) as asker:
        asker.ask(*(f"n{number}.example" for number in range(100)), patience=1.0)
        assert server.connections >= 4
    assert max(seen.values()) <= 32


def test_a_connection_that_is_reset_before_the_handshake(
    authority: CertificateAuthority, pair: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The ssl module has the descriptor by then, and looks whether the connection is still there."""

    def reset(self: ssl.SSLSocket) -> None:
        self.close()
        raise ConnectionResetError(errno.ECONNRESET, os.strerror(errno.ECONNRESET))

    with Server(pair, honest) as server, client(server, authority) as asker:
        monkeypatch.setattr(ssl.SSLSocket, "getpeername", reset)
        (outcome,) = asker.ask("a.example", patience=2.0)
    assert isinstance(outcome, ExchangeFault)
    assert outcome.cause is not Cause.TIMEOUT, "it is not waited for"


def test_a_tls_port_that_speaks_no_http_is_reported_as_such(
    authority: CertificateAuthority, pair: tuple[Path, Path]
) -> None:
    with Server(pair, honest, alpn="http/1.1") as server, client(server, authority, "https") as asker:
        (outcome,) = asker.ask("a.example")
    assert isinstance(outcome, ExchangeFault)
    assert outcome.cause is Cause.UNREACHABLE


def test_a_connection_with_a_slow_query_takes_no_new_ones(
    authority: CertificateAuthority, pair: tuple[Path, Path]
) -> None:
    # The server may close the whole connection because of the slow one.
    def serve(_: int, connection: ssl.SSLSocket) -> None:
        while query := read(connection):
            if b"slow" not in query:
                connection.sendall(answer(query))

    with Server(pair, serve) as server, client(server, authority) as asker:
        slow = asker.encrypted.ask(asker.server, asked("slow.example"), 9.0, lambda _: None)
        asker.ask("a.example")
        assert server.connections == 1
        asker.rest(LINGER)
        asker.ask("b.example")
        assert server.connections == 2
        slow.cancel()


def test_the_number_of_a_query_is_free_again_once_it_is_answered() -> None:
    messages = dot.Lengths()
    number, sent = messages.ask(asked("a.example"), False)
    assert messages.cancel(number)[0] is False, "the server may still answer"
    messages.receive(answer(sent[2:]))
    assert messages.cancel(number)[0] is True


def test_what_an_http_cache_says_about_the_age_of_an_answer_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(message, "aged", lambda _, seconds: b"older by %d s" % seconds)
    response = doh._Response()
    response.take([(b":status", b"200"), (b"content-type", b"application/dns-message"), (b"age", b"60")])
    assert response.outcome() == b"older by 60 s"


def test_old_versions_of_tls_are_not_spoken_whatever_the_system_allows(
    authority: CertificateAuthority, monkeypatch: pytest.MonkeyPatch
) -> None:
    lax = ssl.create_default_context()
    lax.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    monkeypatch.setattr(ssl, "create_default_context", lambda **_: lax)
    server = Nameserver("192.0.2.53", 853, scheme="tls")
    assert contexts([server], str(authority.certificate))["tls"].minimum_version is ssl.TLSVersion.TLSv1_2
