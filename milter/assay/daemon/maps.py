# SPDX-License-Identifier: GPL-3.0-or-later
"""The child that answers the MTA's questions about SRS addresses: maps by socketmap and tcp_table.

A milter can only change the sender of a message for all recipients, and sees recipients before aliases. An MTA that
asks a map rewrites each address where it uses it. If this child dies, the MTA waits until the next one has started.

- socketmap (Postfix's socketmap_table(5), Sendmail's ``K`` map of class ``socket``): netstrings with the map's name and
  the key. The maps are ``forward`` and ``reverse``.
- tcp_table(5): lines, and one map on each socket.
"""

from __future__ import annotations

import io
import os
import re
import socketserver
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from typing import ClassVar
from urllib.parse import quote_from_bytes, unquote_to_bytes

from assay.config import Configuration, make_rewriting
from assay.config.endpoint import Endpoint
from assay.daemon.bounded import BoundedServer, DeadlineStream
from assay.daemon.child import Kind, SocketSetting, Tether
from assay.log import Log
from assay.policy import Rewriting
from assay.protocol import srs

MAX_CLIENTS = 500  # connections at a time, our choice: each smtpd(8) and cleanup(8) of Postfix keeps one
MAX_OF_ONE_CLIENT = 400  # of these; our choice: Postfix has 100 processes of a kind by default, and others need some
#: Seconds from one answer to the end of the next request, and for the client to take an answer. Postfix closes after
#: 5 s without a question (ipc_idle); Sendmail keeps one connection for a message.
PATIENCE_SECONDS = 60.0
MAX_REQUEST_OCTETS = 4096  # our choice: an address has 320 (RFC 5321, 4.5.3.1), and tcp_table(5) allows 4096
MAX_ANSWER_OCTETS = 4096  # of a line, by tcp_table(5)
_SELDOM_SECONDS = 60.0  # between two warnings

#: Finds the other form of an address; empty if there is none.
Lookup = Callable[[str], str]


def kind(configuration: Configuration, log: Log) -> tuple[Kind, ...]:
    """The map server, if the configuration asks for one.

    :raises ValueError: the secrets cannot be used.
    """
    section = configuration.srs
    if not (section.domain and (section.socketmap or section.forward_table or section.reverse_table)):
        return ()
    rewriting = make_rewriting(section)
    if rewriting is None:
        return ()
    sockets = tuple(
        SocketSetting(key, Endpoint.parse(text))
        for key, text in (
            ("srs.socketmap", section.socketmap),
            ("srs.forward_table", section.forward_table),
            ("srs.reverse_table", section.reverse_table),
        )
        if text
    )
    return (Kind("map server", lambda tether: run(tether, rewriting, log), sockets=sockets),)


def run(tether: Tether, rewriting: Rewriting, log: Log) -> int:
    """Serve until the order to drain. Call it in a new child process.

    :returns: the exit code.
    """
    found = lookups(rewriting)
    crowd = _Crowd(log)
    handlers = {
        "srs.socketmap": socketmap(found),
        "srs.forward_table": table(found["forward"]),
        "srs.reverse_table": table(found["reverse"]),
    }
    servers = [
        BoundedServer(
            listening,
            handlers[key],
            MAX_CLIENTS,
            share=MAX_OF_ONE_CLIENT,
            over=crowd.warn,
            failed=lambda error: log.error(f"map server: a client got no answer: {error!r}"),
        )
        for key, listening in tether.sockets.items()
    ]
    tether.ready()
    tether.wait()
    for server in servers:
        server.close()
    return os.EX_OK


class _Crowd:
    """Reports the clients that have too many connections, now and then."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._next_warning = float("-inf")

    def warn(self, client: str) -> None:
        """A connection of this client was closed."""
        now = time.monotonic()
        if now >= self._next_warning:
            self._next_warning = now + _SELDOM_SECONDS
            self._log.warning(f"map server: {client} has {MAX_OF_ONE_CLIENT} connections; further ones are closed")


def lookups(rewriting: Rewriting) -> Mapping[str, Lookup]:
    """The maps by name."""

    def reverse(address: str) -> str:
        try:
            return rewriting.reverse(address, time.time())
        except srs.SrsError:  # the MTA then finds no such user, or the milter refuses it and says why
            return ""

    return {"forward": lambda address: rewriting.sender(address, time.time()), "reverse": reverse}


def socketmap(maps: Mapping[str, Lookup]) -> type[socketserver.StreamRequestHandler]:
    """A handler of socketmap clients."""

    class Handler(_Handler):
        def answers(self) -> Iterator[bytes]:
            while (request := self._netstring()) is not None:
                name, _, key = request.partition(b" ")
                lookup = maps.get(name.decode("ascii", "replace"))
                text = _answer(lookup, key) if lookup is not None else b"PERM no such map; write forward or reverse"
                yield b"%d:%s," % (len(text), text)

        def _netstring(self) -> bytes | None:
            """The next request; None at the end, or for what is not a netstring of an allowed length."""
            digits = b""
            while (octet := self.rfile.read(1)) != b":":
                if not octet.isdigit() or len(digits) > 5:
                    return None
                digits += octet
            length = int(digits or b"-1")
            if not 0 <= length <= MAX_REQUEST_OCTETS:
                return None
            request = self.rfile.read(length + 1)
            return request[:-1] if len(request) == length + 1 and request.endswith(b",") else None

    return Handler


def table(lookup: Lookup) -> type[socketserver.StreamRequestHandler]:
    """A handler of tcp_table clients."""

    class Handler(_Handler):
        def answers(self) -> Iterator[bytes]:
            while (line := self.rfile.readline(MAX_REQUEST_OCTETS)).endswith(b"\n"):
                match = _GET.fullmatch(line)
                if match is None:
                    yield b"400 write: get ADDRESS\n"
                    return
                yield _line(_find(lookup, unquote_to_bytes(match[1])))

    return Handler


_GET = re.compile(rb"get ([^ \r\n]+)\r?\n")
_SAFE = "!#$&'*+-/=?^_`{|}~@\".()<>,:;[]\\"  # as they are: all but the per cent sign, white space and controls


def _line(found: bytes) -> bytes:
    """The answer of a table; what Postfix could not read is an error that says so."""
    if not found:
        return b"500 no such address\n"
    line = b"200 %s\n" % quote_from_bytes(found, _SAFE).encode()
    return line if len(line) <= MAX_ANSWER_OCTETS else b"400 the address is too long for a tcp_table\n"


def _answer(lookup: Lookup, key: bytes) -> bytes:
    found = _find(lookup, key)
    return b"OK " + found if found else b"NOTFOUND "


def _find(lookup: Lookup, key: bytes) -> bytes:
    try:
        return lookup(key.decode()).encode()
    except UnicodeError:  # no address that we could have written
        return b""


class _Handler(socketserver.StreamRequestHandler, ABC):
    timeout: ClassVar[float] = PATIENCE_SECONDS

    def setup(self) -> None:
        super().setup()
        self._stream = DeadlineStream(self.connection)
        self.rfile = io.BufferedReader(self._stream)

    def handle(self) -> None:
        self._stream.wait(self.timeout)
        for answer in self.answers():
            self.connection.settimeout(self.timeout)
            self.wfile.write(answer)
            self._stream.wait(self.timeout)

    @abstractmethod
    def answers(self) -> Iterator[bytes]:
        """The answers to the requests, until the client leaves or sends nonsense."""
