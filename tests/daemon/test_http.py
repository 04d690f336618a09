# SPDX-License-Identifier: GPL-3.0-or-later
"""The HTTP server of the endpoint: clients that are slow, and errors of ours."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from http import HTTPStatus
from pathlib import Path

import pytest

from assay.config.endpoint import Endpoint
from assay.daemon import http
from assay.daemon.held import listen
from assay.daemon.http import HttpResponse, HttpServer
from assay.log import Level, Log

LIMIT_SECONDS = 3.0  # far more than the patience of the server here


def broken(_: str) -> HttpResponse:
    raise ValueError("a bug")


@pytest.fixture
def lines() -> list[str]:
    """What is logged."""
    return []


@pytest.fixture
def endpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lines: list[str]) -> Iterator[Endpoint]:
    monkeypatch.setattr(http, "_PATIENCE_SECONDS", 0.3)
    found = Endpoint.parse(f"unix:{tmp_path}/http.sock")
    responders = {"GET /good": lambda _: HttpResponse(HTTPStatus.OK, b"good"), "GET /broken": broken}
    with closing(HttpServer(listen(found, 0o600, 5), responders, Log(lambda _, text: lines.append(text), Level.INFO))):
        yield found


def ask(endpoint: Endpoint, path: str) -> bytes:
    with endpoint.connect(LIMIT_SECONDS) as client:
        client.sendall(f"GET {path} HTTP/1.0\r\n\r\n".encode())
        answer = b""
        while octets := client.recv(65_536):
            answer += octets
        return answer


def test_an_error_of_ours_is_logged(endpoint: Endpoint, lines: list[str]) -> None:
    assert ask(endpoint, "/broken") == b""
    assert ask(endpoint, "/good").endswith(b"good")
    assert lines == ["endpoint: a client got no answer: ValueError('a bug')"]


def test_a_client_that_leaves_is_no_error(tmp_path: Path, lines: list[str]) -> None:
    place = Endpoint.parse(f"unix:{tmp_path}/http.sock")
    asked, left = threading.Event(), threading.Event()

    def late(_: str) -> HttpResponse:
        asked.set()
        left.wait(LIMIT_SECONDS)
        return HttpResponse(HTTPStatus.OK, b"late")

    log = Log(lambda _, text: lines.append(text), Level.INFO)
    with closing(HttpServer(listen(place, 0o600, 5), {"GET /late": late}, log)):
        with place.connect(LIMIT_SECONDS) as client:
            client.sendall(b"GET /late HTTP/1.0\r\n\r\n")
            assert asked.wait(LIMIT_SECONDS)
        left.set()
    assert lines == []


@pytest.mark.parametrize("start", [b"GET /", b"GET /good HTTP/1.0\r\nAccept: "], ids=["the line", "a field"])
def test_a_client_that_sends_an_octet_at_a_time_is_dropped(endpoint: Endpoint, lines: list[str], start: bytes) -> None:
    began = time.monotonic()
    with endpoint.connect(LIMIT_SECONDS) as client, suppress(OSError):
        client.sendall(start)
        while time.monotonic() < began + LIMIT_SECONDS:
            client.sendall(b"a")
            time.sleep(0.05)
    assert time.monotonic() - began < LIMIT_SECONDS
    assert lines == []
