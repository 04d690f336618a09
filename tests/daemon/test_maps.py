# SPDX-License-Identifier: GPL-3.0-or-later
"""The map server: what it answers by socketmap and tcp_table, and to nonsense."""

from __future__ import annotations

import os
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote_from_bytes

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from assay.config.endpoint import Endpoint
from assay.daemon import maps
from assay.daemon.bounded import BoundedServer
from assay.daemon.held import listen
from assay.log import Log
from assay.policy import Rewriting
from assay.policy.addresses import Entries
from assay.protocol import srs
from running import PATIENCE, Daemon

SCHEME = srs.Scheme("srs.example", (b"a secret for the tests",))
REWRITING = Rewriting(SCHEME, Entries.parse(["ours.example", "srs.example"]))
FOUND = maps.lookups(REWRITING)


def ours(days: int = 0) -> str:
    return srs.forward("ann@a.example", SCHEME, time.time() - days * 86_400)


class Client:
    """A connection to a server with one handler."""

    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(5)
        self.socket.connect(str(path))

    def ask(self, octets: bytes) -> bytes:
        """Send, and read until the server has nothing more to say."""
        self.socket.sendall(octets)
        self.socket.shutdown(socket.SHUT_WR)
        received = b""
        with suppress(ConnectionResetError):  # it closed without reading all
            while octets := self.socket.recv(65536):
                received += octets
        self.socket.close()
        return received


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Any]:
    opened: list[Any] = []

    def start(handler: Any, most: int = 9) -> Client:
        path = tmp_path / f"{len(opened)}.sock"
        opened.append(BoundedServer(listen(Endpoint.parse(f"unix:{path}"), 0o600, 5), handler, most))
        client = Client(path)
        opened.append(client.socket)
        return client

    yield start
    for each in reversed(opened):
        each.close()


def netstring(text: str) -> bytes:
    return b"%d:%s," % (len(text.encode()), text.encode())


def test_socketmap_answers_one_request_after_another(serve: Any) -> None:
    answer = serve(maps.socketmap(FOUND)).ask(
        netstring("forward ann@a.example") + netstring(f"reverse {ours(5)}") + netstring("forward ann@ours.example")
    )
    assert answer == netstring(f"OK {ours()}") + netstring("OK ann@a.example") + netstring("NOTFOUND ")


@pytest.mark.parametrize(
    "request_text",
    [
        "forward ",
        "forward ann",
        "forward @a.example",
        "forward ann@ours.example",
        f"forward {ours()}",
        "forward a@b..example",
        "reverse ann@a.example",
        "reverse ann@srs.example",
        "reverse SRS0=aaaa=2W=a.example=ann@srs.example",
        f"reverse {ours(30)}",
        "reverse",
    ],
)
def test_what_has_no_other_form_is_not_found(serve: Any, request_text: str) -> None:
    assert serve(maps.socketmap(FOUND)).ask(netstring(request_text)) == netstring("NOTFOUND ")


def test_an_unknown_map(serve: Any) -> None:
    assert serve(maps.socketmap(FOUND)).ask(netstring("other ann@a.example")).startswith(b"42:PERM no such map; write")


@pytest.mark.parametrize(
    "nonsense",
    [
        b"",
        b"GET / HTTP/1.0\r\n\r\n",
        b"9999999999:x",
        b"5000:" + b"x" * 5000 + b",",
        b"3:abc;",
        b"-1:,",
        b"9:forward",
        b"\xff" * 100,
        b" 3:abc,",
        b"+3:abc,",
        b"0x3:abc,",
        b":,",
        b"\xb2:ab,",
        b"1" * 10_000,
    ],
)
def test_nonsense_ends_the_connection(serve: Any, nonsense: bytes) -> None:
    assert serve(maps.socketmap(FOUND)).ask(nonsense) == b""


