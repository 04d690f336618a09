# SPDX-License-Identifier: GPL-3.0-or-later
"""The server on a real socket, and clients that do not send what they should."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import select
import socket
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from uvicorn.protocols.http.h11_impl import H11Protocol

from asking import TOKEN
from assay.config import Configuration
from assay.config.endpoint import Endpoint
from assay.config.store import StoreSection
from assay.daemon.status import History
from assay.log import Level, Log
from assay.metrics import Pages
from assay.web import server
from assay.web.access import Access, Proxies
from assay.web.app import make_app
from assay.web.render import STATIC
from assay.web.server import _IDLE_SECONDS, MAX_HEADER, WebServer
from assay.web.site import open_site
from running import PATIENCE, until

CLIENTS = 8
STYLE = b"GET /static/style.css HTTP/1.1\r\nHost: page.example\r\n\r\n"
Connect = Callable[[bytes], socket.socket]
WHOLE = b"GET /login HTTP/1.1\r\nHost: page.example\r\n\r\n"
FORM = b"POST /login HTTP/1.1\r\nHost: page.example\r\nContent-Length: 100\r\n\r\ntoken="


@pytest.fixture
def logged() -> list[tuple[Level, str]]:
    return []


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[server._BoundedProtocol]:
    """The server's sides of the connections."""
    found: list[server._BoundedProtocol] = []
    whole = server._BoundedProtocol.connection_made
    monkeypatch.setattr(
        server._BoundedProtocol, "connection_made", lambda each, transport: (found.append(each), whole(each, transport))
    )
    return found


@pytest.fixture
def connect(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, logged: list[tuple[Level, str]]) -> Iterator[Connect]:
    """Connects, and sends some octets."""
    monkeypatch.setattr(server, "MAX_REQUEST_SECONDS", 0.3)
    monkeypatch.setattr(server, "MAX_CLIENTS", CLIENTS)
    figures = Pages(1)
    log = Log(lambda level, text: logged.append((level, text)))
    configuration = Configuration(store=StoreSection(directory=str(tmp_path)))
    site = open_site(configuration, figures, History(figures, leaves=False), (), log)
    path = tmp_path / "socket"
    serving = WebServer(Endpoint.parse(f"unix:{path}"), 0o660, make_app(site, Access(TOKEN, "", Proxies()), log), log)
    with contextlib.ExitStack() as opened:

        def connect(octets: bytes) -> socket.socket:
            client = opened.enter_context(socket.socket(socket.AF_UNIX))
            client.settimeout(PATIENCE)
            client.connect(str(path))
            client.sendall(octets)
            return client

        yield connect
    serving.close()
    site.lookups.close()
    site.store.close()


def style() -> bytes:
    return (STATIC / "style.css").read_bytes()


def everything(client: socket.socket) -> bytes:
    """What comes until the server ends the connection."""
    return b"".join(iter(lambda: client.recv(65_536), b""))


@pytest.mark.parametrize("sent", [b"", WHOLE[:-2], FORM], ids=["nothing", "head", "form"])
def test_a_request_that_does_not_end_ends_its_connection(
    connect: Connect, sent: bytes, logged: list[tuple[Level, str]]
) -> None:
    assert not everything(connect(sent))
    assert not [line for level, line in logged if level in (Level.ERROR, Level.WARNING)]


def test_a_second_request_that_does_not_end_likewise(connect: Connect) -> None:
    client = connect(WHOLE)
    assert client.recv(65_536).startswith(b"HTTP/1.1 200")
    client.sendall(WHOLE[:-2])
    client.settimeout(_IDLE_SECONDS / 2)  # that of the library is no longer looked at
    assert b"HTTP/1.1" not in everything(client)


def test_octets_that_come_slowly_count_no_longer(connect: Connect) -> None:
    client = connect(b"GET /login HTTP/1.1\r\n")
    with contextlib.suppress(OSError):
        for _ in range(int(PATIENCE / 0.05)):
            client.sendall(b"a: b\r\n")
            client.settimeout(0.05)
            try:
                assert not client.recv(1)
            except TimeoutError:
                continue
            break
        else:
            pytest.fail("the connection never ended")


@pytest.mark.parametrize("requests", [40, 400], ids=["a little is left", "the application waits"])
@pytest.mark.parametrize("slowly", [False, True], ids=["nothing", "an octet at a time"])
def test_a_response_that_is_not_read_ends_its_connection(
    connect: Connect, requests: int, slowly: bool, monkeypatch: pytest.MonkeyPatch, logged: list[tuple[Level, str]]
) -> None:
    monkeypatch.setattr(server, "MAX_UNREAD_SECONDS", 0.3)
    client = connect(STYLE * requests)
    ended = select.poll()
    ended.register(client, 0)  # what is always looked for: that the other side hung up
    deadline = time.monotonic() + PATIENCE
    while not ended.poll(50):
        assert time.monotonic() < deadline
        if slowly:
            client.recv(1)
    assert len(everything(client)) < requests * len(style())
    assert not [line for level, line in logged if level in (Level.ERROR, Level.WARNING)]


