# SPDX-License-Identifier: GPL-3.0-or-later
"""The load: many connections to a milter, or to a chain of milters one after another, in one thread.

It sends prepared bytes and reads replies, so that it costs less than any milter. But it checks everything:
the negotiation must be the one the bytes were made for, every event that requires a reply must be answered with
"continue", and the fields returned at the end of each message must contain the member's results.
"""

from __future__ import annotations

import select
import socket
import struct
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import mail
from mail import Message, Send

_CONTINUE = b"\0\0\0\1c"
_QUIT = b"\0\0\0\1Q"
_FINAL = frozenset(b"carydtf")
_PATIENCE = 60.0  # seconds without any progress


class LoadError(Exception):
    """The milter did not do its job. The message says what it did instead."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """What a milter negotiated."""

    reply: bytes
    steps: int
    macros: dict[int, set[str]]


@dataclass(frozen=True, slots=True)
class Leg:
    """What one milter of a chain gets for one message, and the texts that its edits must have."""

    address: str | tuple[str, int]
    agreement: Agreement
    connection: list[Send]
    transaction: list[Send]
    expected: tuple[bytes, ...]


@dataclass(slots=True)
class Result:
    """The results of a run. `latencies` are in seconds: how long the SMTP client of a message waited for the milters,
    from the first connect to the last verdict, without the client's own turns."""

    seconds: float = 0.0
    generator_cpu: float = 0.0
    latencies: list[float] = field(default_factory=list)

    @property
    def messages(self) -> int:
        return len(self.latencies)

    @property
    def rate(self) -> float:
        return self.messages / self.seconds


def percentile(values: Sequence[float], percent: float) -> float:
    """The value that the given percentage does not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


def open_socket(address: str | tuple[str, int]) -> socket.socket:
    """Connect; a string is the path of a unix socket."""
    family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
    connection = socket.socket(family, socket.SOCK_STREAM)
    if family == socket.AF_INET:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # as Postfix does
    try:
        connection.connect(address)
    except OSError:
        connection.close()
        raise
    return connection


def negotiate(address: str | tuple[str, int]) -> Agreement:
    """Ask a milter what it wants."""
    with open_socket(address) as connection:
        connection.settimeout(_PATIENCE)
        connection.sendall(mail.OFFER)
        data = b""
        while len(data) < 4 or len(data) < 4 + int.from_bytes(data[:4], "big"):
            piece = connection.recv(65536)
            if not piece:
                raise LoadError("closed the connection during the negotiation")
            data += piece
        connection.sendall(_QUIT)
    _, _, steps = struct.unpack_from("!III", data, 5)
    macros, lists = {}, data[17:]
    while len(lists) > 4:
        names, _, rest = lists[4:].partition(b"\0")
        macros[int.from_bytes(lists[:4], "big")] = set(names.decode().split())
        lists = rest
    return Agreement(data, steps, macros)


def leg(address: str | tuple[str, int], agreement: Agreement, message: Message, expected: Sequence[str]) -> Leg:
    """Make the bytes for one message and one milter."""
    connection, transaction = mail.session(message, agreement.steps, agreement.macros)
    return Leg(address, agreement, connection, transaction, tuple(text.encode() for text in expected))


def packets(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The whole packets in a piece of stream: command and data."""
    position = 0
    while position + 5 <= len(data):
        length = int.from_bytes(data[position : position + 4], "big")
        if position + 4 + length > len(data):
            return
        yield data[position + 4], data[position + 5 : position + 4 + length]
        position += 4 + length


def insertions(edits: bytes) -> list[tuple[bytes, bytes]]:
    """The fields that a milter put on top, topmost first, as the next one sees them."""
    fields: list[tuple[bytes, bytes]] = []
    for command, data in packets(edits):
        if command == ord("i"):
            name, value = data[4:].split(b"\0")[:2]
        elif command == ord("h"):
            name, value = data.split(b"\0")[:2]
        else:
            continue
        value = value.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
        fields.insert(0, (name, value if value.startswith(b" ") else b" " + value))
    return fields