def test_whatever_the_key_is_the_answers_stay_in_step(tmp_path: Path) -> None:
    """A stranger chooses the sender: no octet of it ends an answer early or becomes a second one."""
    good = netstring("forward ann@ours.example")

    @settings(max_examples=150, deadline=None)
    @given(st.binary(max_size=60), st.sampled_from([b"forward ", b"reverse ", b"reverse SRS0=aaaa=2W=a.example=", b""]))
    def check(key: bytes, before: bytes) -> None:
        text = before + key + b"@srs.example"
        answers = Client(tmp_path / "socketmap").ask(good + b"%d:%s," % (len(text), text) + good)
        assert re.fullmatch(rb"9:NOTFOUND ,\d+:(OK|NOTFOUND|PERM) [^\0\r\n]*,9:NOTFOUND ,", answers)
        asked = quote_from_bytes(key + b"@a.example").encode()
        answers = Client(tmp_path / "table").ask(b"get ann@ours.example\nget " + asked + b"\nget ann@ours.example\n")
        lines = answers.splitlines(keepends=True)
        assert [line[-1:] for line in lines] == [b"\n"] * 3
        assert [line[:4] for line in lines[::2]] == [b"500 "] * 2

    with ExitStack() as opened:
        for name, handler in (("socketmap", maps.socketmap(FOUND)), ("table", maps.table(FOUND["forward"]))):
            server = BoundedServer(listen(Endpoint.parse(f"unix:{tmp_path / name}"), 0o600, 5), handler, 9)
            opened.enter_context(closing(server))
        check()


def test_octets_that_are_not_utf_8_are_not_found(serve: Any) -> None:
    assert serve(maps.socketmap(FOUND)).ask(b"11:forward \xff@a,") == netstring("NOTFOUND ")


def test_a_table_answers_line_by_line(serve: Any) -> None:
    answer = serve(maps.table(FOUND["reverse"])).ask(f"get {ours()}\nget ann@a.example\n".encode())
    assert answer == b"200 ann@a.example\n500 no such address\n"
    quoted = b'get "a%20b"@a.example\n'
    (line,) = serve(maps.table(FOUND["forward"])).ask(quoted).splitlines()
    assert line.startswith(b'200 "SRS0=')
    assert line.endswith(b'=a.example=a%20b"@srs.example')


@pytest.mark.parametrize("nonsense", [b"put a b\n", b"get\n", b"get a b\n", b"\n", b"EHLO x\r\n"])
def test_a_table_refuses_nonsense_and_hangs_up(serve: Any, nonsense: bytes) -> None:
    assert serve(maps.table(FOUND["forward"])).ask(nonsense * 2) == b"400 write: get ADDRESS\n"


def test_a_long_line_ends_the_connection(serve: Any) -> None:
    assert serve(maps.table(FOUND["forward"])).ask(b"get " + b"a" * 10_000 + b"\n") == b""


@pytest.mark.parametrize(
    ("user", "begins"), [("a" * 480, b"200 "), ("\u00fc" * 240, b"200 "), ("a" * 4000, b"500 no such address\n")]
)
def test_no_line_of_a_table_is_longer_than_postfix_reads(serve: Any, user: str, begins: bytes) -> None:
    answer = serve(maps.table(FOUND["forward"])).ask(f"get {user}@a.example\n".encode())
    assert len(answer) <= 4096
    assert answer.startswith(begins)


@pytest.mark.parametrize(("length", "begins"), [(4091, b"200 xxx"), (4092, b"400 ")])
def test_the_longest_answer_of_a_table(serve: Any, length: int, begins: bytes) -> None:
    answer = serve(maps.table(lambda address: "x" * length)).ask(b"get a\n")
    assert answer.startswith(begins)
    assert len(answer) <= 4096


def connected(endpoint: Endpoint, client: str = "") -> socket.socket:
    """A connection, from this address, that has asked and got an answer; or that was closed."""
    connection = socket.socket(endpoint.family)
    connection.settimeout(5)
    if client:
        connection.bind((client, 0))
    connection.connect(endpoint.path or (endpoint.host, endpoint.port))
    with suppress(BrokenPipeError):
        connection.sendall(netstring("forward ann"))
    return connection


def served(connection: socket.socket) -> bool:
    with suppress(ConnectionResetError):
        return connection.recv(100) == netstring("NOTFOUND ")
    return False


def test_one_client_does_not_take_the_places_of_others() -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        endpoint = Endpoint.parse(f"inet:{probe.getsockname()[1]}@127.0.0.1")
    told: list[str] = []
    server = BoundedServer(listen(endpoint, 0o600, 5), maps.socketmap(FOUND), 3, share=2, over=told.append)
    with closing(server), connected(endpoint, "127.0.0.1") as first, connected(endpoint, "127.0.0.1") as second:
        assert served(first)
        assert served(second)
        with connected(endpoint, "127.0.0.1") as third:
            assert not served(third)
        assert told == ["127.0.0.1"]
        with connected(endpoint, "127.0.0.2") as other:
            assert served(other)
        first.close()
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline:
            with connected(endpoint, "127.0.0.1") as again:
                if served(again):
                    break
        else:
            raise AssertionError("its place was not given back")