def test_a_response_that_is_read_in_time_is_whole(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also if it was not read for a while, and the one before it neither."""
    monkeypatch.setattr(server, "MAX_UNREAD_SECONDS", 1.0)
    client = connect(b"")
    for _ in range(2):
        client.sendall(STYLE * 100)
        time.sleep(0.3)  # what is tested is that time passes
        read = b""
        while read.count(style()) < 100:
            received = client.recv(1 << 20)
            assert received, "the connection was ended"
            read += received
        time.sleep(1.2)
    client.sendall(STYLE)
    assert client.recv(15) == b"HTTP/1.1 200 OK"


@pytest.mark.parametrize("sent", [b"", WHOLE[:-2], FORM, WHOLE], ids=["nothing", "head", "form", "whole"])
def test_idle_clients_keep_nobody_out(connect: Connect, monkeypatch: pytest.MonkeyPatch, sent: bytes) -> None:
    """Those that have been idle longest make room."""
    monkeypatch.setattr(server, "MAX_REQUEST_SECONDS", PATIENCE)
    idle = [connect(sent) for _ in range(CLIENTS - 1)]
    if sent is WHOLE:
        for client in idle:
            assert client.recv(15) == b"HTTP/1.1 200 OK"
    last = []
    for _ in range(3):
        last.append(connect(WHOLE))
        assert last[-1].recv(15) == b"HTTP/1.1 200 OK"
    assert list(map(has_ended, idle + last)) == 3 * [True] + (CLIENTS - 1) * [False]


def has_ended(client: socket.socket) -> bool:
    """Whether the server has ended the connection."""
    ended = select.poll()
    ended.register(client, 0)
    return bool(ended.poll(0))


def test_a_response_that_is_under_way_makes_no_room(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MAX_REQUEST_SECONDS", "MAX_UNREAD_SECONDS"):
        monkeypatch.setattr(server, name, PATIENCE)
    full = threading.Event()
    pause = H11Protocol.pause_writing
    monkeypatch.setattr(server._BoundedProtocol, "pause_writing", lambda each: (pause(each), full.set()))
    busy = connect(STYLE * 400)
    assert full.wait(PATIENCE)  # before that, its next request might find all places taken
    idle = [connect(b"") for _ in range(CLIENTS - 2)]
    last = connect(WHOLE)
    assert last.recv(15) == b"HTTP/1.1 200 OK"
    assert list(map(has_ended, [busy, *idle, last])) == [False, True, *(CLIENTS - 2) * [False]]


def test_a_response_that_is_written_and_not_yet_read_makes_no_room(
    connect: Connect, made: list[server._BoundedProtocol], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("MAX_REQUEST_SECONDS", "MAX_UNREAD_SECONDS"):
        monkeypatch.setattr(server, name, PATIENCE)
    busy = connect(b"")
    busy.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
    until(lambda: made, "no connection")
    cycles = [made[0].cycle]
    while not made[0].transport.get_write_buffer_size():
        busy.sendall(STYLE)
        until(lambda: made[0].cycle is not cycles[-1] and made[0]._owes_request(), "the response is not written")
        cycles.append(made[0].cycle)
    for _ in range(CLIENTS - 1):
        idle = connect(WHOLE)
        assert idle.recv(15) == b"HTTP/1.1 200 OK"
    read = b""
    while read.count(style()) < len(cycles) - 1:
        received = busy.recv(1 << 20)
        assert received, "the connection was ended"
        read += received


def test_a_request_that_the_page_still_works_on_makes_no_room(
    connect: Connect, made: list[server._BoundedProtocol]
) -> None:
    asked, go_on = threading.Event(), threading.Event()
    busy = connect(b"")
    until(lambda: made, "no connection")
    whole = made[0].app

    async def slow(*arguments: Any) -> None:
        asked.set()
        await asyncio.to_thread(go_on.wait, PATIENCE)
        await whole(*arguments)

    made[0].app = slow
    busy.sendall(WHOLE)
    assert asked.wait(PATIENCE)
    for _ in range(CLIENTS):
        assert connect(WHOLE).recv(15) == b"HTTP/1.1 200 OK"
    go_on.set()
    assert busy.recv(15) == b"HTTP/1.1 200 OK"


def test_a_connection_that_has_ended_leaves_nothing_behind(
    connect: Connect, made: list[server._BoundedProtocol]
) -> None:
    client = connect(WHOLE)
    assert client.recv(15) == b"HTTP/1.1 200 OK"
    left = weakref.ref(made.pop())
    client.close()
    until(lambda: gc.collect() is not None and left() is None, "a timer has it")


def test_a_client_that_asked_lately_stays(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    """However long ago it connected."""
    monkeypatch.setattr(server, "MAX_REQUEST_SECONDS", PATIENCE)
    clients = [connect(WHOLE) for _ in range(CLIENTS - 1)]
    for client in reversed(clients):
        assert client.recv(65_536).startswith(b"HTTP/1.1 200 OK")
    clients[0].sendall(WHOLE)
    assert clients[0].recv(15) == b"HTTP/1.1 200 OK"
    assert connect(WHOLE).recv(15) == b"HTTP/1.1 200 OK"
    assert list(map(has_ended, clients)) == [False, True, *(CLIENTS - 3) * [False]]


def test_each_of_some_clients_that_come_at_once_gets_room(
    connect: Connect, made: list[server._BoundedProtocol], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "MAX_REQUEST_SECONDS", PATIENCE)
    for _ in range(CLIENTS - 1):
        assert connect(WHOLE).recv(15) == b"HTTP/1.1 200 OK"
    all_have_come = threading.Event()
    made[0].loop.call_soon_threadsafe(all_have_come.wait, PATIENCE)
    last = [connect(WHOLE) for _ in range(3)]
    all_have_come.set()
    assert [client.recv(15) for client in last] == 3 * [b"HTTP/1.1 200 OK"]


def test_a_client_that_goes_within_its_form_is_no_error(connect: Connect, logged: list[tuple[Level, str]]) -> None:
    client = connect(FORM)
    client.shutdown(socket.SHUT_RDWR)
    connect(WHOLE).recv(15)
    everything(connect(FORM))
    assert not [line for level, line in logged if level is Level.ERROR]


def test_a_head_that_is_too_long_is_refused(connect: Connect) -> None:
    assert b"HTTP/1.1 400" in everything(connect(WHOLE[:-2] + b"a: " + b"b" * 2 * MAX_HEADER))