class _Client:
    """One connection slot: it sends one message after another through all legs."""

    __slots__ = (
        "began",
        "buffer",
        "index",
        "left",
        "legs",
        "load",
        "on_connection",
        "phase",
        "script",
        "sock",
        "stop",
    )

    def __init__(self, load: Load) -> None:
        self.load = load
        self.sock: socket.socket | None = None
        self.stop = False

    def start(self) -> None:
        """Start the next message, if there is one."""
        self.legs = self.load.next_message()
        self.began = time.perf_counter()
        self.phase = 0
        if self.legs is None:
            self.stop = True
        else:
            self.open()

    def open(self) -> None:
        """Connect to the next milter."""
        self.sock = open_socket(self.legs[self.phase].address)
        self.sock.setblocking(False)
        self.load.clients[self.sock.fileno()] = self
        self.load.epoll.register(self.sock, select.EPOLLIN)
        self.on_connection = 0
        self.script = None  # the negotiation
        self.buffer = b""
        self.left = b""
        self.sock.send(mail.OFFER)

    def send(self) -> None:
        """Send up to the next piece whose reply must be read first, or as much as the socket takes."""
        assert self.sock is not None
        script = self.script
        while self.index < len(script):
            piece = script[self.index]
            data = self.left or piece.data
            try:
                sent = self.sock.send(data)
            except BlockingIOError:
                sent = 0
            if sent < len(data):
                self.left = memoryview(data)[sent:]
                self.load.epoll.modify(self.sock, select.EPOLLIN | select.EPOLLOUT)
                return
            if self.left:
                self.left = b""
                self.load.epoll.modify(self.sock, select.EPOLLIN)
            self.index += 1
            if piece.turn and not piece.replies:
                self.began += self.load.turn()
            if piece.replies:
                return

    def readable(self) -> None:
        """A reply, or several at the end of the message."""
        assert self.sock is not None
        data = self.sock.recv(65536)
        if not data:
            raise LoadError(f"{self.legs[self.phase].address} closed the connection")
        if data == _CONTINUE and not self.buffer and self.script is not None and self.index < len(self.script):
            self.next_piece()
            return
        self.buffer += data
        current = self.legs[self.phase]
        if self.script is None:
            if len(self.buffer) >= len(current.agreement.reply):
                if self.buffer != current.agreement.reply:
                    raise LoadError(f"{current.address} did not negotiate the same as before")
                self.buffer = b""
                # The connection's pieces are without a reply in the end or with one: the message follows in any case.
                self.script = current.connection + current.transaction
                self.index = 0
                self.send()
            return
        self.replies(current)

    def replies(self, current: Leg) -> None:
        """Look for the reply that ends the event."""
        whole = end = 0
        for command, data in packets(self.buffer):
            whole += 5 + len(data)
            if command in _FINAL:
                end = command
        if not end or whole < len(self.buffer):
            return
        if self.index < len(self.script):
            if end != ord("c"):
                raise LoadError(f"{current.address} answered {chr(end)!r} before the end of the message")
            self.buffer = b""
            self.next_piece()
            return
        for text in current.expected:
            if text not in self.buffer:
                raise LoadError(f"{current.address} did not write {text.decode()!r} but {self.buffer!r}")
        self.load.on_edits(self.phase, self.buffer)
        self.end_of_message(current)

    def next_piece(self) -> None:
        """The previous event is answered."""
        if self.script[self.index - 1].turn:
            self.began += self.load.turn()
        self.send()

    def end_of_message(self, current: Leg) -> None:
        """The verdict is there: the next message on this connection, the next milter, or the next message."""
        assert self.sock is not None
        self.buffer = b""
        self.on_connection += 1
        last = self.phase == len(self.legs) - 1
        if last:
            self.load.done(time.perf_counter() - self.began)
            if self.on_connection < self.load.messages_a_connection:
                self.script = current.transaction  # the same message again: its client is on this connection
                self.index = 0
                self.began = time.perf_counter()
                self.send()
                return
        self.sock.send(_QUIT)
        self.close()
        if last:
            self.start()
        else:
            self.phase += 1
            self.open()

    def close(self) -> None:
        if self.sock is not None:
            del self.load.clients[self.sock.fileno()]
            self.load.epoll.unregister(self.sock)
            self.sock.close()
            self.sock = None


class Load:
    """One run. `messages` are the legs of each; they are sent round and round until the time or the count is up.

    `round_trip` is how long the SMTP client takes before it sends its next command, in seconds; only with one
    connection.
    """

    def __init__(
        self,
        messages: Sequence[Sequence[Leg]],
        *,
        connections: int,
        seconds: float = 0.0,
        count: int = 0,
        messages_a_connection: int = 1,
        round_trip: float = 0.0,
        on_edits: Callable[[int, bytes], None] = lambda _phase, _edits: None,
    ) -> None:
        self.messages_a_connection = messages_a_connection
        self.on_edits = on_edits
        self.clients: dict[int, _Client] = {}
        self.epoll = select.epoll()
        self._messages = messages
        self._next = 0
        self._round_trip = round_trip
        self._count = count
        self._seconds = seconds
        self._connections = connections
        self._until = 0.0
        self._result = Result()

    def run(self) -> Result:
        """Send; raises LoadError as soon as a milter fails."""
        began, cpu = time.perf_counter(), time.process_time()
        self._until = began + self._seconds
        try:
            for _ in range(self._connections):
                _Client(self).start()
            while self.clients:
                ready = self.epoll.poll(_PATIENCE)
                if not ready:
                    raise LoadError("no answer")
                for descriptor, events in ready:
                    client = self.clients[descriptor]
                    if events & select.EPOLLOUT:
                        client.send()
                    if events & ~select.EPOLLOUT:
                        client.readable()
        finally:
            for client in list(self.clients.values()):
                client.close()
            self.epoll.close()
        self._result.seconds = time.perf_counter() - began
        self._result.generator_cpu = time.process_time() - cpu
        return self._result

    def next_message(self) -> Sequence[Leg] | None:
        """What a free connection is to send, or None when the run is over."""
        if self._count and self._next >= self._count:
            return None
        if self._seconds and time.perf_counter() >= self._until:
            return None
        legs = self._messages[self._next % len(self._messages)]
        self._next += 1
        return legs

    def turn(self) -> float:
        """The SMTP client has read a reply and sends its next command: how long that took."""
        if not self._round_trip:
            return 0.0
        began = time.perf_counter()
        time.sleep(self._round_trip)
        return time.perf_counter() - began

    def done(self, latency: float) -> None:
        """A message is complete."""
        self._result.latencies.append(latency)