def test_the_client_at_a_unix_socket_is_its_user(tmp_path: Path) -> None:
    endpoint = Endpoint.parse(f"unix:{tmp_path / 'share.sock'}")
    told: list[str] = []
    server = BoundedServer(listen(endpoint, 0o600, 5), maps.socketmap(FOUND), 3, share=1, over=told.append)
    with closing(server), connected(endpoint) as first, connected(endpoint) as second:
        assert served(first)
        assert not served(second)
    assert told == [f"user {os.geteuid()}"]


@pytest.mark.parametrize("error", [RuntimeError("can't start new thread"), MemoryError()])
def test_a_thread_that_cannot_start_keeps_no_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    endpoint = Endpoint.parse(f"unix:{tmp_path / 'threads.sock'}")
    server = BoundedServer(listen(endpoint, 0o600, 5), maps.socketmap(FOUND), 1, share=1)
    start = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        raise error

    with closing(server):
        monkeypatch.setattr(threading.Thread, "start", refuse)
        with connected(endpoint) as first:
            assert not served(first)
        monkeypatch.setattr(threading.Thread, "start", start)
        with connected(endpoint) as second:
            assert served(second)


def test_a_crowd_is_reported_now_and_then() -> None:
    lines: list[str] = []
    crowd = maps._Crowd(Log(lambda _level, text: lines.append(text)))
    for _ in range(3):
        crowd.warn("127.0.0.1")
    assert lines == ["map server: 127.0.0.1 has 400 connections; further ones are closed"]


def test_a_daemon_serves_its_share_to_one_client_and_says_so(tmp_path: Path) -> None:
    secrets = tmp_path / "secrets"
    secrets.touch(0o600)
    secrets.write_text("a secret for the tests\n")
    endpoint = Endpoint.parse(f"unix:{tmp_path}/map.sock")
    section = {"domain": "srs.example", "secrets_file": str(secrets), "socketmap": f"unix:{endpoint.path}"}
    with Daemon(tmp_path, milter={"workers": 1}, srs=section) as daemon, ExitStack() as opened:
        deadline = time.monotonic() + PATIENCE
        while not Path(endpoint.path).exists():
            assert time.monotonic() < deadline, daemon.log()
            time.sleep(0.05)
        for _ in range(maps.MAX_OF_ONE_CLIENT):
            assert served(opened.enter_context(connected(endpoint)))
        assert not served(opened.enter_context(connected(endpoint)))
        daemon.wait_for_log(f"map server: user {os.geteuid()} has {maps.MAX_OF_ONE_CLIENT} connections; further ones")


def test_a_silent_client_is_dropped(serve: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(maps._Handler, "timeout", 0.1)
    client = serve(maps.socketmap(FOUND), most=1)
    client.socket.sendall(b"20:forw")
    assert client.socket.recv(1) == b""


@pytest.mark.parametrize(
    ("sender", "back"),
    [
        ("SRS1=x@a.example", "SRS1=x@a.example"),
        ("SRS1=x=b.example=@a.example", "SRS1=x=b.example=@a.example"),
        ("SRS1=x=b.example=y@a.example", "SRS1=x=b.example=y@a.example"),
        ("SRS0=@a.example", "SRS0=@a.example"),
    ],
)
def test_a_sender_that_only_looks_like_srs_is_rewritten_as_any_other(serve: Any, sender: str, back: str) -> None:
    answer = serve(maps.socketmap(FOUND)).ask(netstring(f"forward {sender}"))
    rewritten = answer.partition(b"OK ")[2].decode().removesuffix(",")
    assert FOUND["reverse"](rewritten) == back


def test_a_sender_with_an_empty_local_part_is_not_found(serve: Any) -> None:
    assert serve(maps.socketmap(FOUND)).ask(netstring('forward ""@a.example')) == netstring("NOTFOUND ")


def test_an_error_of_ours_is_reported(tmp_path: Path) -> None:
    def broken(_: str) -> str:
        raise ValueError("a bug")

    reported: list[BaseException | None] = []
    endpoint = Endpoint.parse(f"unix:{tmp_path / 'broken.sock'}")
    with closing(BoundedServer(listen(endpoint, 0o600, 5), maps.table(broken), 1, failed=reported.append)):
        assert Client(tmp_path / "broken.sock").ask(b"get ann@a.example\n") == b""
        Client(tmp_path / "broken.sock").ask(b"")  # the first is over
    assert [str(error) for error in reported] == ["a bug"]


def test_a_full_server_closes_though_clients_wait(tmp_path: Path) -> None:
    endpoint = Endpoint.parse(f"unix:{tmp_path / 'full.sock'}")
    server = BoundedServer(listen(endpoint, 0o600, 5), maps.socketmap(FOUND), 1)
    with endpoint.connect(5) as first, endpoint.connect(5) as second:
        first.sendall(netstring("forward ann@a.example"))
        assert first.recv(100)
        second.sendall(netstring("forward ann@a.example"))
        second.settimeout(0.3)
        with suppress(TimeoutError):
            assert not second.recv(100)
        closing = threading.Thread(target=server.close, daemon=True)
        closing.start()
        closing.join(10)
        assert not closing.is_alive()


def test_an_idle_client_does_not_hold_up_the_successor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Postfix keeps its connections, and the next server opens the same socket."""
    monkeypatch.setattr("assay.daemon.bounded._LAST_SECONDS", PATIENCE)
    endpoint = Endpoint.parse(f"unix:{tmp_path / 'idle.sock'}")
    server = BoundedServer(listen(endpoint, 0o600, 5), maps.socketmap(FOUND), 3)
    with connected(endpoint) as idle:
        assert served(idle)
        closing = threading.Thread(target=server.close, daemon=True)
        closing.start()
        assert idle.recv(100) == b""
        closing.join(5)
        assert not closing.is_alive()


def test_a_request_that_is_under_way_is_answered(tmp_path: Path) -> None:
    endpoint = Endpoint.parse(f"unix:{tmp_path / 'busy.sock'}")
    asked, go_on = threading.Event(), threading.Event()

    def look_up(address: str) -> str:
        asked.set()
        go_on.wait(5)
        return address

    server = BoundedServer(listen(endpoint, 0o600, 5), maps.socketmap({"forward": look_up}), 3)
    with endpoint.connect(5) as client:
        client.sendall(netstring("forward ann"))
        assert asked.wait(5)
        closing = threading.Thread(target=server.close, daemon=True)
        closing.start()
        closing.join(0.7)  # it waits for this answer
        assert closing.is_alive()
        go_on.set()
        assert client.recv(100) == netstring("OK ann")
        closing.join(5)
        assert not closing.is_alive()


@pytest.mark.parametrize(
    ("handler", "start"), [(maps.socketmap(FOUND), b"4000:"), (maps.table(FOUND["forward"]), b"get ")]
)
def test_a_client_that_sends_an_octet_at_a_time_is_dropped(
    serve: Any, monkeypatch: pytest.MonkeyPatch, handler: Any, start: bytes
) -> None:
    monkeypatch.setattr(maps._Handler, "timeout", 0.3)
    client = serve(handler, most=1)
    begun = time.monotonic()
    with suppress(OSError):
        for octet in start + b"a" * 100:
            client.socket.sendall(bytes([octet]))
            time.sleep(0.05)
    assert time.monotonic() - begun < 3


def test_a_length_that_goes_on_ends_the_connection_at_once(serve: Any) -> None:
    client = serve(maps.socketmap(FOUND))
    client.socket.sendall(b"1" * 7)
    assert client.socket.recv(1) == b""


def test_a_client_that_goes_on_asking_stays(serve: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(maps._Handler, "timeout", 1.0)
    client = serve(maps.socketmap(FOUND))
    for _ in range(5):
        time.sleep(0.3)
        client.socket.sendall(netstring("forward ann"))
        assert client.socket.recv(100) == netstring("NOTFOUND ")


def test_a_client_has_all_its_time_to_take_the_answers(serve: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(maps._Handler, "timeout", 2.0)
    client = serve(maps.socketmap(FOUND))
    requests = netstring("forward ") * 600  # the socket cannot hold as many answers
    time.sleep(1.5)  # so long it may take to ask
    client.socket.sendall(requests[:1])
    time.sleep(0.1)
    client.socket.sendall(requests[1:])
    time.sleep(1.0)
    assert client.ask(b"") == netstring("NOTFOUND ") * 600
